"""Base classes of grpcio that are generic for those who check types, and in no or few releases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

__all__ = [
    "AioStreamStreamBase",
    "AioStreamStreamCallBase",
    "AioStreamUnaryBase",
    "AioStreamUnaryCallBase",
    "AioUnaryStreamBase",
    "AioUnaryStreamCallBase",
    "AioUnaryUnaryBase",
    "AioUnaryUnaryCallBase",
    "FutureBase",
    "StreamStreamBase",
    "StreamUnaryBase",
    "UnaryStreamBase",
    "UnaryUnaryBase",
]

if TYPE_CHECKING:
    FutureBase = grpc.Future[Any]
    UnaryUnaryBase = grpc.UnaryUnaryMultiCallable[Any, Any]
    UnaryStreamBase = grpc.UnaryStreamMultiCallable[Any, Any]
    StreamUnaryBase = grpc.StreamUnaryMultiCallable[Any, Any]
    StreamStreamBase = grpc.StreamStreamMultiCallable[Any, Any]
    AioUnaryUnaryBase = grpc.aio.UnaryUnaryMultiCallable[Any, Any]
    AioUnaryStreamBase = grpc.aio.UnaryStreamMultiCallable[Any, Any]
    AioStreamUnaryBase = grpc.aio.StreamUnaryMultiCallable[Any, Any]
    AioStreamStreamBase = grpc.aio.StreamStreamMultiCallable[Any, Any]
    AioUnaryUnaryCallBase = grpc.aio.UnaryUnaryCall[Any, Any]
    AioUnaryStreamCallBase = grpc.aio.UnaryStreamCall[Any, Any]
    AioStreamUnaryCallBase = grpc.aio.StreamUnaryCall[Any, Any]
    AioStreamStreamCallBase = grpc.aio.StreamStreamCall[Any, Any]
else:
    FutureBase = grpc.Future
    UnaryUnaryBase = grpc.UnaryUnaryMultiCallable
    UnaryStreamBase = grpc.UnaryStreamMultiCallable
    StreamUnaryBase = grpc.StreamUnaryMultiCallable
    StreamStreamBase = grpc.StreamStreamMultiCallable
    AioUnaryUnaryBase = grpc.aio.UnaryUnaryMultiCallable
    AioUnaryStreamBase = grpc.aio.UnaryStreamMultiCallable
    AioStreamUnaryBase = grpc.aio.StreamUnaryMultiCallable
    AioStreamStreamBase = grpc.aio.StreamStreamMultiCallable
    AioUnaryUnaryCallBase = grpc.aio.UnaryUnaryCall
    AioUnaryStreamCallBase = grpc.aio.UnaryStreamCall
    AioStreamUnaryCallBase = grpc.aio.StreamUnaryCall
    AioStreamStreamCallBase = grpc.aio.StreamStreamCall
