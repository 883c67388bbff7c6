"""Source that asks a function of the user's."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from types import GeneratorType
from typing import Any, Generic, TypeVar, cast

from loadwise._callables import is_async, refuse_awaitable
from loadwise._event_loops import AsyncioLoop, TrioLoop
from loadwise._numbers import finite, shown
from loadwise.discovery.source import Feed, Found, SourceError
from loadwise.nodes import refuse_text

__all__ = ["CallableSource"]

N = TypeVar("N")


class CallableSource(Generic[N]):
    """Nodes that a function returns, called again and again.

    Args:
        function: Returns the nodes, of any kind and all of them, or a `Found`; or yields them. It
            is called in a thread and may block; what it raises leaves the nodes as they are. A
            coroutine function is for `AsyncWatcher`, and is awaited in its event loop.
        interval: Seconds from the end of a call to the next, finite and > 0.

    Raises:
        TypeError: ``function`` cannot be called, or is an asynchronous generator; or ``interval``
            is not a number.
        ValueError: ``interval`` is out of range.

    Thread-safety: as that of the function. A watcher calls it from one thread at a time.

    Example:
        >>> CallableSource(lambda: ["10.0.0.1:80"], interval=30.0).open().fetch().nodes
        ('10.0.0.1:80',)
    """

    def __init__(
        self,
        function: Callable[[], Iterable[N] | Found[N]] | Callable[[], Awaitable[Iterable[N]]],
        interval: float = 5.0,
    ) -> None:
        if not callable(function):
            raise TypeError(
                f"function is {shown(function)}; it must be a function that returns nodes"
            )
        if _makes(inspect.isasyncgenfunction, function):
            raise TypeError(
                f"function is {shown(function)}, which yields nodes asynchronously; give a "
                f"coroutine function that returns them as a list"
            )
        seconds = finite("interval", interval)
        if not seconds > 0:
            raise ValueError(
                f"interval is {interval!r}; it must be a finite number of seconds above 0"
            )
        self._function = cast("Callable[[], Any]", function)
        self._interval = seconds
        self.is_async = is_async(function) and not _makes(inspect.isgeneratorfunction, function)
        """True if the function is to be awaited."""

    def open(self) -> Feed[N]:
        """Return a new feed."""
        return _Calls(self._function, self._interval)

    def open_in(self, loop: AsyncioLoop | TrioLoop) -> Feed[N]:
        """Return a new feed that awaits the function in an event loop."""
        return _LoopCalls(self._function, self._interval, loop)

    def __repr__(self) -> str:
        name = getattr(self._function, "__qualname__", type(self._function).__name__)
        return f"CallableSource({name}, interval={self._interval:g})"


class _Calls(Generic[N]):
    """Feed of a plain function."""

    def __init__(self, function: Callable[[], Any], interval: float) -> None:
        self._function = function
        self._interval = interval

    def fetch(self) -> Found[N]:
        """Call the function."""
        answer: object = self._function()
        kind = type(answer)
        if kind is not GeneratorType or inspect.isawaitable(answer):
            refuse_awaitable("the function", answer, "use AsyncWatcher for it")
        return _found(answer, self._interval)

    def close(self) -> None:
        """Do nothing: a function cannot be interrupted."""


class _LoopCalls(Generic[N]):
    """Feed of a coroutine function, for a thread beside its event loop."""

    def __init__(
        self, function: Callable[[], Any], interval: float, loop: AsyncioLoop | TrioLoop
    ) -> None:
        self._function = function
        self._interval = interval
        self._loop = loop
        self._call: Future[Any] | None = None
        self._closed = False

    def fetch(self) -> Found[N]:
        """Have the function awaited in the event loop, and wait for it here."""
        self._call = call = self._loop.submit(self._function)
        if self._closed:
            call.cancel()
        return _found(call.result(), self._interval)

    def close(self) -> None:
        """Cancel it."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()


def _found(answer: object, interval: float) -> Found[Any]:
    if isinstance(answer, Found):
        found: Found[Any] = cast("Any", answer)
        return found if found.again else replace(found, again=interval)
    refuse_text(answer)
    if not isinstance(answer, Iterable):
        raise SourceError(f"the function returned {shown(answer)}; it must return a list of nodes")
    return Found(cast("Any", answer), again=interval)


def _makes(tell: Callable[[object], bool], function: object) -> bool:
    """Tell whether a call of this makes such a thing, be it a function or called as one."""
    while isinstance(function, partial):
        function = cast("partial[object]", function).func
    return tell(function) or tell(inspect.getattr_static(type(function), "__call__", None))
