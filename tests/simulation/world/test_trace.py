"""Recorded requests: what is read, and what is said of files that cannot be."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.scenario import Trace
from loadwise.simulation.world.trace import Recording, read_trace

AZURE = Path(__file__).resolve().parents[4] / "shared" / "data" / "azure-llm-2023-conv.csv"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where to write a trace."""
    return tmp_path / "trace.csv"


def read(file: Path, content: str | bytes, *cost: str, speed: float = 1.0) -> Recording:
    """Write a trace with the column ``t`` of times, and read it."""
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_trace(Trace(file=str(file), time="t", cost=cost, speed=speed))


def test_times_are_counted_from_the_first(file: Path) -> None:
    """Whatever the clock said, the first request comes at 0; costs are as they stand."""
    recording = read(file, "x,t,y\n1,100.5,7\n2,101,8.5\n3,104.5,0\n", "y", "x")
    assert list(recording.times) == [0.0, 0.5, 4.0]
    assert [list(column) for column in recording.costs] == [[7.0, 8.5, 0.0], [1.0, 2.0, 3.0]]
    assert (recording.seconds, recording.rate) == (4.0, 0.5)


@pytest.mark.parametrize(
    "rows",
    [
        ("2023-11-16 18:15:46.6805900", "2023-11-16 18:15:50.9951690"),
        ("2023-11-16T18:15:46.680590Z", "2023-11-16T19:15:50.995169+01:00"),
        ("2023-02-28 23:59:58.000", "2023-03-01 00:00:02.314579"),
        ("1700158546.680590", "1700158550.995169"),
        ("-1", "3.314579"),
    ],
)
def test_kinds_of_times(file: Path, rows: tuple[str, str]) -> None:
    """Dates with seven digits of a second, with zones, over a month's end, and numbers."""
    recording = read(file, "t\n" + "\n".join(rows))
    assert recording.seconds == pytest.approx(4.314579, abs=1e-6)


def test_speed(file: Path) -> None:
    """Played ten times faster, it is over in a tenth of the time."""
    assert list(read(file, "t\n5\n10\n25\n", speed=10.0).times) == [0.0, 0.5, 2.0]


def test_rows_out_of_order_are_sorted(file: Path) -> None:
    """By time; rows of the same time stay in their order, and costs go with their rows."""
    recording = read(file, "t,n\n7,0\n3,1\n7,2\n3,3\n5,4\n", "n")
    assert list(recording.times) == [0.0, 0.0, 2.0, 4.0, 4.0]
    assert list(recording.costs[0]) == [1.0, 3.0, 4.0, 0.0, 2.0]


def test_limit_keeps_the_earliest(file: Path) -> None:
    """Not those that stand first in the file; and what is kept begins at 0."""
    file.write_text("t\n9\n4\n6\n", encoding="utf-8")
    trace = Trace(file=str(file), time="t")
    assert list(read_trace(trace, 2).times) == [0.0, 2.0]
    assert list(read_trace(trace, 100).times) == [0.0, 2.0, 5.0]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbft,n\r\n1,2\r\n3,4\r\n",
        b'"t" , n\n\n"1",2\n\n 3 ,"4"\n\n',
        b"t,n\n1,2,extra\n3,4",
    ],
    ids=["from a spreadsheet", "quotes, blanks, empty lines", "more fields"],
)
def test_what_is_not_minded(file: Path, content: bytes) -> None:
    """A byte order mark, line ends, quotes, spaces, empty lines, fields without a name."""
    recording = read(file, content, "n")
    assert list(recording.times) == [0.0, 2.0]
    assert list(recording.costs[0]) == [2.0, 4.0]


