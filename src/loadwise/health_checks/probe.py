"""Protocols for a single health check.

A probe is a function of a node, plain or async; what it returns or raises is the verdict. The
probes that come with loadwise are of a third kind, which serves both checkers and keeps time by
itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from loadwise._callables import is_async

__all__ = [
    "AsyncNodeProbe",
    "NodeProbe",
    "TimedProbe",
    "as_async",
    "as_sync",
    "fault_of",
    "fault_of_error",
    "no_answer",
]

N = TypeVar("N")
N_contra = TypeVar("N_contra", contravariant=True)


class NodeProbe(Protocol[N_contra]):
    """A probe of your own for `HealthChecker`: any function of a node.

    ``True`` or ``None`` is a pass; ``False`` or an exception is a failure, and what the exception
    says becomes the reason. It is called in a thread, which nobody can interrupt: give its I/O a
    timeout of its own.
    """

    def __call__(self, node: N_contra, /) -> bool | None:
        """Ask the node."""
        ...


class AsyncNodeProbe(Protocol[N_contra]):
    """A probe of your own for `AsyncHealthChecker`: any coroutine function of a node.

    The verdict is as for `NodeProbe`. It is cancelled when the timeout has passed.
    """

    def __call__(self, node: N_contra, /) -> Awaitable[bool | None]:
        """Ask the node."""
        ...


class TimedProbe(ABC):
    """A probe that serves both checkers, as `HttpProbe` and `TcpProbe` do."""

    @abstractmethod
    def check_node(self, node: object) -> None:
        """Raise ``ValueError`` if such a node cannot be asked at all; it is not asked here."""

    @abstractmethod
    def probe(self, node: object, timeout: float) -> bool | str | None:
        """Ask the node, in a thread, and take no longer than ``timeout`` seconds for an answer.

        Returns:
            ``True`` or ``None`` for a pass; ``False``, or better the reason, for a failure.
        """

    @abstractmethod
    async def probe_async(self, node: object) -> bool | str | None:
        """Ask the node, in an event loop; it is cancelled when the time is over."""


def as_sync(probe: NodeProbe[Any] | TimedProbe, timeout: float) -> Callable[[Any], object]:
    """Return the probe as a plain function of a node.

    Raises:
        TypeError: It is not a plain function.
    """
    if isinstance(probe, TimedProbe):
        return lambda node: probe.probe(node, timeout)
    if isinstance(probe, type):
        # Called with a node it might well be made, or fail, for every node alike.
        raise TypeError(f"probe is {probe!r}; it must be an instance, such as {probe.__name__}()")
    if not callable(probe):
        raise TypeError(f"probe is {probe!r}; it must be a function of a node")
    if is_async(probe):
        raise TypeError(f"probe {probe!r} is a coroutine function; use AsyncHealthChecker for it")
    return probe


def as_async(probe: AsyncNodeProbe[Any] | TimedProbe) -> Callable[[Any], Awaitable[object]]:
    """Return the probe as a coroutine function of a node.

    Raises:
        TypeError: It is not a coroutine function.
    """
    if isinstance(probe, TimedProbe):
        return probe.probe_async
    if isinstance(probe, type) or not is_async(probe):
        raise TypeError(
            f"probe is {probe!r}; it must be a coroutine function of a node (async def), for a "
            f"plain one would block the event loop: use HealthChecker for it"
        )
    return probe


def fault_of(result: object) -> str | None:
    """Return what was wrong by what a probe returned; ``None`` for a pass."""
    if result is None or result is True:
        return None
    if result is False:
        return "the probe returned False"
    if isinstance(result, str):
        return result
    return f"the probe returned {result!r}; it must return True, False or None"


def fault_of_error(error: BaseException) -> str:
    """Return what was wrong by what a probe raised."""
    text = str(error)
    return type(error).__name__ + (f": {text}" if text else "")


def no_answer(timeout: float) -> str:
    """Return the reason of a probe that took too long."""
    return f"no answer within {timeout:g} s"
