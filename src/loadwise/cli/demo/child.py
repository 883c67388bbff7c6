"""A program of the demo, as its parent sees it: a process that talks and listens through pipes."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from contextlib import suppress
from threading import Event, Thread
from typing import IO

__all__ = ["Child", "ChildError"]

_STOP_TIMEOUT = 5.0


class ChildError(Exception):
    """A process of the demo could not be started, or ended before its time."""


class Child:
    """One program, through all the processes that it may live as.

    It ends when its standard input does, so it cannot outlive its parent. What it writes is read
    in the background, line by line.

    Attributes:
        name: What it is called.
        pid: Its latest process; 0 before the first start.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.pid = 0
        self._process: subprocess.Popen[str] | None = None
        self._reader: Thread | None = None
        self._spoke = Event()
        self._ready = False
        self._complaints: deque[str] = deque(maxlen=20)

    def run(self, *arguments: str) -> None:
        """Start a process: Python with these arguments."""
        self._spoke, self._ready = Event(), False
        process = self._process = subprocess.Popen(  # noqa: S603 - a program of our own
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            start_new_session=True,  # so that Ctrl-C reaches the parent alone, which stops it
        )
        self.pid = process.pid
        if process.stdout is not None:
            self._reader = Thread(target=self._listen, args=(process.stdout,), daemon=True)
            self._reader.start()

    def hear(self, word: str, rest: str) -> bool:
        """Take note of a line, its first word apart; return whether it was understood."""
        raise NotImplementedError

    def greet(self) -> None:
        """Take note that the process is ready for its work."""
        self._ready = True
        self._spoke.set()

    def _listen(self, lines: IO[str]) -> None:
        """Take note of what the process says, until it has said its last."""
        for line in lines:
            word, _, rest = line.strip().partition(" ")
            if not self.hear(word, rest):
                self._complaints.append(line.rstrip())
        self._spoke.set()
        lines.close()

    def is_ready(self, timeout: float = 0.0) -> bool:
        """Whether it is ready, or is within ``timeout`` seconds.

        Raises:
            ChildError: It ended instead.
        """
        if not self._spoke.wait(timeout):
            return False
        if not self._ready:
            raise ChildError(f"{self.name!r} ended instead of getting ready; it {self.said()}")
        return True

    def said(self) -> str:
        """Return what it said that was not understood, for messages."""
        return f"said: {' / '.join(self._complaints) or 'nothing'}"

    @property
    def is_over(self) -> bool:
        """Whether its process has said its last."""
        return self._reader is None or not self._reader.is_alive()

    def tell(self, word: str) -> None:
        """Say something to its process, if there still is one that listens."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.write(f"{word}\n")

    def kill(self) -> None:
        """End its process at once, with SIGKILL, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._leave(self._process)

    def dismiss(self) -> None:
        """Tell its process to end."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()

    def stop(self) -> None:
        """End its process and wait until it has."""
        self.dismiss()
        process = self._process
        if process is None:
            return
        try:
            process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
        self._leave(process)

    def _leave(self, process: subprocess.Popen[str]) -> None:
        process.wait(_STOP_TIMEOUT)
        if self._reader is not None:
            self._reader.join(_STOP_TIMEOUT)
        self.dismiss()
        self._process = None
