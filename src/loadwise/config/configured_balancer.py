"""The balancer that a fleet file describes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from loadwise.balancer import Balancer, Lease
from loadwise.balancer.calls import CallOptions
from loadwise.config.quotas import FleetQuotas
from loadwise.discovery import Watcher
from loadwise.nodes import Endpoint
from loadwise.retry_budget import RetryBudget

__all__ = ["ConfiguredBalancer", "RetryRule"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class RetryRule:
    """Retries as a fleet file has them.

    Attributes:
        attempts: Attempts per request at most.
        budget: Limits retries; ``None`` for no such limit.
    """

    attempts: int = 3
    budget: RetryBudget | None = None


class ConfiguredBalancer(Balancer[Endpoint]):
    """A balancer made by `load_balancer`: a `Balancer` of endpoints that heeds its file.

    Nodes that join are given the quotas of the file. `call` and `call_async` retry as the file
    says, where a call does not say it itself.

    Where the file names a source, a `Watcher` keeps the nodes those that it lists: from
    `load_balancer` on until `close`, or the end of a ``with`` block, and in forked children, too.

    Attributes:
        retries: Attempts and budget of a request, to hand on to a transport or to `attempts`.
        watcher: Keeps the nodes those of the source; ``None`` where the file names nodes.

    Thread-safety and cost: those of `Balancer`.
    """

    def __init__(
        self,
        nodes: Iterable[Endpoint],
        quotas: FleetQuotas,
        retries: RetryRule,
        **options: Any,  # noqa: ANN401 - those of Balancer
    ) -> None:
        members = tuple(nodes)
        self._quotas = quotas
        self.retries = retries
        self.watcher: Watcher[Endpoint] | None = None
        quotas.give(members)
        super().__init__(members, **options)

    def add(self, node: Endpoint) -> None:
        """Add a member, with the quotas that the file has for it. See `Balancer.add`."""
        if node not in self:
            self._quotas.give([node])
        super().add(node)

    def replace(self, nodes: Iterable[Endpoint]) -> None:
        """Replace all members; newcomers get the quotas of the file. See `Balancer.replace`."""
        members = tuple(nodes)
        self._quotas.give(node for node in members if node not in self)
        super().replace(members)

    def close(self) -> None:
        """Stop watching the source, if there is one; the nodes stay as they are.

        Thread-safety: full. It may be called again.
        """
        if self.watcher is not None:
            self.watcher.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @overload
    def call(
        self,
        fn: Callable[[Endpoint], R],
        /,
        *,
        with_lease: Literal[False] = False,
        **options: Unpack[CallOptions[Endpoint]],
    ) -> R: ...
    @overload
    def call(
        self,
        fn: Callable[[Endpoint, Lease[Endpoint]], R],
        /,
        *,
        with_lease: Literal[True],
        **options: Unpack[CallOptions[Endpoint]],
    ) -> R: ...
    def call(self, fn: Callable[..., R], /, **options: Any) -> R:
        """Call ``fn`` with one node after another, with the file's retries. See `Balancer.call`."""
        self._fill_in(options)
        return super().call(fn, **options)

    @overload
    def call_async(
        self,
        fn: Callable[[Endpoint], Awaitable[R]],
        /,
        *,
        with_lease: Literal[False] = False,
        **options: Unpack[CallOptions[Endpoint]],
    ) -> Coroutine[Any, Any, R]: ...
    @overload
    def call_async(
        self,
        fn: Callable[[Endpoint, Lease[Endpoint]], Awaitable[R]],
        /,
        *,
        with_lease: Literal[True],
        **options: Unpack[CallOptions[Endpoint]],
    ) -> Coroutine[Any, Any, R]: ...
    def call_async(
        self, fn: Callable[..., Awaitable[R]], /, **options: Any
    ) -> Coroutine[Any, Any, R]:
        """Await ``fn`` with one node after another, likewise. See `Balancer.call_async`."""
        self._fill_in(options)
        return super().call_async(fn, **options)

    def _fill_in(self, options: dict[str, Any]) -> None:
        """Set what a call leaves to the file."""
        options.setdefault("attempts", self.retries.attempts)
        options.setdefault("budget", self.retries.budget)
