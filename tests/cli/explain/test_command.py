"""``loadwise explain``: where a request would go, and why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("msgspec")

from loadwise.cli.app import app
from loadwise.config import load_balancer

FLEET = """
name = "search"
strategy = "consistent-hash"
nodes = ["a:1", "b:1", "c:1"]
[[quotas]]
name = "tpm"
limit = 100
counts = "tokens"
nodes = ["a:1"]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A fleet file."""
    made = tmp_path / "fleet.toml"
    made.write_text(FLEET)
    return made


def invoke(path: Path, *arguments: str) -> tuple[int, str]:
    """Return the exit code and all output, in one line where it is framed."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["explain", str(path), *arguments])
    return result.exit_code, re.sub(r"\x1b\[[0-9;]*m", "", result.output)


def test_it_is_what_the_balancer_says(path: Path) -> None:
    """With keys, exclusions and settings."""
    balancer = load_balancer(path)
    first = balancer.explain(hash_key="u")
    code, text = invoke(path, "--hash-key", "u")
    assert (code, text) == (0, f"{first}\n")
    code, text = invoke(path, "--hash-key", "u", "--exclude", str(first.choice))
    assert (code, text) == (0, f"{balancer.explain(hash_key='u', exclude=[first.choice])}\n")
    code, text = invoke(path, "--set", "strategy=round-robin")
    assert (code, text.splitlines()[0]) == (0, "search: RoundRobin would choose 'a:1'")


def test_costs_rule_nodes_out(path: Path) -> None:
    """Of a quota that only some have, the others are free."""
    code, text = invoke(path, "--hash-key", "u", "--cost", "tpm=101", "--exclude", "b:1")
    assert (code, text.splitlines()[1:]) == (
        0,
        ["  'c:1': eligible", "  'a:1': quota", "  'b:1': excluded"],
    )
    assert "'a:1': eligible" in invoke(path, "--hash-key", "u", "--cost", "tpm=100")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--exclude", "a:2"),
            "there is no node 'a:2'; did you mean 'a:1'? (the nodes are a:1, b:1",
        ),
        ((), "the strategy goes by keys; give one, such as --hash-key user-42."),
        (("--cost", "tpm"), "'tpm' is not a quota's name, = and an amount, such as tpm=5000."),
        (("--hash-key", "u", "--cost", "tmp=3"), "did you mean 'tpm'?"),
    ],
)
def test_wrong_options(path: Path, arguments: tuple[str, ...], said: str) -> None:
    """Each is named, with the remedy."""
    code, text = invoke(path, *arguments)
    assert code == 2
    assert said in text


def test_a_file_that_is_not_right(tmp_path: Path) -> None:
    """It is said as ``loadwise check`` says it."""
    code, text = invoke(tmp_path / "none.toml")
    assert code == 1
    assert text.endswith("it cannot be read: No such file or directory\n")
