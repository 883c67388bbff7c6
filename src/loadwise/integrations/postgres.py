"""loadwise for PostgreSQL: what an error says about the server that was asked.

balancer = Balancer(["db-1", "db-2"], failures=classify_postgres)

It needs no package: errors of psycopg, psycopg2, asyncpg and of SQLAlchemy over these are told by
their SQLSTATE and by the names that PEP 249 gives them. The rest is in `loadwise.PerNode`.
"""

from __future__ import annotations

from typing import Final

from loadwise.balancer.failure_rules import outcome_of
from loadwise.outcome import Outcome

__all__ = ["classify_postgres"]

_BY_STATE: Final = {
    "53300": Outcome.RATE_LIMITED,  # too_many_connections: it works, and is full
    "57014": Outcome.CANCELLED,  # query_canceled: by the caller, or by the caller's time limit
    "57P05": Outcome.CANCELLED,  # idle_session_timeout: the caller's connection was left idle
}
_BY_CLASS: Final = {
    "08": Outcome.FAILURE,  # connection exception
    "28": Outcome.FAILURE,  # invalid authorization
    "3D": Outcome.FAILURE,  # there is no such database
    "53": Outcome.FAILURE,  # insufficient resources
    "57": Outcome.FAILURE,  # operator intervention: shut down, crashed, starting
    "58": Outcome.FAILURE,  # system error
    "F0": Outcome.FAILURE,  # configuration file error
    "XX": Outcome.FAILURE,  # internal error, corrupted data
}
_LENGTH: Final = 5
_OF_THE_POOL: Final = frozenset({"PoolClosed", "TooManyRequests"})


def classify_postgres(error: BaseException) -> Outcome:
    """Return what an error of a query or of a connection says about the server.

    For ``failures`` of a `Balancer`. The SQLSTATE decides, where the server has sent one:

    ================================================  ================
    SQLSTATE                                          outcome
    ================================================  ================
    08 connection, 28 authorization, 3D no database,  ``FAILURE``
    53 resources, 57 shutdown or start, 58 system,
    F0 configuration, XX internal error
    53300 too many connections                        ``RATE_LIMITED``
    57014 cancelled or timed out by the statement's   ``CANCELLED``
    limit, 57P05 idle for too long
    all others: 40001 serialization failure, 40P01    ``SUCCESS``
    deadlock, 25006 read only, 23505 duplicate ...
    ================================================  ================

    Without an SQLSTATE: an ``OperationalError``, an `OSError` and what SQLAlchemy takes for a lost
    connection are ``FAILURE``. All else has never been asked of the server and is ``CANCELLED``:
    errors of the driver's own, of a pool that is full or closed, and of the caller.

    Args:
        error: Of psycopg, psycopg2, asyncpg, or of SQLAlchemy over one of these; or any other.

    Thread-safety: full. Cost: O(1).

    Source: PostgreSQL's documentation, appendix A, for the classes.

    Example:
        >>> classify_postgres(ConnectionRefusedError()), classify_postgres(KeyError("a bug"))
        (<Outcome.FAILURE: 'failure'>, <Outcome.CANCELLED: 'cancelled'>)
    """
    if outcome_of(type(error)) is Outcome.CANCELLED:
        return Outcome.CANCELLED
    # SQLAlchemy's errors have the driver's.
    cause = getattr(error, "orig", None) or error
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    if isinstance(state, str) and len(state) == _LENGTH:
        return _BY_STATE.get(state) or _BY_CLASS.get(state[:2], Outcome.SUCCESS)
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    if kinds & _OF_THE_POOL:
        return Outcome.CANCELLED
    lost = getattr(error, "connection_invalidated", False) is True
    if lost or "OperationalError" in kinds or isinstance(cause, OSError):
        return Outcome.FAILURE
    return Outcome.CANCELLED
