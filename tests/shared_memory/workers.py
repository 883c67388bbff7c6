"""Workers of a host in processes of their own, for tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("worker.py")
DEADLINE = 20.0


class HostWorker:
    """A process that shares a host's picture."""

    def __init__(
        self,
        path: Path,
        *nodes: str,
        measure: str = "count",
        interval: float = 0.2,
        limit: int = 0,
        more: str = "",
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, PROGRAM, path, measure, str(interval), str(limit), more, *nodes],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answer = self._read()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def tell(self, *command: Any) -> Any:
        """Have it do something; return what it answers."""
        assert self.process.stdin is not None
        print(json.dumps(command), file=self.process.stdin, flush=True)
        return self._read()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.process.pid, number)

    def end(self) -> None:
        """Kill it, and wait until it is gone."""
        self.process.kill()
        self.process.wait(DEADLINE)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@contextmanager
def worker(
    path: Path,
    *nodes: str,
    measure: str = "count",
    interval: float = 0.2,
    limit: int = 0,
    more: str = "",
) -> Iterator[HostWorker]:
    """Run a worker; make sure that it is gone in the end. ``more`` is ``outliers`` or ``slow``."""
    one = HostWorker(path, *nodes, measure=measure, interval=interval, limit=limit, more=more)
    try:
        yield one
    finally:
        one.end()


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    latest = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < latest
        time.sleep(0.02)
