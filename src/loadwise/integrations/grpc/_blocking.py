"""Calls that a thread waits for: attempts until there is a response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from loadwise.errors import NoNodeAvailable
from loadwise.integrations.grpc._attempts import CallArguments, CallAttempts
from loadwise.integrations.grpc._connections import SyncConnection
from loadwise.integrations.grpc._errors import NoNodeError
from loadwise.integrations.grpc._methods import Method
from loadwise.integrations.grpc._requests import Messages

__all__ = ["BlockingCall"]


class BlockingCall:
    """A call that its thread waits for. Not thread-safe: it belongs to that thread.

    Args:
        method: What is called.
        attempts: None of which has begun.
        asked: The call's arguments.
        payload: Returns the request, or the stream of them, once for each attempt.
    """

    def __init__(
        self,
        method: Method[SyncConnection],
        attempts: CallAttempts,
        asked: CallArguments,
        payload: Callable[[], Any],
    ) -> None:
        self._method = method
        self._attempts = attempts
        self._asked = asked
        self._payload = payload

    def answer(self, *, with_call: bool) -> Any:
        """Make attempts until there is a response; return it, with its call if that is wanted.

        Raises:
            grpc.RpcError: The call has failed.
        """
        attempts = self._attempts
        try:
            attempts.begin()
            return self._answer(with_call=with_call)
        except NoNodeAvailable as error:
            raise NoNodeError(*error.args) from None
        except BaseException:
            # Nothing to do where the attempt has been reported; else the fault is not the node's.
            attempts.give_up()
            raise

    def _answer(self, *, with_call: bool) -> Any:
        fleet, attempts = self._method.fleet, self._attempts
        wants_trailers = fleet.settings.on_load_report is not None
        while True:
            connection = fleet.nodes(attempts.lease).take()
            try:
                if (
                    not connection.is_ready
                    and not connection.connect(attempts.seconds(single=True))
                    and (attempts.unreachable() or attempts.wait())
                ):
                    continue
                # It is connected, or nobody else is left to ask, and gRPC can tell what is wrong.
                messages = self._payload()
                try:
                    answer = self._send(connection, messages, full=with_call or wants_trailers)
                except grpc.RpcError as error:
                    if isinstance(messages, Messages) and messages.failed:
                        raise
                    trailers: Any = error.trailing_metadata()
                    if attempts.failed(error.code(), trailers, error.details()) or attempts.wait():
                        continue
                    raise
            finally:
                connection.leave()
            attempts.succeeded(answer[1].trailing_metadata() if wants_trailers else None)
            return answer if with_call or not wants_trailers else answer[0]

    def _send(self, connection: SyncConnection, messages: Any, *, full: bool) -> Any:
        asked, method = self._asked, self._method.on(connection)
        send = method.with_call if full else method
        return send(
            messages,
            timeout=self._attempts.seconds(single=True),
            metadata=asked.metadata,
            credentials=asked.credentials,
            compression=asked.compression,
        )
