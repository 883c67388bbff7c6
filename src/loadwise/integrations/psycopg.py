"""loadwise for psycopg 3: connections that do not wait for ever, and whose fault an error is.

class Connection(TimedConnection):
    answer_timeout = 2.0

pools = PerNode(lambda node: ConnectionPool(node, connection_class=Connection, open=True))
"""

from __future__ import annotations

from collections.abc import Generator
from math import isfinite
from time import monotonic
from typing import Any, TypeVar

from loadwise._numbers import number
from loadwise.errors import LoadwiseError
from loadwise.integrations.postgres import classify_postgres

try:
    from psycopg import AsyncConnection, Connection, OperationalError
    from psycopg.abc import PQGen
    from psycopg.rows import Row
except ImportError as error:
    raise ImportError(
        "loadwise.integrations.psycopg needs psycopg: pip install 'loadwise[psycopg]'"
    ) from error

__all__ = ["AnswerTimeout", "AsyncTimedConnection", "TimedConnection", "classify_postgres"]

R = TypeVar("R")

_DEFAULT = 5.0


class AnswerTimeout(LoadwiseError, OperationalError):  # noqa: N818 - as ConnectionTimeout
    """No answer came in time from a server that may be hung: an error of psycopg's own family.

    The connection is closed. The statement may have been carried out.
    """


class TimedConnection(Connection[Row]):
    """Connection that is closed when the server does not answer in time.

    libpq waits without bound for a server that accepts what is sent and never answers: one that is
    stopped, or whose disk hangs. Its keepalives are answered by the kernel.

    Attributes:
        answer_timeout: Seconds for each exchange with the server, its whole answer included: a
            statement, a commit, or the next rows of a server-side cursor. ``None`` for any time.
            Set it in a class of your own, or on a connection. Have ``statement_timeout`` end
            statements that are merely slow before that.

    Raises:
        AnswerTimeout: By whatever waits for the server; `None` of what it was doing is known.

    Not for ``LISTEN``, which waits for what may never come. It looks at the time ten times a second
    while it waits, so an exchange may take a tenth of a second longer.

    Thread-safety: as `psycopg.Connection`. Cost: O(1) for each exchange.
    """

    answer_timeout: float | None = _DEFAULT

    def __init_subclass__(cls, **options: Any) -> None:  # noqa: ANN401 - the parent's
        super().__init_subclass__(**options)
        _check(cls.__name__, cls.answer_timeout)

    def wait(self, gen: PQGen[R], *args: Any, **kwargs: Any) -> R:  # noqa: ANN401 - versions differ
        """Wait for what the server has to say, as long as it may take."""
        if self.answer_timeout is None:
            return super().wait(gen, *args, **kwargs)
        try:
            return super().wait(_in_time(gen, self.answer_timeout), *args, **kwargs)
        except AnswerTimeout:
            self.pgconn.finish()  # what comes late must not be taken for another's answer
            raise


class AsyncTimedConnection(AsyncConnection[Row]):
    """Connection of asyncio that is closed when the server does not answer in time.

    As `TimedConnection` in all. To give up by `asyncio.timeout` instead takes psycopg another ten
    seconds where the server is hung, because it asks that to cancel the statement.

    Attributes:
        answer_timeout: Seconds for each exchange with the server; ``None`` for any time.
    """

    answer_timeout: float | None = _DEFAULT

    def __init_subclass__(cls, **options: Any) -> None:  # noqa: ANN401 - the parent's
        super().__init_subclass__(**options)
        _check(cls.__name__, cls.answer_timeout)

    async def wait(self, gen: PQGen[R], *args: Any, **kwargs: Any) -> R:  # noqa: ANN401 - as above
        """Wait for what the server has to say, as long as it may take."""
        if self.answer_timeout is None:
            return await super().wait(gen, *args, **kwargs)
        try:
            return await super().wait(_in_time(gen, self.answer_timeout), *args, **kwargs)
        except AnswerTimeout:
            self.pgconn.finish()
            raise


def _check(name: str, seconds: float | None) -> None:
    """Refuse what is no time to wait, where the class is made."""
    if seconds is None:
        return
    given = number(f"{name}.answer_timeout", seconds)
    if not (isfinite(given) and given > 0):
        raise ValueError(
            f"{name}.answer_timeout is {seconds}; it must be a finite number of seconds above 0, "
            "or None for any time"
        )


def _in_time(gen: PQGen[R], seconds: float) -> Generator[Any, Any, R]:
    """Go on with what waits for the server, and raise an error when its time is up."""
    ends = monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            # psycopg says here that nothing has come, too.
            ready = yield wanted
            if not ready and monotonic() >= ends:
                gen.close()
                raise AnswerTimeout(
                    f"the server has not answered in {seconds:g} s (answer_timeout); "
                    f"the connection was closed"
                )
            wanted = gen.send(ready)
    except StopIteration as end:
        answer: R = end.value
        return answer
