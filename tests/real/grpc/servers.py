"""Real gRPC servers that tests start, kill, freeze and start again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.ports import free_port

HERE = Path(__file__).parent
SAFE = frozenset({"/test.Service/Safe", "/test.Service/SafeStream", "/test.Service/SafeCollect"})


class Process:
    """A script of this folder in its own process, which prints a line when it is ready."""

    def __init__(self, script: str, *arguments: object) -> None:
        self._command = [sys.executable, str(HERE / script), *map(str, arguments)]
        self._process: subprocess.Popen[str] | None = None
        self.launch()

    def launch(self) -> None:
        """Begin to start it."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)

    def wait_until_ready(self) -> None:
        """Wait for its line."""
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def start(self) -> None:
        """Start it again, and wait until it is ready."""
        self.launch()
        self.wait_until_ready()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it, if it runs."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


class Server(Process):
    """A gRPC server."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        super().__init__("upstream.py", journal, self.port)

    def acted(self) -> list[str]:
        """Return the ids of the calls that it has acted on."""
        return self.journal.read_text().split() if self.journal.exists() else []


def asked(**what: Any) -> bytes:
    """Return a request."""
    return json.dumps(what).encode()


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for what other threads do, 10 seconds at most."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError(f"it did not come to pass that {what}")
