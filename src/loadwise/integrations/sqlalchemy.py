"""loadwise for SQLAlchemy 2: a session that reads from replicas and writes to the primary.

engines = PerNode(lambda node: create_engine(node, pool_pre_ping=True), close=Engine.dispose)
sessions = sessionmaker(
    class_=ReplicaSession, balancer=balancer, engines=engines, primary=by_tag(role="primary")
)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from loadwise._callables import refuse_async
from loadwise._numbers import shown, whole
from loadwise.balancer import Balancer, Lease
from loadwise.balancer.attempts import Attempt
from loadwise.balancer.failure_rules import outcome_of
from loadwise.filters import as_filter
from loadwise.integrations.postgres import classify_postgres
from loadwise.outcome import Outcome

try:
    from sqlalchemy import CompoundSelect, Connection, Engine, Select, event
    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.orm import Session, SessionTransaction
except ImportError as error:
    raise ImportError(
        "loadwise.integrations.sqlalchemy needs SQLAlchemy 2: pip install 'loadwise[sqlalchemy]'"
    ) from error

__all__ = ["ReplicaSession", "classify_postgres"]

_OPTION: Final = "loadwise_lease"


class ReplicaSession(Session):
    """Session that reads from replicas and writes to the primary.

    A transaction's first statement decides. A SELECT goes to a node that the balancer chooses, and
    so do all others of the transaction, until it writes. A flush, DML, ``FOR UPDATE``, and
    whatever the session cannot tell to be a read, such as ``text()``, goes to a node that
    ``primary`` admits, and so does all that follows in the transaction: it sees what it wrote. The
    next transaction begins anew.

    A lease is held from the first statement of a transaction until its end, as its connection is.
    Latency is the time to the first answer. Errors end it by ``classify``; those of constraints or
    of the program's own say nothing against a node. A connection that is refused, or found dead by
    ``pool_pre_ping``, is had from another node before anything was sent. What fails after that is
    the caller's to do again, as with any session.

    Args:
        balancer: Who chooses among all nodes; its strategy decides who answers reads.
        engines: Returns the engine of a lease's node, such as a `PerNode`; of asyncio's, too.
        primary: A filter, or a function of a node, that admits who may be written to.
        classify: Says what a database error says of a node, as ``failures`` of a `Balancer`.
        attempts: How many nodes to try for a connection, >= 1.
        options: Those of `sqlalchemy.orm.Session`, but ``bind`` and ``binds``.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: ``attempts`` is out of range.

    Its methods raise `NoNodeAvailable` where there is no node for a statement.

    For `AsyncSession` give it as ``sync_session_class``. Close sessions, or use ``with``: the
    lease ends with the transaction.

    Thread-safety: as `Session`, for one thread or task. Cost: O(1) for a transaction.
    """

    def __init__(
        self,
        bind: object = None,
        *,
        balancer: Balancer[Any],
        engines: Callable[[Lease[Any]], Any],
        primary: Callable[[Any], bool],
        classify: Callable[[BaseException], Outcome] = classify_postgres,
        attempts: int = 3,
        **options: Any,  # noqa: ANN401 - of many kinds, which Session checks
    ) -> None:
        if bind is not None or options.get("binds"):
            raise TypeError(
                "a ReplicaSession takes neither bind nor binds: give the engines as "
                "engines=PerNode(...), one for each node of the balancer"
            )
        if not isinstance(balancer, Balancer):
            raise TypeError(f"balancer is {shown(balancer)}; it must be a Balancer")
        for name, given in (("engines", engines), ("classify", classify)):
            if not callable(given):
                raise TypeError(f"{name} is {shown(given)}; it must be a function")
        refuse_async("classify", classify, "give a plain function")
        self._balancer = balancer
        self._engines = engines
        self._primary = as_filter(primary)
        self._classify = classify
        self._tries = whole("attempts", attempts, 1)
        self._reading: _Hold | None = None
        self._writing: _Hold | None = None
        super().__init__(**options)

    def get_bind(self, mapper: Any = None, **arguments: Any) -> Engine | Connection:  # noqa: ANN401 - as SQLAlchemy calls it
        """Return the engine for a statement; that of one node for the rest of a transaction."""
        if arguments.get("bind") is not None:
            return super().get_bind(mapper, **arguments)
        if self._writing is None and (self._flushing or not _is_read(arguments.get("clause"))):
            reading = self._reading
            if reading is not None and self._primary(reading.lease.node):
                self._writing = reading  # it has answered the reads of this transaction, too
            else:
                self._writing = self._connect(self._primary)
        hold = self._writing or self._reading
        if hold is None:
            hold = self._reading = self._connect(None)
        return hold.engine

    def _connect(self, where: Callable[[Any], bool] | None) -> _Hold:
        """Return a hold on a node to which there is a connection."""
        for attempt in self._balancer.attempts(self._tries, DBAPIError, where=where):
            lease = attempt.__enter__()
            try:
                hold = _Hold(attempt, lease, _watched(self._engines(lease)))
                self.connection(
                    bind_arguments={"bind": hold.engine},
                    execution_options={_OPTION: (lease, self._classify)},
                )
            except BaseException as error:
                _judge(lease, self._classify, error)
                if not attempt.__exit__(type(error), error, error.__traceback__):
                    raise
            else:
                return hold
        raise AssertionError("attempts end by an error or by a connection")

    def _end_holds(self) -> None:
        """End what is held, once the connections have been given back."""
        holds = {self._reading, self._writing} - {None}
        self._reading = self._writing = None
        for hold in holds:
            if hold is not None:
                hold.attempt.__exit__(None, None, None)


class _Hold:
    """One node's part in a transaction."""

    def __init__(self, attempt: Attempt[Any], lease: Lease[Any], engine: Engine) -> None:
        self.attempt = attempt
        self.lease = lease
        self.engine = engine


