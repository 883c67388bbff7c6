"""Errors of calls that no server has answered, of gRPC's own family."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, NoReturn

import grpc

from loadwise.errors import NoNodeAvailable
from loadwise.integrations.grpc._bases import FutureBase

__all__ = ["CallError", "NoNodeError"]


class CallError(grpc.RpcError, grpc.Call, FutureBase):
    """A call that has failed before it was sent; a call and a future, too, as gRPC's own errors.

    Args:
        code: Its status.
        details: What is wrong.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        Exception.__init__(self, code, details)
        self._status = code
        self._told = details

    def code(self) -> grpc.StatusCode:
        """Return the status code."""
        return self._status

    def details(self) -> str:
        """Return what is wrong."""
        return self._told

    def debug_error_string(self) -> str:
        """Return what is wrong."""
        return self.details()

    def initial_metadata(self) -> tuple[Any, ...]:
        """Return nothing."""
        return ()

    def trailing_metadata(self) -> tuple[Any, ...]:
        """Return nothing."""
        return ()

    def is_active(self) -> bool:
        """Return ``False``: it has ended."""
        return False

    def time_remaining(self) -> float | None:  # type: ignore[override]  # as grpcio itself does
        """Return ``None``."""
        return None

    def cancel(self) -> bool:
        """Return ``False``: there is nothing to cancel."""
        return False

    def cancelled(self) -> bool:
        """Return ``False``: nobody has cancelled it."""
        return False

    def running(self) -> bool:
        """Return ``False``: it has ended."""
        return False

    def done(self) -> bool:
        """Return ``True``."""
        return True

    def result(self, timeout: float | None = None) -> NoReturn:  # noqa: ARG002 - as gRPC has it
        """Raise this error."""
        raise self

    def exception(self, timeout: float | None = None) -> Exception:  # noqa: ARG002 - as above
        """Return this error."""
        return self

    def traceback(self, timeout: float | None = None) -> TracebackType | None:  # noqa: ARG002
        """Return its traceback."""
        return self.__traceback__

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Call a function with this error, now."""
        fn(self)

    def add_callback(self, callback: Callable[[], None]) -> bool:  # noqa: ARG002 - as gRPC has it
        """Return ``False``: it has ended, and nothing will be called."""
        return False


class NoNodeError(NoNodeAvailable, CallError):
    """No node could be given to a call, and why: an error of gRPC's family, UNAVAILABLE.

    It can be pickled.
    """

    def __init__(
        self,
        balancer: str,
        total: int,
        reasons: Mapping[str, int],
        retry_after: float | None = None,
        filters: Iterable[str] = (),
    ) -> None:
        self._status = grpc.StatusCode.UNAVAILABLE
        NoNodeAvailable.__init__(self, balancer, total, reasons, retry_after, filters)

    def details(self) -> str:
        """Return why there is no node."""
        return str(self)
