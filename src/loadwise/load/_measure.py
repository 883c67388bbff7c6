"""Protocols of load measures."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol, runtime_checkable

from loadwise.clock import Clock
from loadwise.outcome import Outcome

__all__ = ["Cell", "FirstByteMeasure", "Forgetful", "LoadMeasure"]


class Cell(list[None]):
    """One node's entry in a measure; its length is the number of requests in flight.

    ``append`` and ``pop`` of a list are atomic with and without the GIL, so requests are counted
    exactly and without a lock.
    """

    __slots__ = ("__weakref__",)


@runtime_checkable
class LoadMeasure(Protocol):
    """Turns what happens to requests into a load per node.

    A Balancer feeds every measure of its strategy: it appends to the node's cell when a request
    starts, and pops from it and calls `observe` when the request ends. A measure that nobody
    feeds reads zero.
    """

    def cell(self, node_id: Hashable) -> Cell:
        """Return the entry of one node, the same for as long as anyone holds it."""
        ...

    def load(self, cell: Cell) -> float:
        """Return a node's present load; lower is better."""
        ...

    def observe(self, cell: Cell, latency: float, outcome: Outcome, now: float) -> None:
        """Record that a request ended with ``outcome`` at ``now``, after ``latency`` seconds."""
        ...

    def use_clock(self, clock: Clock) -> None:
        """Take the time from ``clock``, unless the measure was given a clock of its own."""
        ...


@runtime_checkable
class Forgetful(Protocol):
    """A measure that wants to know when a node is found UNHEALTHY."""

    def forget(self, cell: Cell) -> None:
        """Take the node for one never measured."""
        ...


@runtime_checkable
class FirstByteMeasure(Protocol):
    """A measure that wants to know when answers begin."""

    def first_byte(self, cell: Cell, tokens: float, now: float) -> None:
        """Record that the answer to a request has begun, as `Lease.first_byte` tells.

        A request is told of once at most, and never after `LoadMeasure.observe`; one that ends
        without a first byte is not told of.

        Args:
            cell: The entry of its node.
            tokens: Tokens of its prompt that were pending, as `PendingTokens` counts them: those
                that the node has probably not cached, where the strategy knows, else all; 0 for a
                request without a prompt.
            now: The time, in seconds of the balancer's clock.
        """
        ...
