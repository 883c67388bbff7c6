"""The tables of the rules for prompts, and prompts drawn for a load that has none."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from benchmarks.prompt_rules import RULES, TABLES, measured, placed
from benchmarks.prompt_traces import prompts, read

from loadwise.simulation.scenario import PromptTrace
from loadwise.simulation.world.prompt_trace import read_prompts

PAGE = Path(__file__).resolve().parents[2] / "docs" / "llm-simulation.md"


def drawn(folder: Path, requests: int) -> Path:
    """Write a trace for requests of random lengths, ten a second."""
    rng, file = Random(1), folder / "prompts.jsonl"
    rows = [
        (100.0 * number, rng.randrange(1, 3000), rng.randrange(1, 50)) for number in range(requests)
    ]
    file.write_text("\n".join(json.dumps(line) for line in prompts(rows)), encoding="utf-8")
    return file


def test_drawn_prompts_are_a_trace_whose_prompts_share_beginnings(tmp_path: Path) -> None:
    """Lengths and times are those of the recording, and most prompts go on with another."""
    found = read_prompts(PromptTrace(file=str(drawn(tmp_path, 500))), 16).prompts
    seen: set[int] = set()
    gone_on = 0
    for prompt in found:
        assert len(prompt.blocks) == -(-prompt.tokens // 16)
        gone_on += len(prompt.blocks) > 12 and prompt.blocks[12] in seen
        seen.update(prompt.blocks)
    assert 200 < gone_on < 400


def test_a_recording_is_read_by_the_columns_of_azure(tmp_path: Path) -> None:
    """Times from the first on, in milliseconds."""
    file = tmp_path / "calls.csv"
    file.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
        "2023-11-16 18:15:50.9951690,0,109\n"
    )
    assert read(file) == [(0, 374, 44), (4315, 1, 109)]


def test_a_table_has_a_row_for_each_rule(tmp_path: Path) -> None:
    """And stands in its place of the page, which is then as it was but for that."""
    file = drawn(tmp_path, 60)
    table = measured("azure", file, rules=["prefix-affinity", "round-robin"])
    lines = table.splitlines()
    assert lines[0] == "At speed 8, and 10; one seed."
    assert [line.split(" | ")[0] for line in lines[4:]] == [
        "| `prefix-affinity`",
        "| `round-robin`",
    ]
    page = PAGE.read_text(encoding="utf-8")
    for name in TABLES:
        once = placed(page, name, table)
        assert once.count(table) == 1
        assert placed(once, name, table) == once
        assert placed(once, name, "") == placed(page, name, "")


def test_the_page_has_every_rule_in_every_table() -> None:
    """None was left out where another wins."""
    page = PAGE.read_text(encoding="utf-8")
    for name in TABLES:
        table = page.split(f"<!-- measured: {name} -->")[1].split(f"<!-- end of {name} -->")[0]
        assert [rule for rule in RULES if f"| `{rule}` |" not in table] == []
