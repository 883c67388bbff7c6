"""Servers in processes of their own, that a test tells what to serve, and how to misbehave."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.discovery.support import TIMEOUT
from tests.ports import free_port

ROOT = Path(__file__).parents[2]


class Server:
    """A server that one of the modules beside this file runs, and its control.

    Args:
        script: Name of the module.
        arguments: What else it is told, after the port.
    """

    def __init__(self, script: str, *arguments: str) -> None:
        self._command = [sys.executable, "-m", f"tests.discovery.{script}"]
        self._arguments = arguments
        self.port = free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on the same port as before, with nothing remembered."""
        self.process = subprocess.Popen(
            [*self._command, str(self.port), *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def tell(self, *words: Any) -> Any:
        """Give it an order, and return its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{json.dumps(words)}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.communicate(timeout=TIMEOUT)

    def get(self, path: str) -> Any:
        """Ask it as anybody may."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=TIMEOUT) as answer:  # noqa: S310 - its own server
            return json.load(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
