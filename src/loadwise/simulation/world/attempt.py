"""Requests of the simulated callers, and their attempts on servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

from loadwise.balancer import Lease
from loadwise.simulation.world.loop import Action
from loadwise.simulation.world.prompts import SimulatedPrompt

__all__ = ["Sender", "SimulatedAttempt", "SimulatedRequest"]

S = TypeVar("S")
"""The kind of server."""

Amounts = Mapping[str, float]


class SimulatedRequest(Generic[S]):
    """A request of a caller, through all its attempts.

    Attributes:
        arrived: When it arrived.
        work: Seconds that it takes at speed 1.
        key: Its hash key.
        cost: What it is expected to use of the quotas.
        true_cost: What it does use.
        prompt: What a language model is to read.
        over: Whether it has its answer, or has been given up.
        failures: Attempts that failed.
        under_way: The attempts that may still bring an answer, where there may be several.
        tried: Ids of the servers tried, where there may be another attempt.
    """

    __slots__ = (
        "arrived",
        "cost",
        "failures",
        "key",
        "over",
        "prompt",
        "tried",
        "true_cost",
        "under_way",
        "work",
    )

    def __init__(self, arrived: float, work: float, key: str | None) -> None:
        self.arrived = arrived
        self.work = work
        self.key = key
        self.over = False
        self.failures = 0
        self.under_way: list[SimulatedAttempt[S]] | None = None
        self.tried: list[str] | None = None
        self.cost: Amounts | None = None
        self.true_cost: Amounts | None = None
        self.prompt: SimulatedPrompt | None = None


class SimulatedAttempt(Generic[S]):
    """One request on one server.

    Attributes:
        client: The sender, which is told how it ends.
        request: The request.
        lease: The balancer's hold on the server.
        over: Whether the client has done with it.
        began: When the first token of its answer came; unset for answers that come at once.
    """

    __slots__ = ("began", "client", "lease", "over", "request")
    began: float

    def __init__(self, client: Sender[S], request: SimulatedRequest[S], lease: Lease[S]) -> None:
        self.client = client
        self.request = request
        self.lease = lease
        self.over = False


class Sender(Protocol[S]):
    """The client of an attempt, as its server sees it."""

    @property
    def done(self) -> Action:
        """Function to call with an attempt whose work is done."""
        ...

    def began(self, attempt: SimulatedAttempt[S]) -> None:
        """Report that the first token of the answer is there."""

    def broke(self, attempt: SimulatedAttempt[S]) -> None:
        """Report that the connection was refused or broke, or that the answer is an error."""

    def rejected(self, attempt: SimulatedAttempt[S]) -> None:
        """Report that there was no room in the queue."""

    def limited(self, attempt: SimulatedAttempt[S], retry_after: float) -> None:
        """Report that the quota does not allow it for so many seconds."""
