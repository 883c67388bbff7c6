"""Settings that both watchers share, and what both ask of their arguments."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Event
from typing import Any, TypedDict

from loadwise._callables import refuse_async
from loadwise._numbers import finite, shown
from loadwise._random import check_rng
from loadwise.balancer import Balancer
from loadwise.clock import Clock, check_clock
from loadwise.errors import nearest

__all__ = ["Wait", "WatchOptions", "WatchSettings", "require_watchable"]

Wait = Callable[[Event, float], object]
"""Waits for an event, but for so many seconds at most."""


class WatchOptions(TypedDict, total=False):
    """The keyword arguments that both watchers take.

    Attributes:
        debounce: Seconds from the first sign of a change until it is applied, so that changes
            that come together are one; 0.1 by default, 0 for none. The first answer is applied at
            once.
        hold_back: Seconds for which nodes are kept when half of the fleet or more is gone at
            once; what is gone for longer is believed. ``None``, the default, believes at once and
            logs it.
        allow_empty: Whether an answer without nodes empties the fleet; False by default: the
            nodes stay as they were.
        cache: Path of a file that keeps the last good answer over a restart; none by default. It
            is written whenever the nodes change, and read before the source is first asked.
        timeout: Seconds that `start` waits for the first answer at most; 5 by default, 0 for not
            at all.
        rng: Where the jitter of intervals comes from.
        clock: Source of monotonic seconds.
        wait: Waits for an event of a thread, but for so many seconds at most; for tests.
    """

    debounce: float
    hold_back: float | None
    allow_empty: bool
    cache: str | os.PathLike[str] | None
    timeout: float
    rng: Random | None
    clock: Clock
    wait: Wait


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """The options with their defaults; see `WatchOptions` for the meaning."""

    debounce: float = 0.1
    hold_back: float | None = None
    allow_empty: bool = False
    cache: Path | None = None
    timeout: float = 5.0
    rng: Random | None = None
    clock: Callable[[], float] = field(default=time.monotonic)
    wait: Wait = field(default=Event.wait)

    @classmethod
    def of(cls, options: WatchOptions) -> WatchSettings:
        """Return the settings that a watcher's arguments say.

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
        return cls(**options)  # type: ignore[arg-type]  # a path is made one below

    def __post_init__(self) -> None:
        for name in ("debounce", "hold_back", "timeout"):
            given = getattr(self, name)
            if given is None and name == "hold_back":
                continue
            seconds = finite(name, given)
            if not seconds >= 0:
                raise ValueError(
                    f"{name} is {given!r}; it must be a finite number of seconds, at least 0"
                )
            object.__setattr__(self, name, seconds)
        if not isinstance(self.allow_empty, bool):
            raise TypeError(f"allow_empty is {shown(self.allow_empty)}; it must be True or False")
        if self.cache is not None:
            try:
                object.__setattr__(self, "cache", Path(self.cache))
            except TypeError:
                raise TypeError(
                    f"cache is {shown(self.cache)}; it must be the path of a file, or None"
                ) from None
        check_rng(self.rng)
        check_clock(self.clock)
        if not callable(self.wait):
            raise TypeError(
                f"wait is {shown(self.wait)}; it must be a function of an event and seconds"
            )
        refuse_async("wait", self.wait, "it is called in a thread: give a plain function")


def require_watchable(balancer: object, source: Any) -> None:
    """Raise ``TypeError`` unless there are a balancer and a source of its nodes."""
    if not isinstance(balancer, Balancer):
        raise TypeError(f"balancer is {shown(balancer)}; it must be a Balancer")
    is_other = issubclass(type(source), type | Path)  # those have an open() of another kind
    if is_other or not callable(getattr(source, "open", None)):
        raise TypeError(
            f"source is {shown(source)}; it must be a source, such as FileSource('nodes.toml') or "
            f"CallableSource(function), or have a method open() that returns a feed"
        )
