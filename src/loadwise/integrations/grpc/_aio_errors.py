"""Errors of calls in an event loop that no server has answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import grpc
import grpc.aio

from loadwise.errors import NoNodeAvailable

__all__ = ["NoNodeError"]


class NoNodeError(NoNodeAvailable, grpc.aio.AioRpcError):
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
        code, nothing = grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata()
        grpc.aio.AioRpcError.__init__(self, code, nothing, nothing)
        NoNodeAvailable.__init__(self, balancer, total, reasons, retry_after, filters)

    def details(self) -> str:
        """Return why there is no node."""
        return str(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self.args!r}"
