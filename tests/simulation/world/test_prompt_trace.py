"""Recorded prompts: how they are read, and what is said of files that are not as they must be."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.scenario import PromptTrace
from loadwise.simulation.world.prompt_trace import PromptRecording, read_prompts

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
MOONCAKE = DATA / "mooncake-conversation.jsonl"


def row(at: float, tokens: int = 600, **others: Any) -> str:
    """Return a line of a trace."""
    blocks = list(range(-(-tokens // 512)))
    fields = {"timestamp": at, "input_length": tokens, "output_length": 9, "hash_ids": blocks}
    return json.dumps(fields | others)


def read(
    folder: Path, *lines: str, limit: int | None = None, speed: float = 1.0
) -> PromptRecording:
    """Return what is read of a file with these lines."""
    file = folder / "prompts.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    return read_prompts(PromptTrace(file=str(file), speed=speed), 512, limit)


def test_prompts_in_the_order_of_their_times(tmp_path: Path) -> None:
    """Empty lines count for nothing, other keys neither, and a file may end in a line break."""
    found = read(tmp_path, row(6000, 1), "", row(3000, 1025, other=[1], output_length=0), "")
    assert list(found.times) == [0.0, 3.0]
    assert [prompt.tokens for prompt in found.prompts] == [1025, 1]
    assert [prompt.blocks for prompt in found.prompts] == [(0, 1, 2), (0,)]
    assert [prompt.output for prompt in found.prompts] == [1, 9]


def test_requests_of_a_step_are_spread_over_it(tmp_path: Path) -> None:
    """At even intervals, in the order of the file, and twice as fast at speed 2."""
    lines = [row(0), row(0), row(0), row(3000), row(9000)]
    for speed in (1.0, 2.0):
        found = read(tmp_path, *lines, speed=speed)
        assert found.step == 3.0 / speed
        times = [speed * time for time in found.arrivals(Random(1))]
        assert 0.0 <= times[0] < 1.0
        assert [later - times[0] for later in times[1:3]] == pytest.approx([1.0, 2.0])
        assert 3.0 <= times[3] < 6.0
        assert 9.0 <= times[4] < found.seconds * speed == 12.0


def test_times_to_the_millisecond_stay_what_they_are(tmp_path: Path) -> None:
    """The step is the shortest between two times, and that of Mooncake at most."""
    found = read(tmp_path, row(0), row(17), row(18.0), row(5000))
    assert found.step == 0.001
    assert list(found.arrivals(Random(1))) == pytest.approx([0.0, 0.017, 0.018, 5.0], abs=0.001)
    assert read(tmp_path, row(0), row(60_000)).step == 3.0
    assert read(tmp_path, row(0)).step == 3.0


def test_a_limit_keeps_the_earliest(tmp_path: Path) -> None:
    """Whatever their order in the file."""
    found = read(tmp_path, row(9000, 5), row(3000, 1), row(6000, 2), limit=2)
    assert [prompt.tokens for prompt in found.prompts] == [1, 2]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"timestamp": 0,', "this is not JSON: Expecting property name"),
        ("no", "this is not JSON: Expecting value, at column 1"),
        ('"\udcff"', "this is not UTF-8"),
        ("[" * 5000, "this is nested too deeply"),
        ("[1, 2]", "it is [1, 2]; it must be an object with timestamp, input_length"),
        (
            '{"timestamp": 0, "input_length": 1, "output_lenght": 1, "hash_ids": [0]}',
            "it has no 'output_length'; did you mean 'output_lenght'? (it has timestamp, ",
        ),
        ("{}", "it has no 'timestamp' (it has nothing)"),
        (row(-1), "timestamp is -1; it must be a number of milliseconds from 0 on"),
        (row(0, timestamp="0"), 'timestamp is "0"; it must be a number of milliseconds'),
        (row(0, input_length=-600), "input_length is -600; it must be a whole number of tokens"),
        (row(0, input_length=0), "input_length is 0; it must be a whole number of tokens from 1"),
        (row(0, input_length=1.5), "input_length is 1.5; it must be a whole number of tokens"),
        (row(0, output_length=-1), "output_length is -1; it must be a whole number of tokens"),
        (row(0, output_length=True), "output_length is true; it must be a whole number of tokens"),
        (row(0, hash_ids=[1, -2]), "hash_ids is [1, -2]; it must be a list of whole numbers"),
        (row(0, hash_ids=None), "hash_ids is null; it must be a list of whole numbers"),
        (
            row(0, hash_ids=[1]),
            "it has 1 hash_ids, but 600 tokens are 2 blocks of 512: if the trace has blocks of",
        ),
    ],
)
def test_a_bad_line_is_named_with_what_is_wrong(tmp_path: Path, line: str, words: str) -> None:
    """The file, the line, the key, the value, and what it must be."""
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(f"{row(0)}\n\n{line}\n".encode("utf-8", "surrogateescape"))
    with pytest.raises(ScenarioError) as error:
        read_prompts(PromptTrace(file=str(file)), 512)
    assert str(error.value).startswith(f"{file}, line 3: ")
    assert words in str(error.value)


def test_a_file_that_is_not_there_or_has_nothing(tmp_path: Path) -> None:
    """Neither is taken for a trace of no requests."""
    with pytest.raises(ScenarioError, match=r"'nowhere.jsonl' cannot be read: No such file"):
        read_prompts(PromptTrace(file="nowhere.jsonl"), 512)
    with pytest.raises(ScenarioError, match="cannot be read: embedded null"):
        read_prompts(PromptTrace(file="\0"), 512)
    with pytest.raises(ScenarioError, match="has no requests: each line is one, a JSON object"):
        read(tmp_path, "", "")


@pytest.mark.skipif(not MOONCAKE.exists(), reason=f"the Mooncake trace is not in {DATA}")
def test_the_mooncake_trace() -> None:
    """12,031 conversations in an hour, in steps of 3 s, give or take 3 ms."""
    found = read_prompts(PromptTrace(file=str(MOONCAKE)), 512)
    assert len(found.prompts) == len(found.times) == 12_031
    assert found.step == pytest.approx(3.0, abs=0.005)
    assert found.seconds == pytest.approx(3540.0, abs=0.1)
    assert sum(prompt.tokens for prompt in found.prompts) == 144_793_823
