"""The servers of the demo, all together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from loadwise.cli.demo.server import Profile, RestartingServer, ServerError

__all__ = ["PROFILES", "DemoFleet"]

_START_TIMEOUT = 20.0

PROFILES = (
    Profile("fast-1", (0.005, 0.010), 0.0, 10, "all is well"),
    Profile("fast-2", (0.005, 0.010), 0.0, 10, "all is well"),
    Profile("fast-3", (0.005, 0.010), 0.0, 10, "all is well"),
    Profile("slow", (0.050, 0.100), 0.0, 1, "10 times slower"),
    Profile("flaky", (0.005, 0.010), 0.3, 10, "answers 503 to 30% of requests"),
    Profile("doomed", (0.005, 0.010), 0.0, 10, "killed, then restarted"),
)


class DemoFleet:
    """All servers of the demo; running inside a ``with`` block, gone after it."""

    def __init__(self, seed: int, profiles: tuple[Profile, ...] = PROFILES) -> None:
        self._servers = {profile.name: RestartingServer(profile, seed) for profile in profiles}

    def __iter__(self) -> Iterator[RestartingServer]:
        return iter(self._servers.values())

    def __len__(self) -> int:
        return len(self._servers)

    def __getitem__(self, name: str) -> RestartingServer:
        return self._servers[name]

    def __enter__(self) -> Self:
        try:
            for server in self:
                server.start()
            self._await_all()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _await_all(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        for server in self:
            if not server.is_ready(max(0.0, deadline - time.monotonic())):
                raise ServerError(
                    f"server {server.name!r} did not listen within {_START_TIMEOUT:g} s; is the "
                    f"machine overloaded?"
                )

    def stop(self) -> None:
        """End all processes and wait until they have ended."""
        for server in self:
            server.dismiss()
        for server in self:
            server.stop()