def test_a_single_row(file: Path) -> None:
    """It has no length, and so no rate that is finite."""
    recording = read(file, "t\n5\n")
    assert (list(recording.times), recording.seconds) == ([0.0], 0.0)
    assert recording.rate == float("inf")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty; a trace begins with the names of its columns"),
        ("\n\n", "is empty"),
        ("t,n\n", "has the names of columns but no rows"),
        ("T,n\n1,2\n", "has no column 't' (its columns are T, n)"),
        ("t,nn\n1,2\n", "has no column 'n'; did you mean 'nn'?"),
        ("1,2\n3,4\n", "has no column 't' (its columns are 1, 2)"),
        ("t,n\n1,2\n\n3\n", "line 4: it has 1 fields, and 'n' is column 2"),
        ("t,n\n1,2\nx,2\n", "line 3: t is 'x'; it must be a number of seconds, or a date"),
        ("t,n\n1,2\n2023-11-16 18:00,2\n", "line 3: t is '2023-11-16 18:00'; it must be"),
        ("t,n\n2023-11-16 18:00,2\n7,2\n", "line 3: t is '7'; it must be"),
        ("t,n\n2023-11-16 18:00,2\n2023-11-16 18:00Z,2\n", "line 3: t is '2023-11-16 18:00Z'"),
        ("t,n\n2023-13-16 18:00,2\n", "line 2: t is '2023-13-16 18:00'; it must be"),
        ("t,n\nnan,2\n", "line 2: t is 'nan'"),
        ("t,n\n1,2\n1e300,2\n", "line 3: t is '1e300'"),
        ("t,n\n1,-2\n", "line 2: n is '-2'; it must be a number from 0 on"),
        ("t,n\n1,inf\n", "line 2: n is 'inf'; it must be a number from 0 on"),
        ("t,n\n1,NaN\n", "line 2: n is 'NaN'; it must be a number from 0 on"),
        ("t,n\n1,\n", "line 2: n is ''; it must be a number from 0 on"),
        (b"t,n\n1,2\n\xff,3\n", "line 3: this is not UTF-8"),
        (b'"\xe4",t,n\n1,2,3\n', "line 1: this is not UTF-8"),
        ("t,n\n1,2\n" + "9" * 200_000 + ",1\n", "line 3: field larger than field limit"),
        ('t,n\n1,2\n"3\n3",x\n4,5\n', r"line 4: t is '3\n3'"),
    ],
)
def test_bad_files(file: Path, content: str | bytes, said: str) -> None:
    """The message names the file, the line, the column, the value and what is wanted."""
    with pytest.raises(ScenarioError) as caught:
        read(file, content, "n")
    assert str(file) in str(caught.value)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["nowhere.csv", ".", "a\0b.csv"])
def test_files_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    """No such file, a folder, no name at all."""
    with pytest.raises(ScenarioError, match=r"the trace .* cannot be read"):
        read_trace(Trace(file=str(tmp_path / name), time="t"))


@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(0, 1e12)), min_size=1, max_size=30))
def test_numbers_come_through_unchanged(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, float]]
) -> None:
    """What ``repr`` writes is read back to the bit, in the order of time."""
    file = tmp_path_factory.getbasetemp() / "numbers.csv"
    text = "t,n\n" + "".join(f"{at!r},{cost!r}\n" for at, cost in rows)
    recording = read(file, text, "n")
    rows.sort(key=lambda row: row[0])
    assert list(recording.times) == [at - rows[0][0] for at, _ in rows]
    assert list(recording.costs[0]) == [cost for _, cost in rows]


@given(st.binary(max_size=200))
def test_any_content_gives_a_recording_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Whatever stands in the file, nothing but `ScenarioError` comes out of it."""
    file = tmp_path_factory.getbasetemp() / "any.csv"
    try:
        recording = read(file, b"t,n\n" + content, "n")
    except ScenarioError:
        return
    assert len(recording.times) == len(recording.costs[0]) > 0


@pytest.mark.skipif(not AZURE.exists(), reason=f"the Azure trace is not in {AZURE.parent}")
def test_the_azure_trace() -> None:
    """19,366 requests over 3,502 s with 1,155 and 211 tokens on average, as it is described.

    Source: Azure Public Dataset, CC-BY 4.0; Patel et al., "Splitwise", ISCA 2024.
    """
    cost = ("ContextTokens", "GeneratedTokens")
    trace = Trace(file=str(AZURE), time="TIMESTAMP", cost=cost)
    recording = read_trace(trace)
    assert len(recording.times) == 19_366
    assert recording.seconds == pytest.approx(3501.721937, abs=1e-6)
    assert [round(fmean(column)) for column in recording.costs] == [1155, 211]
    assert recording.rate == pytest.approx(5.53, abs=0.01)
    with pytest.raises(ScenarioError, match=r"'ContextToken'; did you mean 'ContextTokens'\?"):
        read_trace(Trace(file=str(AZURE), time="TIMESTAMP", cost=("ContextToken",)))
