"""One server of the demo, as its parent sees it: a process, its port and what it says."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import IO

from loadwise.cli.demo import server as server_program

__all__ = ["Profile", "Server", "ServerError"]

_STOP_TIMEOUT = 2.0


class ServerError(Exception):
    """A server process could not be started."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What kind of server it is.

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


class Server:
    """One server, through all the processes that it may live as.

    Attributes:
        profile: What kind of server it is.
        port: Where it listens; 0 before the first start.
        pid: Its latest process; 0 before the first start.
        answered: The requests it says it answered with 200.
        refused: How many it says it answered with 503.
    """

    def __init__(self, profile: Profile, seed: int) -> None:
        self.profile = profile
        self.port = 0
        self.pid = 0
        self.answered: set[int] = set()
        self.refused = 0
        self._seed = seed
        self._process: subprocess.Popen[str] | None = None
        self._reader: Thread | None = None
        self._spoke = Event()
        self._listens = False
        self._complaints: deque[str] = deque(maxlen=20)

    @property
    def name(self) -> str:
        """Its name."""
        return self.profile.name

    def start(self) -> None:
        """Start a process; on the same port as before, if there was one."""
        low, high = self.profile.seconds
        command = [
            *(sys.executable, "-I", str(Path(server_program.__file__)), self.name),
            *("--port", str(self.port), "--seed", str(self._seed)),
            *("--seconds", str(low), str(high), "--failing", str(self.profile.failing)),
        ]
        self._spoke, self._listens = Event(), False
        process = self._process = subprocess.Popen(  # noqa: S603 - a program of our own
            command,
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

    def _listen(self, lines: IO[str]) -> None:
        """Take note of what the process says, until it has said its last."""
        for line in lines:
            word, _, rest = line.strip().partition(" ")
            if word == "port" and rest.isdecimal():
                self.port, self._listens = int(rest), True
                self._spoke.set()
            elif word == "200" and rest.isdecimal():
                self.answered.add(int(rest))
            elif word == "503":
                self.refused += 1
            else:
                self._complaints.append(line.rstrip())
        self._spoke.set()
        lines.close()

    def is_ready(self, timeout: float = 0.0) -> bool:
        """Whether it listens, or does within ``timeout`` seconds.

        Raises:
            ServerError: It ended instead.
        """
        if not self._spoke.wait(timeout):
            return False
        if not self._listens:
            raise ServerError(
                f"server {self.name!r} ended instead of listening on 127.0.0.1:{self.port}; it "
                f"said: {' / '.join(self._complaints) or 'nothing'}"
            )
        return True

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
