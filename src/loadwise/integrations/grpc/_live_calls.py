"""Calls as callers hold them who do not wait: futures and streams."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

from loadwise.integrations.grpc._bases import FutureBase
from loadwise.integrations.grpc._under_way import CallUnderWay

__all__ = ["LiveCall"]


class LiveCall(grpc.Call, FutureBase):
    """A call under way: a future of its response, or an iterator over its responses.

    Args:
        under_way: Its attempts.

    Thread-safety: full, but one thread at a time reads a stream.
    """

    def __init__(self, under_way: CallUnderWay) -> None:
        self._under_way = under_way
        under_way.start()

    def __del__(self) -> None:
        under_way = getattr(self, "_under_way", None)
        if under_way is not None and not under_way.over:
            under_way.cancel()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self._under_way.next_message()

    def _ended(self, timeout: float | None = None) -> Any:
        """Return what gRPC, or this package, has for the call when it is over."""
        under_way = self._under_way
        if not under_way.wait_until(lambda: under_way.over, timeout):
            raise grpc.FutureTimeoutError
        return under_way.inner

    def result(self, timeout: float | None = None) -> Any:
        """Return the response; wait for it."""
        inner = self._ended(timeout)
        if self._under_way.cancelled and inner.code() is grpc.StatusCode.CANCELLED:
            raise grpc.FutureCancelledError
        return inner.result()

    def exception(self, timeout: float | None = None) -> Exception | None:
        """Return the error by which the call has ended, if any; wait for the end."""
        inner = self._ended(timeout)
        if self._under_way.cancelled and inner.code() is grpc.StatusCode.CANCELLED:
            raise grpc.FutureCancelledError
        error: Exception | None = inner.exception()
        return error

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """Return the traceback of that error; wait for the end."""
        error = self.exception(timeout)
        if error is None:
            return None
        try:
            raise error
        except grpc.RpcError as raised:
            return raised.__traceback__

    def code(self) -> grpc.StatusCode:
        """Return the status code; wait for the end."""
        code: grpc.StatusCode = self._ended().code()
        return code

    def details(self) -> str:
        """Return the details of the status; wait for the end."""
        return str(self._ended().details())

    def debug_error_string(self) -> str:
        """Return what gRPC says for those who search for a fault; wait for the end."""
        return str(self._ended().debug_error_string())

    def trailing_metadata(self) -> Any:
        """Return the trailers; wait for the end."""
        return self._ended().trailing_metadata()

    def initial_metadata(self) -> Any:
        """Return the metadata that came first; wait for it. Nothing is sent again after that."""
        return self._under_way.initial_metadata()

    def is_active(self) -> bool:
        """Tell whether the call is under way."""
        return not self._under_way.over

    def running(self) -> bool:
        """Tell whether the call is under way."""
        return not self._under_way.over

    def done(self) -> bool:
        """Tell whether the call is over."""
        return self._under_way.over

    def cancelled(self) -> bool:
        """Tell whether the call was cancelled here."""
        return self._under_way.cancelled

    def cancel(self) -> bool:
        """Cancel the call; return whether there was something to cancel."""
        return self._under_way.cancel()

    def time_remaining(self) -> float | None:  # type: ignore[override]  # as grpcio itself does
        """Return the seconds that the call has left; ``None`` for any time."""
        return self._under_way.time_remaining()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have a function called at the end; return ``False`` if that has been."""
        return self._under_way.when_over(callback)

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Have a function called with this object at the end; now if that has been."""
        if not self._under_way.when_over(lambda: fn(self)):
            fn(self)
