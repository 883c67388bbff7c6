"""``loadwise scenarios``: the list, the files, and what is said without the extra."""

from __future__ import annotations

import io
import json
import re
import tomllib
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

pytest.importorskip("msgspec")

from tests.cli.without import run_without

from loadwise.cli.app import app
from loadwise.cli.scenarios.listing import show
from loadwise.simulation.scenario.file import load_scenario
from loadwise.simulation.scenario.gallery import scenario_names, scenario_text


def invoke(*arguments: str) -> tuple[int, str]:
    """Return the exit code and all output."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["scenarios", *arguments])
    return result.exit_code, re.sub(r"\x1b\[[0-9;]*m", "", result.output)


@pytest.mark.parametrize("width", [80, 120])
def test_table_fits_the_terminal(width: int) -> None:
    """No line is wider than the terminal, and all scenarios are there, in their order."""
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        show(console)
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= width
    firsts = [line.split()[0] for line in lines if re.match(r"  \w", line)]
    assert firsts == ["scenario", *scenario_names()]
    assert "…" not in capture.get()


def test_narrow_terminal_hides_nothing() -> None:
    """It breaks the lines itself; the names and the lessons are all there."""
    console = Console(file=io.StringIO(), width=30)
    with console.capture() as capture:
        show(console)
    text = capture.get()
    assert "…" not in text
    assert "second choice" in " ".join(text.split())
    firsts = [line.split()[0] for line in text.splitlines() if re.match(r"  \w", line)]
    assert firsts == ["scenario", *scenario_names()]


def test_table_is_printed() -> None:
    """The command prints it, with servers, loads and lessons."""
    code, text = invoke()
    assert code == 0
    assert re.search(r"supermarket +100 +0\.9 +How much the second choice is worth", text)
    assert re.search(r"llm-fleet +8 +0\.6 ", text)


def test_json() -> None:
    """``--json`` prints the same as a list of objects."""
    code, text = invoke("--json")
    assert code == 0
    listed = json.loads(text)
    assert [entry["name"] for entry in listed] == list(scenario_names())
    stampede = next(entry for entry in listed if entry["name"] == "stampede")
    assert stampede == {
        "name": "stampede",
        "servers": 20,
        "load": 0.6,
        "strategies": ["round-robin", "round-robin-random-start", "random", "p2c"],
        "requests": 50_000,
        "about": " ".join(load_scenario("stampede").about.split()),
    }


@pytest.mark.parametrize("name", scenario_names())
def test_a_scenario_can_be_copied(name: str, tmp_path: Path) -> None:
    """With a name, the file is printed as it stands, and is a scenario where it is copied to."""
    code, text = invoke(name)
    assert (code, text) == (0, scenario_text(name))
    copy = tmp_path / "mine.toml"
    copy.write_text(text, encoding="utf-8")
    assert load_scenario(copy) == load_scenario(name)
    assert tomllib.loads(text)["name"] == name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["blackhole"], ["'blackhole'; did you mean 'black-hole'?", "llm-fleet"]),
        (["../overload"], ["there is no scenario '../overload'"]),
        (["overload", "--json"], ["--json", "leave the name out"]),
        (["overload", "stampede"], ["stampede"]),
    ],
)
def test_bad_arguments(arguments: list[str], said: list[str]) -> None:
    """An error names the value and what would be right; the exit code is 2."""
    code, text = invoke(*arguments)
    assert code == 2
    unframed = " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())
    assert [each for each in said if each not in unframed] == []


def test_a_missing_extra_is_named() -> None:
    """Without msgspec the command says what to install, and nothing else; the rest still works."""
    done = run_without("msgspec", "scenarios")
    hint = "simulations need msgspec: pip install 'loadwise[cli,simulation]'\n"
    assert (done.stderr, done.stdout, done.returncode) == (hint, "", 1)
    assert run_without("msgspec", "strategies").returncode == 0


def test_other_missing_modules_are_not_blamed_on_the_extra() -> None:
    """A module that is missing for another reason is reported as itself."""
    done = run_without("loadwise.simulation.scenario.gallery", "scenarios")
    assert done.returncode == 1
    assert "loadwise.simulation.scenario.gallery" in done.stderr
    assert "pip install" not in done.stderr
