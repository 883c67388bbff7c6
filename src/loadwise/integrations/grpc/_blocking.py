"""Calls that a thread waits for: attempts until there is a response."""

from __future__ import annotations

from typing import Any

import grpc

from loadwise.errors import NoNodeAvailable
from loadwise.integrations.grpc._attempts import CallArguments, CallAttempts
from loadwise.integrations.grpc._connections import SyncConnection
from loadwise.integrations.grpc._errors import NoNodeError
from loadwise.integrations.grpc._methods import Method
from loadwise.integrations.grpc._requests import Messages, payload_of

__all__ = ["answer_of"]


def answer_of(
    method: Method[SyncConnection],
    attempts: CallAttempts,
    requests: Any,
    arguments: CallArguments,
    *,
    with_call: bool,
) -> Any:
    """Make attempts until there is a response; return it, with its call if that is wanted.

    Args:
        method: What is called.
        attempts: None of which has begun.
        requests: The request as bytes, or the `MessageSource` of several.
        arguments: The call's other arguments.
        with_call: Whether to return the call, too.

    Raises:
        grpc.RpcError: The call has failed.
    """
    try:
        attempts.begin()
        return _answer(method, attempts, requests, arguments, with_call=with_call)
    except NoNodeAvailable as error:
        raise NoNodeError(*error.args) from None
    except BaseException:
        # Nothing to do where the attempt has been reported; else the fault is not the node's.
        attempts.give_up()
        raise


def _answer(
    method: Method[SyncConnection],
    attempts: CallAttempts,
    requests: Any,
    arguments: CallArguments,
    *,
    with_call: bool,
) -> Any:
    fleet = method.fleet
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
            send = method.on(connection)
            messages = payload_of(requests)
            try:
                answer = (send.with_call if with_call or wants_trailers else send)(
                    messages,
                    attempts.seconds(single=True),
                    arguments.metadata,
                    arguments.credentials,
                    None,
                    arguments.compression,
                )
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