def _is_read(clause: object) -> bool:
    """Tell whether a statement certainly changes nothing, as far as its form says."""
    # A function of the server's own that writes is refused by a replica.
    return isinstance(clause, Select | CompoundSelect) and clause._for_update_arg is None  # noqa: SLF001 - it has no other name


def _watched(engine: Any) -> Engine:  # noqa: ANN401 - an engine, or one of asyncio's around it
    """Return an engine that tells the leases how its statements end."""
    found: Any = getattr(engine, "sync_engine", engine)
    if not isinstance(found, Engine):
        raise TypeError(
            f"engines returned {shown(engine)}; it must return an Engine or an AsyncEngine"
        )
    if not event.contains(found, "handle_error", _failed):
        event.listen(found, "handle_error", _failed)
        event.listen(found, "after_cursor_execute", _answered)
    return found


def _failed(context: ExceptionContext) -> None:
    connection = context.connection
    told = None if connection is None else connection.get_execution_options().get(_OPTION)
    if told is not None:
        lease, classify = told
        _judge(lease, classify, context.sqlalchemy_exception or context.original_exception)


def _answered(connection: Connection, *_: object) -> None:
    told = connection.get_execution_options().get(_OPTION)
    if told is not None:
        told[0].first_byte()


def _judge(
    lease: Lease[Any], classify: Callable[[BaseException], Outcome], error: BaseException
) -> None:
    """End a lease whose node has failed, or whose caller has given up; else it goes on."""
    if outcome_of(type(error)) is Outcome.CANCELLED:
        lease.cancel()
        return
    outcome = classify(error)
    # The driver's own words: SQLAlchemy's have the statement with its parameters.
    reason = error.orig if isinstance(error, DBAPIError) else error
    if outcome is Outcome.FAILURE:
        lease.failure(reason)
    elif outcome is Outcome.RATE_LIMITED:
        lease.rate_limited(reason=reason)


def _ended(session: ReplicaSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session._end_holds()  # noqa: SLF001 - the session's own listener


event.listen(ReplicaSession, "after_transaction_end", _ended, propagate=True)
