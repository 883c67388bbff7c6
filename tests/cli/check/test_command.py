"""``loadwise check``: all that is wrong, or what is built, and the schema."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("msgspec")

from tests.cli.without import run_without

from loadwise.cli.app import app

GOOD = """
name = "search"
strategy = "p2c/outliers"
nodes = ["a:1", {id = "b:1", weight = 3, zone = "eu-1", priority = 1}]

[clients]
count = 4
zone = "eu-1"

[callers]
attempts = 3

[slow_start]
[limits]
max_in_flight = 8
max_waiting = 1

[[quotas]]
name = "rpm"
limit = 90_000
nodes = ["a:1"]
"""
ATTACK = r"\u001b]0;owned\u0007\u202e"


def invoke(*arguments: str) -> tuple[int, str, str]:
    """Return the exit code, the output and what is said of errors."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["check", *arguments])
    clean = [re.sub(r"\x1b\[[0-9;]*m", "", text) for text in (result.stdout, result.stderr)]
    return result.exit_code, clean[0], clean[1]


def test_a_file_that_is_right(tmp_path: Path) -> None:
    """Each part is summed up."""
    path = tmp_path / "fleet.toml"
    path.write_text(GOOD)
    code, text, errors = invoke(str(path))
    assert (code, errors) == (0, "")
    panic, vain = "panic below 50 % available", "'p2c' has no use for it"
    assert [line.rstrip() for line in text.splitlines()] == [
        f"{path} is right. It builds:",
        "balancer    search",
        "nodes       2: a:1, b:1",
        "weights     1 to 3",
        "zones       eu-1 (1), none (1)",
        "priorities  0 (1), 1 (1)",
        "strategy    p2c/outliers (PowerOfTwoChoices)",
        f"health      down after 3 failures in a row, then probed every 10 s; {panic}",
        "outliers    looked for every 10 s, out for 30 s at first",
        "slow start  60 s until a node has its whole weight",
        "limits      8 requests at a node at once",
        "queue       1 request may wait",
        "stands in   eu-1",
        "quota       rpm: 90,000 requests in 60 s, for a:1, shared by 4 clients",
        "retries     3 attempts; retries up to 20 % of requests, and 10 per s",
        f"no effect   clients.zone is 'eu-1', but {vain}: 'zones' has, or leave it out",
        f"no effect   the nodes differ in priority, but {vain}: 'tiers' has, or leave it out",
    ]


def test_a_file_that_is_not(tmp_path: Path) -> None:
    """All that is wrong is told, on standard error, and the exit code says so."""
    path = tmp_path / "fleet.toml"
    path.write_text('nodes = ["a", 3]\ntua = 1\n')
    code, text, errors = invoke(str(path), "--set", "tau=0")
    assert (code, text) == (1, "")
    lines = errors.splitlines()
    assert lines[0] == f"{path} has 3 problems:"
    assert lines[1].startswith("  the fleet has no key 'tua'; did you mean 'tau'?")
    assert lines[2].startswith("  nodes[1] is 3; it must be")
    assert lines[3].startswith("  --set tau=0: tau is 0; it must be")
    assert invoke(str(tmp_path / "none"))[::2] == (
        1,
        f"{tmp_path / 'none'}: it cannot be read: No such file or directory\n",
    )


def test_all_settings_that_are_wrong_are_told(tmp_path: Path) -> None:
    """Together with what is wrong with the file."""
    path = tmp_path / "fleet.toml"
    path.write_text('nodes = ["a", 3]\n')
    wrong = ("tua=1", "health.jiter=1", "source.path=x", "tau=0")
    code, text, errors = invoke(str(path), *(word for each in wrong for word in ("--set", each)))
    assert (code, text) == (1, "")
    lines = errors.splitlines()
    assert lines[0] == f"{path} has 5 problems:"
    assert lines[1].startswith("  --set tua=1: a fleet has no 'tua'; did you mean 'tau'?")
    assert lines[2].startswith("  --set health.jiter=1: health has no 'jiter'; did you mean")
    assert lines[3].startswith("  --set source.path=x: source has no known kind: set source.kind")
    assert lines[4].startswith("  nodes[1] is 3; it must be")
    assert lines[5].startswith("  --set tau=0: tau is 0; it must be")


def test_settings_can_mend_it(tmp_path: Path) -> None:
    """As where a program gives them."""
    path = tmp_path / "fleet.toml"
    path.write_text('nodes = [{id = "a", zone = "x"}]\nstrategy = "zones"\n')
    assert invoke(str(path))[0] == 1
    assert invoke(str(path), "--set", "clients.zone=x")[0] == 0


def test_the_schema() -> None:
    """It is JSON, and the same for all files."""
    code, text, _ = invoke("--schema")
    assert (code, json.loads(text)["title"]) == (0, "A fleet of loadwise")
    code, _, errors = invoke("--schema", "fleet.toml")
    assert code == 2
    assert "leave file and settings out" in errors
    code, _, errors = invoke()
    assert code == 2
    assert "name a file, such as fleet.toml" in errors


@pytest.mark.parametrize("line", ["", 'tau = "x"', f'"{ATTACK}" = 1', f'strategy = "{ATTACK}"'])
def test_hostile_text_is_made_safe(tmp_path: Path, line: str) -> None:
    """Names and keys of a file come from elsewhere; a terminal gets none of their controls."""
    path = tmp_path / "fleet.toml"
    path.write_text(f'name = "{ATTACK}"\nnodes = [{{id = "a", zone = "z"}}]\n{line}\n')
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["check", str(path)])
    shown = re.sub(r"\x1b\[[0-9;]*m", "", result.output)
    assert all(each == "\n" or each.isprintable() for each in shown)
    assert result.exit_code == bool(line)


def test_without_the_extra() -> None:
    """It says what to install, and nothing else."""
    done = run_without("msgspec", "explain", "fleet.toml")
    hint = "fleet files need msgspec: pip install 'loadwise[cli,config]'\n"
    assert (done.stderr, done.stdout, done.returncode) == (hint, "", 1)
