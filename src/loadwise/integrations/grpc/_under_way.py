"""Attempts of a call that its caller does not wait for: futures and streams.

What gRPC's threads report to is kept by them. What the caller holds is another object, so that the
call can be cancelled when nobody holds that any more.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition, Thread
from typing import Any

import grpc

from loadwise.errors import NoNodeAvailable
from loadwise.integrations.grpc._attempts import CallArguments, CallAttempts
from loadwise.integrations.grpc._connections import SyncConnection
from loadwise.integrations.grpc._errors import CallError, NoNodeError
from loadwise.integrations.grpc._methods import Method
from loadwise.integrations.grpc._requests import Messages, payload_of

__all__ = ["CallUnderWay"]

_CANCELLED = "Locally cancelled by application!"  # as gRPC has it


class CallUnderWay:
    """Attempts of a call, begun by whoever ends the one before.

    Args:
        method: What is called.
        attempts: None of which has begun.
        requests: The request as bytes, or the `MessageSource` of several.
        arguments: The call's other arguments.
        single: Whether there is to be a single response.

    Attributes:
        changed: Guards what follows, and tells of changes.
        inner: The present attempt's call in gRPC, once it is sent.
        over: Whether the call has come to an end.
        cancelled: Whether its caller has cancelled it.
        committed: Whether its caller has seen something of the present attempt.
        reading: Whether somebody waits for a message of it.
    """

    def __init__(
        self,
        method: Method[SyncConnection],
        attempts: CallAttempts,
        requests: Any,
        arguments: CallArguments,
        *,
        single: bool,
    ) -> None:
        self._method = method
        self._attempts = attempts
        self._requests = requests
        self._arguments = arguments
        self._single = single
        self._connection: SyncConnection | None = None
        self._messages: Any = None
        # The present attempt's call, until it is known how it has ended.
        self._unjudged: Any = None
        self._callbacks: list[Callable[[], None]] = []
        self.changed = Condition()
        self.inner: Any = None
        self.over = False
        self.cancelled = False
        self.committed = False
        self.reading = False

    def start(self) -> None:
        """Begin the first attempt; in a thread, if that may take time."""
        if self._attempts.patience():
            self._in_thread(self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        try:
            self._attempts.begin()
        except NoNodeAvailable as error:
            self._finish(NoNodeError(*error.args))
            return
        self._proceed()

    def _proceed(self) -> None:
        """Send the present attempt; in a thread, if a connection has to be made before."""
        connection = self._take()
        if connection is None:
            return
        if connection.is_ready:
            self._send(connection)
        else:
            self._in_thread(self._connect_and_send)

    def _take(self) -> SyncConnection | None:
        """Return the channel of the present node; ``None`` if the call is over."""
        self._drop_connection()
        try:
            self._connection = self._method.fleet.nodes(self._attempts.lease).take()
        except Exception as error:  # noqa: BLE001 - the caller is to see it, in another thread
            self._attempts.give_up()
            self._finish(error)
            return None
        return self._connection

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.leave()

    def _connect_and_send(self) -> None:
        connection = self._connection
        while connection is not None:
            reached = connection.is_ready or connection.connect(self._seconds())
            gives_up = reached or self.cancelled
            if gives_up or not (self._attempts.unreachable() or self._attempts.wait()):
                self._send(connection)
                return
            connection = self._take()

    def _seconds(self) -> float | None:
        return self._attempts.seconds(single=self._single)

    def _send(self, connection: SyncConnection) -> None:
        inner, error = None, None
        with self.changed:
            if not self.cancelled:
                try:
                    self.inner = self._unjudged = inner = self._started(connection)
                except Exception as raised:  # noqa: BLE001 - the channel was closed, or the like
                    error = raised
                self.changed.notify_all()
        if inner is not None:
            inner.add_done_callback(self._ended)
            return
        if error is None:
            self._attempts.cancelled()
        else:
            self._attempts.give_up()
        self._finish(error)

    def _started(self, connection: SyncConnection) -> Any:
        arguments, method = self._arguments, self._method.on(connection)
        start = method.future if self._single else method
        self._messages = payload_of(self._requests)
        return start(
            self._messages,
            timeout=self._seconds(),
            metadata=arguments.metadata,
            credentials=arguments.credentials,
            compression=arguments.compression,
        )

    def _ended(self, inner: Any) -> None:
        """Take in that gRPC has ended the present attempt; called by its thread."""
        with self.changed:
            if self.reading:
                return  # whoever reads knows whether there was a message before the end
        self.conclude(inner)

    def conclude(self, inner: Any) -> None:
        """Judge how an attempt has ended, once, and begin the next or end the call."""
        with self.changed:
            if inner is not self._unjudged:
                return
            self._unjudged = None
            connection, self._connection = self._connection, None
        attempts, code = self._attempts, inner.code()
        trailers = inner.trailing_metadata()
        again = False
        if code is grpc.StatusCode.OK:
            attempts.succeeded(trailers)
        elif self.cancelled:
            attempts.cancelled()
        elif isinstance(self._messages, Messages) and self._messages.failed:
            attempts.give_up()
        else:
            again = attempts.failed(code, trailers, inner.details(), again=not self.committed)
        if connection is not None:
            connection.leave()
        if again:
            self._proceed()
        elif attempts.is_stranded:
            self._in_thread(self._wait)
        else:
            self._finish(None)

    def _wait(self) -> None:
        if self._attempts.wait():
            self._proceed()
        else:
            self._finish(None)

    def _in_thread(self, job: Callable[[], None]) -> None:
        Thread(target=job, name="loadwise-grpc-call", daemon=True).start()

    def _finish(self, error: BaseException | None) -> None:
        """End the call: by an error, by a cancellation, or as the present attempt has ended."""
        self._drop_connection()
        with self.changed:
            if self.over:
                return
            if isinstance(error, CallError):
                self.inner = error
            elif error is not None:
                self.inner = CallError(grpc.StatusCode.CANCELLED, str(error))
            elif self.inner is None:
                self.inner = CallError(grpc.StatusCode.CANCELLED, _CANCELLED)
            self.over = True
            callbacks, self._callbacks = self._callbacks, []
            self.changed.notify_all()
        for callback in callbacks:
            callback()

    def answer_begins(self) -> None:
        """Report that the answer has begun: from now on nothing is sent again."""
        if not self.committed:
            self.committed = True
            self._attempts.lease.first_byte()

    def cancel(self) -> bool:
        """Cancel the call; return whether there was something to cancel."""
        with self.changed:
            if self.over or self.cancelled:
                return False
            self.cancelled = True
            inner = self.inner
        if inner is not None:
            inner.cancel()
        self._attempts.cancelled()
        if inner is None:
            self._finish(None)  # whoever connects or waits for its sake will see that
        return True

    def when_over(self, callback: Callable[[], None]) -> bool:
        """Have a function called at the end; return whether that is still to come."""
        with self.changed:
            if self.over:
                return False
            self._callbacks.append(callback)
            return True

    def wait_until(self, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait for a change by which a condition holds; return whether it does."""
        with self.changed:
            return self.changed.wait_for(condition, timeout)

    def time_remaining(self) -> float | None:
        """Return the seconds that are left; ``None`` for any time."""
        return self._attempts.seconds(single=False)

    def next_message(self) -> Any:
        """Return the next message; of another attempt if the present one ends without any.

        Raises:
            StopIteration: There are no more.
            grpc.RpcError: The call has failed.
        """
        while True:
            inner = self.sent()
            if isinstance(inner, CallError):
                raise inner
            self.reading = True
            try:
                message = next(inner)
                self.answer_begins()
            except grpc.RpcError:
                if not self._is_followed(inner):
                    raise
            else:
                return message
            finally:
                self.reading = False
                if inner.done():
                    self.conclude(inner)

    def sent(self) -> Any:
        """Return the present attempt's call in gRPC; wait until there is one."""
        self.wait_until(lambda: self.inner is not None)
        return self.inner

    def initial_metadata(self) -> Any:
        """Return what the server has sent first; of another attempt if the present one fails."""
        while True:
            inner = self.sent()
            metadata = inner.initial_metadata()
            if not inner.done() or inner.code() is grpc.StatusCode.OK:
                self.answer_begins()
                return metadata
            if not self._is_followed(inner):
                return metadata

    def _is_followed(self, inner: Any) -> bool:
        """Conclude an attempt that has failed; return whether another one follows it."""
        self.reading = False
        self.conclude(inner)
        self.wait_until(lambda: self.over or self.inner is not inner)
        return self.inner is not inner
