"""One server of the demo, as its parent sees it: a process, its port and its log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loadwise.cli.demo import server as server_program
from loadwise.cli.demo.child import Child

__all__ = ["Profile", "Server"]


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


class Server(Child):
    """One server, through all the processes that it may live as.

    Attributes:
        profile: What kind of server it is.
        port: Where it listens; 0 before the first start.
        answered: The requests it says it answered with 200.
        refused: How many it says it answered with 503.
        arrivals: When the requests that it answered had arrived, by the monotonic clock, and
            their numbers.
    """

    def __init__(self, profile: Profile, seed: int) -> None:
        super().__init__(profile.name)
        self.profile = profile
        self.port = 0
        self.answered: set[int] = set()
        self.refused = 0
        self.arrivals: list[tuple[float, int]] = []
        self._seed = seed

    def start(self) -> None:
        """Start a process; on the same port as before, if there was one."""
        low, high = self.profile.seconds
        self.run(
            *("-I", str(Path(server_program.__file__)), self.name),
            *("--port", str(self.port), "--seed", str(self._seed)),
            *("--seconds", str(low), str(high), "--failing", str(self.profile.failing)),
        )

    def hear(self, word: str, rest: str) -> bool:
        """Take note of its port, or of a line of its log."""
        if word == "port" and rest.isdecimal():
            self.port = int(rest)
            self.greet()
            return True
        number, _, arrival = rest.partition(" ")
        if word not in ("200", "503") or not number.isdecimal():
            return False
        self.arrivals.append((float(arrival), int(number)))
        if word == "200":
            self.answered.add(int(number))
        else:
            self.refused += 1
        return True
