"""Part of a balancer in a host whose processes see each other's load."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol, runtime_checkable

from loadwise._numbers import shown
from loadwise.balancer.slow_start import SharedStarts
from loadwise.balancer.tallied import Tallied
from loadwise.clock import Clock
from loadwise.health import HealthTracker
from loadwise.load import InFlight, LoadMeasure, PeakEwma
from loadwise.outliers import Ejection, SharedEjections
from loadwise.strategies.protocols import ViewStrategy

__all__ = ["LOOKS_AT_OTHERS", "HealthVersion", "Host", "HostWatch", "as_host", "measures_of"]

LOOKS_AT_OTHERS: Final = 0.01
"""Seconds after which who waits looks whether other processes have made room: they do not tell."""


class HealthVersion(Protocol):
    """Something whose version changes whenever it does."""

    @property
    def version(self) -> int:
        """Its version."""
        ...


@runtime_checkable
class HostWatch(HealthVersion, Protocol):
    """Version of a balancer's health, which takes in what others tell when it is asked for."""

    @property
    def due(self) -> float:
        """When others are to be looked after next, by the balancer's clock."""
        ...

    def tend(self) -> None:
        """Look after them, if that is due."""
        ...

    def share_starts(self, heard: Callable[[Hashable, float], None]) -> SharedStarts:
        """Return where slow starts are told, and tell ``heard`` of those of others."""
        ...

    def share_ejections(self, heard: Callable[[Hashable, Ejection], None]) -> SharedEjections:
        """Return where ejections are told, and tell ``heard`` of those of others."""
        ...


@runtime_checkable
class Host(Protocol):
    """A host's picture, as `loadwise.shared_memory.HostState` gives it to a balancer."""

    def check_clock(self, clock: Clock) -> None:
        """Raise ``ValueError`` unless a clock is the one that all processes of a host share."""
        ...

    def measures(self, own: Iterable[LoadMeasure]) -> tuple[LoadMeasure, ...]:
        """Return the measures that a strategy is to consult in the place of its own."""
        ...

    @property
    def counter(self) -> InFlight:
        """The measure that counts requests."""
        ...

    def catch_up(self) -> None:
        """Take in what others have told."""
        ...

    def watch(self, health: HealthTracker | None) -> HostWatch:
        """Return what has the version of a balancer's health."""
        ...


def as_host(host: object, clock: Clock) -> Host:
    """Return the host that a balancer's argument says.

    Raises:
        TypeError: It is none.
        ValueError: The balancer's clock is not that of the host.
    """
    if isinstance(host, type) or not isinstance(host, Host):
        raise TypeError(
            f"host is {shown(host)}; it must be a HostState of loadwise.shared_memory, such as "
            f'HostState("api")'
        )
    host.check_clock(clock)
    return host


def measures_of(host: Host, strategy: ViewStrategy[Any]) -> tuple[LoadMeasure, ...]:
    """Have a strategy consult the host's measures; return all that are to be fed.

    The first of them counts the requests. Measures of the user's own, and those of strategies of
    the user's own, go by this process.
    """
    own = strategy.measures
    take: Callable[[Sequence[LoadMeasure]], None] | None
    take = getattr(strategy, "share_measures", None)
    if take is not None:
        # What one of the user's own within it cannot share it keeps.
        with suppress(TypeError):
            take(host.measures(own))
    distinct = tuple({id(measure): measure for measure in strategy.measures}.values())
    # All that share have the same entry of a node, so one of them counts for all.
    shared = [each for each in distinct if isinstance(each, Tallied)]
    first = next((each for each in shared if isinstance(each, PeakEwma)), host.counter)
    return (first, *(each for each in distinct if each not in shared))
