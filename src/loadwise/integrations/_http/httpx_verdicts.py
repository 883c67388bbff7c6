"""Verdicts on requests of httpx or httpx2 that brought no response."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from loadwise.integrations._http.stale import (
    PathFault,
    StaleConnection,
    frame_of,
    is_graceful,
    is_refused,
)
from loadwise.integrations._http.verdict import Verdict
from loadwise.outcome import Outcome

__all__ = ["causes_of", "is_local", "judge_error"]

_DEEPEST = 8
# What this host has run out of. A port to connect from is scarce for each address apart.
_OUT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
# That a name is not known is for its node to answer; all else is the resolver's trouble.
_UNKNOWN_NAME = frozenset(
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name)
)

_NOBODYS = Verdict(Outcome.CANCELLED)
_EVERYBODYS = Verdict(Outcome.CANCELLED, never_sent=True)
_ELSEWHERE = Verdict(Outcome.CANCELLED, retry=True, never_sent=True)
_NOT_REACHED = Verdict(Outcome.FAILURE, retry=True, never_sent=True)
_LOST = Verdict(Outcome.FAILURE, retry=True)
_ENDED = Verdict(Outcome.CANCELLED, retry=True)


def judge_error(module: Any, error: BaseException, *, per_node: bool) -> Verdict:
    """Judge an attempt that brought no response.

    Args:
        module: The package, httpx or httpx2.
        error: What was raised.
        per_node: Whether each node has connections, and proxies, of its own.
    """
    if not isinstance(error, module.TransportError):
        # What the caller's own body has raised, for one.
        return Verdict(Outcome.FAILURE) if isinstance(error, OSError) else _NOBODYS
    cause = error.__cause__
    if isinstance(error, module.LocalProtocolError | module.UnsupportedProtocol):
        verdict = _NOBODYS
    elif isinstance(cause, StaleConnection):
        verdict = _ELSEWHERE if cause.unsent else _ENDED
    elif isinstance(error, module.PoolTimeout | module.ProxyError) or isinstance(cause, PathFault):
        verdict = _ELSEWHERE if per_node else _EVERYBODYS
    elif isinstance(error, module.ConnectError | module.ConnectTimeout):
        verdict = _ELSEWHERE if is_local(error) else _NOT_REACHED
    else:
        verdict = _judge_frame(frame_of(error))
    return verdict


def _judge_frame(frame: Any) -> Verdict:
    """Judge the end of a connection, or of a stream by a frame of HTTP/2."""
    if is_refused(frame):
        return _NOT_REACHED
    if is_graceful(frame):
        return _ENDED if frame.last_stream_id else _ELSEWHERE
    return _LOST


def is_local(error: BaseException) -> bool:
    """Tell whether a connection could not be made for want of something on this host."""
    for cause in causes_of(error):
        if isinstance(cause, socket.gaierror):
            return cause.errno not in _UNKNOWN_NAME
        if isinstance(cause, OSError) and cause.errno in _OUT_OF:
            return True
    return False


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and what it comes from."""
    for _ in range(_DEEPEST):
        if error is None:
            return
        yield error
        # Of several addresses of a name, each has an error.
        within: Sequence[BaseException] = getattr(error, "exceptions", ())
        error = within[0] if within else error.__cause__ or error.__context__
