"""Verdicts by status and trailers."""

from __future__ import annotations

from typing import Any

import pytest

grpc = pytest.importorskip("grpc")

from google.protobuf import any_pb2, duration_pb2  # noqa: E402 - comes with what follows
from google.rpc import (  # type: ignore[import-untyped]  # noqa: E402 - as above
    error_details_pb2,
    status_pb2,
)

from loadwise import Outcome  # noqa: E402 - needs grpc
from loadwise.integrations.grpc._verdicts import judge, pushback_of  # noqa: E402 - needs grpc

FAILURES = {"UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED", "DATA_LOSS"}
PUSHBACK = "grpc-retry-pushback-ms"


def details(*more: Any) -> tuple[str, bytes]:
    """Return the trailer with the details of a status."""
    status = status_pb2.Status(code=8, message="slow down")
    for each in more:
        packed = any_pb2.Any()
        packed.Pack(each)
        status.details.append(packed)
    return "grpc-status-details-bin", status.SerializeToString()


def retry_info(seconds: int, nanos: int = 0) -> Any:
    """Return a RetryInfo."""
    delay = duration_pb2.Duration(seconds=seconds, nanos=nanos)
    return error_details_pb2.RetryInfo(retry_delay=delay)


def test_every_status_has_its_outcome() -> None:
    """The four of the table are failures; without a pushback all others are answers."""
    for code in grpc.StatusCode:
        verdict = judge(code, (), 120.0)
        failed = code.name in FAILURES
        assert verdict.outcome is (Outcome.FAILURE if failed else Outcome.SUCCESS), code
        assert verdict.retry is failed
        assert verdict.retry_after is None


def test_a_pushback_makes_a_rate_limit() -> None:
    """It is as long as the server says, up to the ceiling; a failure with one cools down, too."""
    exhausted, unavailable = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE
    for trailers in ([(PUSHBACK, "1500")], [details(retry_info(1, 500_000_000))]):
        verdict = judge(exhausted, trailers, 120.0)
        assert (verdict.outcome, verdict.retry_after) == (Outcome.RATE_LIMITED, 1.5)
        assert verdict.retry
        failure = judge(unavailable, trailers, 120.0)
        assert (failure.outcome, failure.retry_after) == (Outcome.FAILURE, 1.5)
    assert judge(exhausted, [(PUSHBACK, "9000000")], 120.0).retry_after == 120.0
    assert judge(grpc.StatusCode.NOT_FOUND, [(PUSHBACK, "1500")], 120.0).outcome is Outcome.SUCCESS


@pytest.mark.parametrize("value", ["-1", "soon", "1.5", "", "9" * 30])
def test_an_odd_pushback_forbids_to_retry(value: str) -> None:
    """As gRFC A6 has it; the node rests for the default time."""
    verdict = judge(grpc.StatusCode.RESOURCE_EXHAUSTED, [(PUSHBACK, value)], 120.0)
    assert (verdict.outcome, verdict.retry, verdict.retry_after) == (
        Outcome.RATE_LIMITED,
        False,
        None,
    )


def test_several_pushbacks_forbid_to_retry() -> None:
    """Nobody knows which of them is meant."""
    pushback = pushback_of([(PUSHBACK, "1"), (PUSHBACK, "2")])
    assert pushback is not None
    assert not pushback.retry


def test_details_without_a_sound_retry_info_say_nothing() -> None:
    """Other details, negative delays and what is no message at all."""
    other = error_details_pb2.DebugInfo(detail="x")
    negative = retry_info(-1)
    for trailer in (details(), details(other), details(negative)):
        assert pushback_of([trailer]) is None
    for garbage in (b"", b"\xff", b"\x1a\x01\xff", b"\x1a\x02\x0a\x05", b"\x1a\x03\x0a\x01\xff"):
        assert pushback_of([("grpc-status-details-bin", garbage)]) is None
    assert pushback_of([details(other, retry_info(2))]) == (2.0, True)
    assert pushback_of([details(error_details_pb2.RetryInfo())]) == (0.0, True)
