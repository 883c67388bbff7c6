"""One server of the demo as its parent sees it: its process, its port and its log."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import IO

from loadwise.cli.demo import server_program

__all__ = ["Profile", "RestartingServer", "ServerError"]

_STOP_TIMEOUT = 5.0


class ServerError(Exception):
    """A server could not be started."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The kind of a server.

    Attributes:
        name: Its name, and its id as a node.
        seconds: The least and the most time that an answer takes.
        failing: The chance that it answers a request with 503.
        weight: Its share under the strategies that go by weight.
        role: Its part in the demo, in a few words.
    """

    name: str
    seconds: tuple[float, float]
    failing: float
    weight: int
    role: str


class RestartingServer:
    """One server, through all the processes that run it one after another.

    A process ends when its standard input does, so it cannot outlive its parent. Its output is read
    in the background, line by line.

    Args:
        profile: The kind of server.
        seed: Seed of its answer times and failures.

    Attributes:
        profile: The kind of server.
        name: Its name.
        pid: Its latest process; 0 before the first start.
        port: Where it listens; 0 before the first start.
        answered: The requests it says it answered with 200.
        refused: How many it says it answered with 503.
    """

    def __init__(self, profile: Profile, seed: int) -> None:
        self.profile = profile
        self.name = profile.name
        self.pid = 0
        self.port = 0
        self.answered: set[int] = set()
        self.refused = 0
        self._seed = seed
        self._process: subprocess.Popen[str] | None = None
        self._reader: Thread | None = None
        self._settled = Event()
        self._ready = False
        self._unknown_lines: deque[str] = deque(maxlen=20)

    def start(self) -> None:
        """Start a process; on the same port as before, if there was one."""
        low, high = self.profile.seconds
        self._settled, self._ready = Event(), False
        process = self._process = subprocess.Popen(  # noqa: S603 - a program of our own
            [
                *(sys.executable, "-I", str(Path(server_program.__file__)), self.name),
                *("--port", str(self.port), "--seed", str(self._seed)),
                *("--seconds", str(low), str(high), "--failing", str(self.profile.failing)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            start_new_session=True,  # so that Ctrl-C reaches the parent alone, which stops it
        )
        self.pid = process.pid
        if process.stdout is not None:
            self._reader = Thread(target=self._read, args=(process.stdout,), daemon=True)
            self._reader.start()

    def is_ready(self, timeout: float = 0.0) -> bool:
        """Return whether it listens, or does so within ``timeout`` seconds.

        Raises:
            ServerError: It ended instead.
        """
        if not self._settled.wait(timeout):
            return False
        if not self._ready:
            output = " / ".join(self._unknown_lines) or "nothing"
            raise ServerError(
                f"server {self.name!r} ended before it listened; its output: {output}"
            )
        return True

    def kill(self) -> None:
        """End its process at once, with SIGKILL, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._reap(self._process)

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
        self._reap(process)

    def _reap(self, process: subprocess.Popen[str]) -> None:
        process.wait(_STOP_TIMEOUT)
        if self._reader is not None:
            self._reader.join(_STOP_TIMEOUT)
        self.dismiss()
        self._process = None

    def _read(self, lines: IO[str]) -> None:
        """Record each line of the output, to the last."""
        for line in lines:
            if not self._record(*line.split()):
                self._unknown_lines.append(line.rstrip())
        self._settled.set()
        lines.close()

    def _record(self, *words: str) -> bool:
        """Record the port, or a line of the log; return whether it was one."""
        match words:
            case ("port", number) if number.isdecimal():
                self.port = int(number)
                self._ready = True
                self._settled.set()
            case ("200", number) if number.isdecimal():
                self.answered.add(int(number))
            case ("503", number) if number.isdecimal():
                self.refused += 1
            case _:
                return False
        return True
