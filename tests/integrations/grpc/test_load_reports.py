"""Load reports in all their forms, and the load that is made of them."""

from __future__ import annotations

import struct
from base64 import b64encode

import pytest

pytest.importorskip("grpc")

from loadwise.integrations.grpc import LoadReport, ReportedLoad
from loadwise.integrations.grpc._load_reports import report_in
from loadwise.testing import ManualClock

EXPECTED = LoadReport(
    cpu_utilization=0.5, rps=12.5, utilization={"disk": 0.25}, named_metrics={"queue": 3.0}
)


def double(number: int, value: float) -> bytes:
    """Return a field of type double."""
    return bytes([number << 3 | 1]) + struct.pack("<d", value)


def entry(number: int, name: bytes, value: float) -> bytes:
    """Return an entry of a map."""
    body = b"\x0a" + bytes([len(name)]) + name + double(2, value)
    return bytes([number << 3 | 2, len(body)]) + body


BINARY = double(1, 0.5) + double(6, 12.5) + entry(5, b"disk", 0.25) + entry(8, b"queue", 3.0)
TEXT = "TEXT cpu_utilization=0.5, rps_fractional=12.5, utilization.disk=0.25, named_metrics.queue=3"
JSON = (
    'JSON {"cpu_utilization": 0.5, "rps_fractional": 12.5, "utilization": {"disk": 0.25}, '
    '"named_metrics": {"queue": 3}, "unknown": "x"}'
)


def test_all_forms_say_the_same() -> None:
    """Binary, base64, text and JSON."""
    assert LoadReport.parse(BINARY) == EXPECTED
    for header in (TEXT, JSON, f"BIN {b64encode(BINARY).decode()}"):
        assert report_in([("other", "x"), ("endpoint-load-metrics", header)]) == EXPECTED
    assert report_in([("endpoint-load-metrics-bin", BINARY)]) == EXPECTED
    assert report_in([]) is None
    assert report_in(None) is None


@pytest.mark.parametrize(
    "header",
    [
        "TEXT cpu_utilization=much",
        "TEXT cpu_utilization",
        "TEXT cpu_utilization=nan",
        "TEXT cpu_utilization=-1",
        "JSON [1]",
        "JSON {",
        'JSON {"cpu_utilization": []}',
        'JSON {"utilization": {"disk": null}}',
        "BIN ?",
        "BIN /w==",
        "XML <a/>",
        "",
    ],
)
def test_what_is_no_report_says_nothing(header: str) -> None:
    """A server may send anything, and no call fails for it."""
    assert report_in([("endpoint-load-metrics", header)]) is None


def test_a_report_holds_for_a_time() -> None:
    """An old one counts for nothing, so that a node that was busy once is asked again."""
    clock = ManualClock()
    load = ReportedLoad(max_age=10.0, clock=clock)
    assert load("a") == 0.0
    load.record("a", LoadReport(cpu_utilization=0.5))
    assert load("a") == 0.5
    load.record("a", LoadReport(cpu_utilization=0.5, application_utilization=0.9))
    clock.advance(10.0)
    assert load("a") == 0.9
    clock.advance(0.1)
    assert load("a") == 0.0
    queue = ReportedLoad(lambda report: report.named_metrics["queue"])
    queue.record("a", EXPECTED)
    assert queue("a") == 3.0


def test_wrong_arguments_are_refused() -> None:
    """The errors name what is wrong."""
    with pytest.raises(TypeError, match="score is 3"):
        ReportedLoad(3)  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(ValueError, match="max_age is 0"):
        ReportedLoad(max_age=0)
