"""The reader of protobuf's wire format, against protobuf itself."""

from __future__ import annotations

import pytest
from google.protobuf import duration_pb2, wrappers_pb2
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("grpc")

from loadwise.integrations.grpc._wire import as_double, fields


@given(st.integers(0, 2**63 - 1), st.integers(0, 999_999_999))
def test_numbers_are_those_that_protobuf_wrote(seconds: int, nanos: int) -> None:
    """Varints of all lengths are read."""
    message = duration_pb2.Duration(seconds=seconds, nanos=nanos).SerializeToString()
    read = dict(fields(message))
    assert (read.get(1, 0), read.get(2, 0)) == (seconds, nanos)


@given(st.floats(allow_nan=False))
def test_doubles_are_those_that_protobuf_wrote(number: float) -> None:
    """Fixed-width numbers are read."""
    message = wrappers_pb2.DoubleValue(value=number).SerializeToString()
    assert [as_double(value) for _, value in fields(message)] == ([number] if message else [])


@given(st.binary())
def test_bytes_are_those_that_protobuf_wrote(content: bytes) -> None:
    """Fields with a length are read."""
    message = wrappers_pb2.BytesValue(value=content).SerializeToString()
    assert [value for _, value in fields(message)] == ([content] if content else [])


@given(st.binary())
def test_anything_is_read_or_refused(message: bytes) -> None:
    """What is no message raises ValueError, and nothing else."""
    try:
        read = list(fields(message))
    except ValueError:
        return
    assert all(isinstance(value, int | bytes) for _, value in read)


def test_what_is_cut_off_is_refused() -> None:
    """A message that ends within a field, a number without an end, and an unknown type."""
    for message in (b"\x0a\x05ab", b"\x08", b"\x08" + 10 * b"\xff", b"\x0b", b"\x09\x00"):
        with pytest.raises(ValueError, match="position"):
            list(fields(message))
    for value in (1, b"1234"):
        with pytest.raises(ValueError, match="no double"):
            as_double(value)
