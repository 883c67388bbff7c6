"""Functions of the user's own whose answers are used at once, so that none may be awaited.

A coroutine counts as true, and what it was to find out is never found out, and nobody says so. Such
functions are refused where they are given, as far as that can be seen. Where it cannot, as with a
lambda that returns a coroutine, their answers are refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Coroutine, Generator
from functools import partial
from types import AsyncGeneratorType, BuiltinFunctionType, CodeType
from typing import Final, cast

from loadwise._numbers import shown

__all__ = [
    "discard",
    "is_async",
    "is_awaitable",
    "refuse_async",
    "refuse_async_methods",
    "refuse_awaitable",
]

_LATER: Final = (
    inspect.CO_COROUTINE
    | inspect.CO_ITERABLE_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
    | inspect.CO_GENERATOR
)
# A generator is as good as a coroutine here: nothing of it has run when its answer is used.


def is_async(function: object) -> bool:
    """Tell whether it can be seen that what ``function`` returns has not been found out yet.

    It can for coroutine functions and generator functions, plain or asynchronous, for methods and
    partials of them, and for objects (and classes of objects) that are called by such a method.
    """
    while isinstance(function, partial):
        function = cast("partial[object]", function).func
    code = getattr(function, "__code__", None)
    if code is not None:
        # What is no code object may stand there, too: that of a mock.
        return bool(getattr(code, "co_flags", 0) & _LATER) or _is_marked(function)
    if isinstance(function, BuiltinFunctionType):
        return False
    kind = function if isinstance(function, type) else type(function)
    # By the class, as the call itself looks it up. For a class, it is how its objects are called:
    # whoever gives the class has forgotten to make one.
    call = inspect.getattr_static(kind, "__call__", None)
    while isinstance(call, partial):
        call = cast("partial[object]", call).func
    code = getattr(getattr(call, "__func__", call), "__code__", None)
    return (isinstance(code, CodeType) and bool(code.co_flags & _LATER)) or _is_marked(function)


def _is_marked(function: object) -> bool:
    """Tell whether a function says of itself that it returns a coroutine."""
    # By an attribute, for which most have no room in use; asking `inspect` takes 1 us.
    return bool(getattr(function, "__dict__", None)) and inspect.iscoroutinefunction(function)


def refuse_async(what: str, function: object, remedy: str) -> None:
    """Raise ``TypeError`` if ``function`` is to be awaited, as far as that can be seen.

    Args:
        what: What it was given as.
        function: The function.
        remedy: What to do instead.
    """
    if is_async(function):
        raise TypeError(f"{what} is {shown(function)}, which is to be awaited; {remedy}")


def refuse_async_methods(what: str, owner: object, methods: tuple[str, ...], remedy: str) -> None:
    """Raise ``TypeError`` if one of an object's methods is to be awaited; those it lacks are not.

    Args:
        what: What the object was given as.
        owner: The object.
        methods: Names of the methods.
        remedy: What to do instead.
    """
    for name in methods:
        if is_async(getattr(owner, name, None)):
            raise TypeError(f"{what} is {shown(owner)}, whose {name} is to be awaited; {remedy}")


def is_awaitable(answer: object) -> bool:
    """Tell whether an answer has not been found out yet."""
    return hasattr(type(answer), "__await__") or isinstance(
        answer, (Coroutine, Generator, AsyncGeneratorType)
    )


def discard(answer: object) -> None:
    """Close a coroutine, or Python would warn, far from here, that it was never awaited."""
    if isinstance(answer, (Coroutine, Generator)):
        cast("Coroutine[object, object, object]", answer).close()


def refuse_awaitable(what: str, answer: object, remedy: str) -> None:
    """Raise ``TypeError`` if ``answer`` is to be awaited; a coroutine is closed before.

    Args:
        what: Who has returned it, for what.
        answer: What was returned.
        remedy: What to do instead.
    """
    if not is_awaitable(answer):
        return
    text = shown(answer)
    discard(answer)
    raise TypeError(f"{what} returned {text}, which is to be awaited; {remedy}")
