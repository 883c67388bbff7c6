"""Attempts of a call in an event loop, made by a task of its own."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio

from loadwise.balancer.per_node_stock import running_loop
from loadwise.errors import NoNodeAvailable
from loadwise.integrations.grpc._aio_connections import AioConnection
from loadwise.integrations.grpc._aio_errors import NoNodeError
from loadwise.integrations.grpc._attempts import CallArguments, CallAttempts
from loadwise.integrations.grpc._methods import Method

__all__ = ["AioCallUnderWay"]


class AioCallUnderWay:
    """Attempts of a call. It belongs to its event loop.

    What the caller holds is another object, so that the call can be cancelled when that is dropped.

    Args:
        method: What is called.
        attempts: None of which has begun.
        arguments: The call's other arguments.
        requests: The request, or the stream of them, as gRPC takes them.
        single: Whether there is to be a single response.

    Attributes:
        over: Whether it has come to its end.
        inner: The present attempt's call in gRPC, once it is sent.
        cancelled: Whether the caller has cancelled it.

    A call that meets no trouble at its begin is made by whoever awaits it at once. Where that is
    not so, or something else is wanted of it than its single response, a task of its own makes it.
    """

    # Most calls never differ from these, so the constructor does not repeat them.
    inner: Any = None
    over = False
    cancelled = False
    # The response or the error by which it has ended, and who waits for that.
    _response: Any = None
    _error: BaseException | None = None
    _ended: asyncio.Future[Any] | None = None
    _committed = False
    _changed: asyncio.Future[None] | None = None
    _reads = 0
    _task: asyncio.Task[Any] | None = None
    _connection: AioConnection | None = None
    # The first attempt's call, if it is sent and nobody waits for it yet.
    _first: Any = None
    _made = False

    def __init__(
        self,
        method: Method[AioConnection],
        attempts: CallAttempts,
        arguments: CallArguments,
        requests: Any,
        *,
        single: bool,
    ) -> None:
        self._method = method
        self._attempts = attempts
        self._arguments = arguments
        self._requests = requests
        self._single = single
        self._loop = asyncio.get_running_loop()
        if not (single and self._is_sent_at_once()):
            self.make()

    def _is_sent_at_once(self) -> bool:
        """Send the first attempt, if there is a node that is connected; return whether it is."""
        attempts = self._attempts
        if attempts.patience():
            return False
        try:
            attempts.begin()
        except NoNodeAvailable as error:
            self._made = True
            self._end(NoNodeError(*error.args))
            return True
        try:
            self._connection = connection = self._method.fleet.nodes(attempts.lease).take()
            if not connection.is_ready:
                return False
            self._first = self._send(connection)
        except BaseException:
            attempts.give_up()
            raise
        connection.watch(self, self._loop)
        return True

    def make(self) -> None:
        """Have a task make the call, if nobody does."""
        if not self._made:
            self._made = True
            self._task = self._loop.create_task(self._run())
            self._task.add_done_callback(_heed)

    async def response(self) -> Any:
        """Return the single response."""
        if not self._made:
            self._made = True
            return await self._run()
        try:
            return await asyncio.shield(self.ended)
        except asyncio.CancelledError:
            self.cancel()
            raise

    async def _run(self) -> Any:
        attempts = self._attempts
        try:
            if not hasattr(attempts, "lease"):
                await attempts.begin_async()
            answer = await self._answer()
        except NoNodeAvailable as error:
            failure = NoNodeError(*error.args)
            self._end(failure)
            raise failure from None
        except asyncio.CancelledError as error:
            if self.cancelled or _is_cancelled():
                attempts.cancelled()
            else:
                attempts.give_up()  # the channel was closed, or the caller's requests failed
            self._end(error)
            raise
        except BaseException as error:
            # Nothing to do where the attempt has been reported; else the fault is not the node's.
            attempts.give_up()
            self._end(error)
            raise
        self._response = answer
        self._end(None)
        return answer

    def _end(self, error: BaseException | None) -> None:
        """End the call, by an error or by the response that is there."""
        if self.over:
            return
        self.over = True
        self._error = error
        if self._ended is not None:
            self._settle(self._ended)
        self._tell()

    @property
    def ended(self) -> asyncio.Future[Any]:
        """The single response, or the error, by which it ends; most calls need no such thing."""
        if self._ended is None:
            self._ended = self._loop.create_future()
            if self.over:
                self._settle(self._ended)
        return self._ended

    def _settle(self, ended: asyncio.Future[Any]) -> None:
        if ended.done():
            return
        if self._error is None:
            ended.set_result(self._response)
        elif isinstance(self._error, asyncio.CancelledError):
            ended.cancel()
        else:
            ended.set_exception(self._error)
            ended.exception()  # retrieved, so that asyncio does not log it: callers are told

    async def _answer(self) -> Any:
        fleet, attempts = self._method.fleet, self._attempts
        while True:
            connection = self._connection
            if connection is None:
                connection = fleet.nodes(attempts.lease).take()
            self._connection = None
            try:
                inner, self._first = self._first, None
                if inner is None:
                    if (
                        not connection.is_ready
                        and not await connection.connect(self._seconds())
                        and (attempts.unreachable() or await attempts.wait_async())
                    ):
                        continue
                    if self.cancelled:
                        raise asyncio.CancelledError
                    # Connected, or nobody else is left to ask, and gRPC can tell what is wrong.
                    inner = self._send(connection)
                try:
                    answer = await (inner if self._single else self._end_of(inner))
                except grpc.aio.AioRpcError as error:
                    code, trailers = error.code(), error.trailing_metadata()
                    again = not self._committed
                    if attempts.failed(code, trailers, error.details(), again=again):
                        continue
                    if await attempts.wait_async():
                        continue
                    raise
                wants_trailers = fleet.settings.on_load_report is not None
                attempts.succeeded(await inner.trailing_metadata() if wants_trailers else None)
            finally:
                connection.leave()
            return answer

    def _seconds(self) -> float | None:
        return self._attempts.seconds(single=self._single)

    def _send(self, connection: AioConnection) -> Any:
        arguments = self._arguments
        self.inner = inner = self._method.on(connection)(
            self._requests,
            timeout=self._seconds(),
            metadata=arguments.metadata,
            credentials=arguments.credentials,
            compression=arguments.compression,
        )
        self._tell()
        return inner

    async def _end_of(self, inner: Any) -> None:
        """Wait for the end of a stream; whoever reads it takes the messages.

        Raises:
            grpc.aio.AioRpcError: It has failed.
        """
        code = await inner.code()
        while self._reads:
            # Whether there was a message before the end, only the reader knows.
            await self._change()
        if code is not grpc.StatusCode.OK:
            if inner.cancelled():
                raise asyncio.CancelledError
            raise grpc.aio.AioRpcError(
                code,
                await inner.initial_metadata(),
                await inner.trailing_metadata(),
                await inner.details(),
                await inner.debug_error_string(),
            )

    def _tell(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)

    async def _change(self) -> None:
        """Wait until the present attempt, or who reads it, changes, or the call is over."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    def cancel(self) -> bool:
        """Cancel the call; return whether there was something to cancel."""
        if self.over or self.cancelled:
            return False
        self.cancelled = True
        if self.inner is not None:
            self.inner.cancel()
        if self._task is not None:
            self._task.cancel()
        self._attempts.cancelled()
        if not self._made:
            self._made = True
            self._leave()
            self._end(asyncio.CancelledError())
        return True

    def _leave(self) -> None:
        """Leave the channel that nobody waits for."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.leave()

    def drop(self) -> None:
        """Cancel the call because nobody holds it any more; said by whatever thread collects it."""
        if self.over:
            return
        if running_loop() is self._loop:
            self.cancel()
            return
        with suppress(RuntimeError):  # the loop is closed, and its tasks with it
            self._loop.call_soon_threadsafe(self.cancel)

    @property
    def was_cancelled(self) -> bool:
        """True if the call has ended by a cancellation, or is about to."""
        return self.cancelled or isinstance(self._error, asyncio.CancelledError)

    def time_remaining(self) -> float | None:
        """Return the seconds that are left; ``None`` for any time."""
        return self._attempts.seconds(single=False)

    async def last(self) -> Any:
        """Wait for the end of the call; return what gRPC, or this package, has for it.

        Returns:
            Its last attempt's call, or the error that came before any.
        """
        self.make()
        if not self.over:
            await asyncio.wait((self.ended,))
        error = self._error
        if isinstance(error, grpc.RpcError) and (
            self.inner is None or isinstance(error, NoNodeError)
        ):
            return error
        return self.inner

    async def sent(self) -> Any:
        """Return the present attempt's call in gRPC; wait until there is one.

        Raises:
            grpc.RpcError: There was none.
        """
        self.make()
        while self.inner is None:
            if self.over:
                return self.ended.result()
            await self._change()
        return self.inner

    async def read(self) -> Any:
        """Return the next message, or ``EOF``; of another attempt if one ends without any.

        Raises:
            grpc.aio.AioRpcError: The call has failed.
        """
        while True:
            inner, failure = await self.sent(), None
            message = grpc.aio.EOF
            self._reads += 1
            try:
                message = await inner.read()
                if message is not grpc.aio.EOF:
                    self._answer_begins()
                    return message
            except grpc.aio.AioRpcError as error:
                failure = error
            finally:
                self._reads -= 1
                self._tell()
            if not await self._is_followed(inner):
                if failure is not None:
                    raise failure
                return message

    async def initial_metadata(self) -> Any:
        """Return what the server has sent first; of another attempt if the present one fails."""
        while True:
            inner = await self.sent()
            metadata = await inner.initial_metadata()
            if not inner.done() or await inner.code() is grpc.StatusCode.OK:
                self._answer_begins()
                return metadata
            if not await self._is_followed(inner):
                return metadata

    def _answer_begins(self) -> None:
        """Report that the answer has begun: from now on nothing is sent again."""
        if not self._committed:
            self._committed = True
            if not self.over:
                self._attempts.lease.first_byte()

    async def _is_followed(self, inner: Any) -> bool:
        """Wait until an attempt that has ended is judged; return whether another follows it."""
        while self.inner is inner and not self.over:
            await self._change()
        return self.inner is not inner


def _is_cancelled() -> bool:
    """Tell whether somebody has cancelled this task, rather than gRPC its call."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _heed(task: asyncio.Task[Any]) -> None:
    """Retrieve a task's error, so that asyncio does not log it: the callers are told."""
    if not task.cancelled():
        task.exception()
