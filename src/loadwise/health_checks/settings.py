"""Settings that the thread checker and the asyncio checker share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypedDict

from loadwise._numbers import finite, whole
from loadwise._random import check_rng
from loadwise.clock import Clock, check_clock
from loadwise.errors import nearest
from loadwise.health import HealthTracker
from loadwise.health_checks.leader import LeaderArgument

__all__ = ["CheckOptions", "CheckSettings"]


class CheckOptions(TypedDict, total=False):
    """The keyword arguments that both checkers take.

    Attributes:
        interval: Seconds from the end of a node's check to the start of its next; 5 by default.
        timeout: Seconds that a node has to answer; 1 by default.
        jitter: By what share each interval is varied at random, so that many checkers do not
            fall into step: 0.1, the default, makes 5 seconds 4.5 to 5.5. At least 0, below 1.
        unhealthy_interval: The interval for a node whose last check failed, or that is not
            HEALTHY; the same as ``interval`` by default.
        healthy_threshold: Passes in a row before they are reported; 1 by default.
        unhealthy_threshold: Failures in a row before they are reported; 1 by default.
        concurrency: Checks at a time at most; 16 by default. One whose time is over does not
            count, even if its thread still hangs.
        health: The tracker to report to, instead of the balancer's own.
        leader: Which one of several processes checks, so that the others need not: the path of a
            lock file of the host (see `HostLeader`), a function that tells whether this process
            does, or a `Leader`, such as `loadwise.integrations.redis.SharedLeader`. Every process
            checks by default.
        rng: Where the jitter comes from.
        clock: Source of monotonic seconds.
    """

    interval: float
    timeout: float
    jitter: float
    unhealthy_interval: float | None
    healthy_threshold: int
    unhealthy_threshold: int
    concurrency: int
    health: HealthTracker | None
    leader: LeaderArgument | None
    rng: Random | None
    clock: Clock


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """The options with their defaults; see `CheckOptions` for the meaning."""

    interval: float = 5.0
    timeout: float = 1.0
    jitter: float = 0.1
    unhealthy_interval: float | None = None
    healthy_threshold: int = 1
    unhealthy_threshold: int = 1
    concurrency: int = 16
    health: HealthTracker | None = None
    leader: LeaderArgument | None = None
    rng: Random | None = None
    clock: Callable[[], float] = field(default=time.monotonic)

    @classmethod
    def of(cls, options: CheckOptions) -> CheckSettings:
        """Return the settings that a checker's arguments say.

        Raises:
            TypeError: There is no such argument, or one is of the wrong type.
            ValueError: One is out of range.
        """
        for name in options:
            if name not in cls.__slots__:
                raise TypeError(
                    f"there is no argument {name!r}{nearest(name, cls.__slots__)} "
                    f"(the arguments are {', '.join(cls.__slots__)})"
                )
        return cls(**options)

    def __post_init__(self) -> None:
        for name in ("interval", "timeout", "unhealthy_interval"):
            given = getattr(self, name)
            if given is None and name == "unhealthy_interval":
                continue
            seconds = finite(name, given)
            if not seconds > 0:
                raise ValueError(
                    f"{name} is {given!r}; it must be a finite number of seconds above 0"
                )
            object.__setattr__(self, name, seconds)
        jitter = finite("jitter", self.jitter)
        if not 0 <= jitter < 1:
            raise ValueError(f"jitter is {self.jitter!r}; it must be at least 0 and below 1")
        object.__setattr__(self, "jitter", jitter)
        for name in ("healthy_threshold", "unhealthy_threshold", "concurrency"):
            object.__setattr__(self, name, whole(name, getattr(self, name), 1))
        check_rng(self.rng)
        check_clock(self.clock)
        if not isinstance(self.health, HealthTracker | None):
            raise TypeError(f"health is {self.health!r}; it must be a HealthTracker")
