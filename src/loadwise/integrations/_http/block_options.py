"""Options of requests that are sent within a block, for libraries that have no place for them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from loadwise.integrations._http.settings import Options

if TYPE_CHECKING:
    from types import EllipsisType

    from loadwise.context import HashKey

__all__ = ["OPTIONS", "request_options"]

_NO_OPTIONS = Options()
OPTIONS: ContextVar[Options] = ContextVar("loadwise_request_options", default=_NO_OPTIONS)


@contextmanager
def request_options(
    *,
    retry: bool = False,
    hash_key: HashKey = None,
    cost: Mapping[str, float] | None = None,
    deadline: float | None = None,
    where: Callable[[Any], bool] | None = None,
    timeout: float | EllipsisType | None = ...,
) -> Generator[None, None, None]:
    """Say something about the requests that are sent within a ``with`` block.

    aiohttp and requests have no place for it in a request, so it is a matter of context: it holds
    for the requests that this thread or task begins in the block, and for tasks started there. A
    block within the block replaces it altogether.

    Args:
        retry: Whether they may be sent again although a server may have acted on them.
        hash_key: What they belong to.
        cost: What each is expected to use, by quota dimension.
        deadline: Seconds for all attempts of each together, up to the response's headers.
        where: A filter, or a function of a node, that their nodes have to pass.
        timeout: Seconds to wait for a node if there is none, >= 0; ``None`` for any time. By
            default they wait as the middleware says.

    Example:
        >>> async def order(session):
        ...     with request_options(retry=True, hash_key="user-42"):
        ...         async with session.post("http://service/orders", json={}) as response:
        ...             return await response.json()
    """
    options = Options(
        retry=retry, hash_key=hash_key, cost=cost, deadline=deadline, where=where, timeout=timeout
    )
    token = OPTIONS.set(options)
    try:
        yield
    finally:
        OPTIONS.reset(token)
