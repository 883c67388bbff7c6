"""``loadwise compare``: its help, its output, and errors that say what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.compare.support import invoke

QUICK = ("--requests", "300", "--seeds", "2", "--jobs", "1")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths are relative to an empty folder."""
    monkeypatch.chdir(tmp_path)


def test_tables_and_verdict() -> None:
    """All figures of all strategies, then what they support saying."""
    code, text = invoke("slow-node", *QUICK)
    assert code == 0
    for each in ("slow-node:", "10 servers, 300 requests", "round-robin", "p2c-peak-ewma"):
        assert each in text
    for each in ("mean p50 p90 p99 p99.9", "requests lost", "retries per", "max/mean", "Jain's"):
        assert each.split()[0] in text
    assert "Verdict - Requests lost: none." in text


def test_files_are_written() -> None:
    """JSON, CSV and the report, each where it was asked for and whole."""
    targets = ("--json", "out.json", "--csv", "out.csv", "--html", "out.html")
    code, text = invoke("slow-node", "-s", "p2c", "-s", "random", *QUICK, *targets)
    assert code == 0
    assert "--csv out.csv is written" in text
    data = json.loads(Path("out.json").read_text())
    assert [(each["strategy"], each["seed"]) for each in data["results"]] == [
        ("p2c", 1),
        ("p2c", 2),
        ("random", 1),
        ("random", 2),
    ]
    assert len(Path("out.csv").read_text().splitlines()) == 5
    assert Path("out.html").read_text().rstrip().endswith("</html>")
    assert sorted(path.name for path in Path().iterdir()) == ["out.csv", "out.html", "out.json"]


@pytest.mark.parametrize("name", ["a[red]b.json", "q[/x].json"])
def test_file_is_named_as_it_is(name: str) -> None:
    """A name that would be a style or a mistake in markup is printed as it is."""
    Path("q[").mkdir()
    code, text = invoke("slow-node", "-s", "p2c", *QUICK, "--json", name)
    assert code == 0
    assert text.endswith(f"--json {name} is written")


def test_interrupt_between_two_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that has been written by then is named."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("loadwise.simulation.report.write_report", interrupted)
    targets = ("--json", "out.json", "--html", "out.html")
    code, text = invoke("slow-node", "-s", "p2c", *QUICK, *targets)
    assert code == 130
    assert text.endswith("stopped; --json out.json is written")
    assert [path.name for path in Path().iterdir()] == ["out.json"]


def test_fleet_of_heavy_weights() -> None:
    """Weights of any size are relative, so no hash ring is too large for them."""
    options = ("--set", "clients.keys=5", "--set", "servers.weight=1e5", "-s", "consistent-hash")
    code, text = invoke("homogeneous", *options, *QUICK)
    assert code == 0
    assert "consistent-hash" in text


def test_settings_and_names_in_any_spelling() -> None:
    """Values are overridden, and a strategy given twice runs once."""
    options = ("-s", "PowerOfTwoChoices", "-s", "p2c", "--set", "servers.count=7")
    code, text = invoke("slow-node", *options, *QUICK, "--json", "out.json")
    assert code == 0
    assert "7 servers" in text
    data = json.loads(Path("out.json").read_text())
    assert {each["strategy"] for each in data["results"]} == {"p2c"}
    assert data["definition"]["servers"]["count"] == 7


def trace(*rows: str) -> str:
    """Write a trace with these rows, and return its name."""
    Path("calls.csv").write_text("\n".join(["when,read,written", *rows, ""]))
    return "calls.csv"


def test_trace_replaces_arrivals_and_two_costs_are_tokens() -> None:
    """A scenario of another kind plays it, all of it unless fewer are asked for."""
    file = trace(*(f"{n / 10},{100 + n},{n}" for n in range(50)))
    options = ("--trace", file, "--time", "when", "--cost", "read, written", "--json", "out.json")
    quick = ("-s", "p2c", "--seeds", "1")
    assert invoke("slow-node", *options, *quick)[0] == 0
    data = json.loads(Path("out.json").read_text())
    assert data["results"][0]["arrived"] == 50
    assert data["definition"]["service"]["kind"] == "tokens"
    assert data["definition"]["arrivals"]["cost"] == ["read", "written"]

    assert invoke("slow-node", *options, *quick, "--requests", "20", "--speed", "2")[0] == 0
    data = json.loads(Path("out.json").read_text())
    assert data["results"][0]["arrived"] == 20
    assert data["definition"]["arrivals"]["speed"] == 2.0

    for setting in ("requests=30", " requests = 30"):
        assert invoke("slow-node", *options, *quick, "--set", setting)[0] == 0
        assert json.loads(Path("out.json").read_text())["results"][0]["arrived"] == 30


def prompts(*lines: str) -> str:
    """Write a trace of prompts with these lines, and return its name."""
    Path("prompts.jsonl").write_text("\n".join(lines))
    return "prompts.jsonl"


def prompt(at: int, tokens: int = 600) -> str:
    """Return a line of such a trace."""
    blocks = list(range(-(-tokens // 512)))
    fields = {"timestamp": at, "input_length": tokens, "output_length": 5, "hash_ids": blocks}
    return json.dumps(fields)


def test_recorded_prompts_need_no_columns() -> None:
    """All of them, unless fewer are asked for; times to first token are in table and JSON."""
    file = prompts(*(prompt(3000 * (n // 4)) for n in range(40)))
    options = ("--trace", file, "-s", "prefix-affinity", "-s", "p2c", "--seeds", "2", "-j", "1")
    code, text = invoke("llm-prefix", *options, "--speed", "2", "--json", "out.json")
    assert code == 0
    assert "40 requests per run" in text
    for words in ("Time to first token of the completed requests", "per output", "cached"):
        assert words in text
    data = json.loads(Path("out.json").read_text())
    assert data["definition"]["arrivals"] == {"kind": "prompts", "file": file, "speed": 2.0}
    for run in data["results"]:
        assert run["arrived"] == 40
        assert run["ttft"].keys() == run["latency"].keys()
        assert 0.0 < run["ttft"]["mean"] < run["latency"]["mean"]
        assert run["tpot"] == pytest.approx(0.03, rel=0.1)
        assert 0.5 < run["cache_hit"] < 1.0
    for summary in data["summaries"]:
        assert {"mean", "low", "high"} == summary["ttft"]["p99"].keys() == summary["tpot"].keys()
    assert any(line.startswith("Mean time to first token: ") for line in data["verdict"])

    code, text = invoke("llm-prefix", *options, "-n", "7")
    assert code == 0
    assert "7 requests per run" in text


def test_recording_has_no_more_requests_than_it_has() -> None:
    """The count of requests that is printed and written is the count that is played."""
    file = trace(*(f"{n / 10},{100 + n},{n}" for n in range(50)))
    recorded = ("--set", "arrivals.kind=trace", "--set", f"arrivals.file={file}")
    for options in (
        ("--trace", file, "--time", "when", "--requests", "3000"),
        (*recorded, "--set", "arrivals.time=when"),
    ):
        code, text = invoke("slow-node", *options, "-s", "p2c", "--seeds", "1", "--json", "o.json")
        assert code == 0
        assert "50 requests per run" in text
        assert json.loads(Path("o.json").read_text())["definition"]["requests"] == 50


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["slow-nod"], ["SCENARIO", "'slow-nod'", "'slow-node'?"]),
        (["./none.toml"], ["SCENARIO", "'./none.toml' cannot be read", "No such file"]),
        (["slow-node", "-s", "p3c"], ["--strategy", "'p3c'", "'p2c'?"]),
        (["slow-node", "-s", "p2c/health"], ["--strategy", "'p2c/health'", "/no-health"]),
        (["slow-node", "-s", "consistent-hash"], ["--strategy", "set clients.keys"]),
        (["slow-node", "--set", "laod=1"], ["--set", "laod=1", "'load'?"]),
        (["slow-node", "--set", "load=80"], ["--set", "load=80", 'such as 0.8 or "80%"']),
        (["slow-node", "--seeds", "0"], ["--seeds", "0 is not between 1 and 10,000"]),
        (["slow-node", "--seeds", "few"], ["--seeds", "'few' is not a whole number"]),
        (["slow-node", "--jobs", "0"], ["--jobs", "0 is not between 1"]),
        (["slow-node", "-n", "0"], ["--requests", "0 is not between 1"]),
        (["slow-node", "--speed", "-1"], ["--speed", "'-1' is not a factor above 0"]),
        (["slow-node", "--sed", "1"], ["--sed", "--seeds"]),
        (["slow-node", "--time", "t"], ["--time", "'t'", "name its file with --trace"]),
        (["slow-node", "--trace", "calls.csv"], ["--trace", "takes --time"]),
        (
            ["slow-node", "--trace", "calls.csv", "--time", "wen"],
            ["--trace", "no column 'wen'", "'when'?"],
        ),
        (
            ["slow-node", "--trace", "calls.csv", "--time", "wen", "-n", "1"],
            ["--trace", "no column 'wen'", "'when'?"],
        ),
        (
            [
                *["slow-node", "--set", "arrivals.kind=trace", "--set", "arrivals.file=no.csv"],
                *["--set", "arrivals.time=when"],
            ],
            ["SCENARIO", "'no.csv' cannot be read"],
        ),
        (
            ["slow-node", "--trace", "calls.csv", "--time", "when", "--cost", "read"],
            ["--trace", "calls.csv, line 3", "read is 'x'"],
        ),
        (
            ["llm-fleet", "--trace", "calls.csv", "--time", "when", "--cost", "written"],
            ["--trace", "takes two"],
        ),
        (
            ["slow-node", "--trace", "prompts.jsonl"],
            ["--trace", "arrivals.kind is 'prompts'", "set servers.kind to llm"],
        ),
        (
            ["llm-prefix", "--trace", "prompts.jsonl"],
            ["--trace", "prompts.jsonl, line 2: input_length is -600; it must be a whole number"],
        ),
        (
            ["llm-prefix", "--trace", "none.jsonl"],
            ["--trace", "the trace 'none.jsonl' cannot be read: No such file"],
        ),
        (
            ["llm-prefix", "--trace", "calls.csv"],
            ["--trace", "calls.csv, line 1: this is not JSON: Expecting value, at column 1"],
        ),
        (
            ["llm-prefix", "--trace", "prompts.jsonl", "--time", "when"],
            ["--time", "'when' names columns of a CSV file", "leave it out"],
        ),
        (
            ["llm-prefix", "--trace", "prompts.jsonl", "--cost", "read"],
            ["--cost", "'read' names columns of a CSV file", "leave it out"],
        ),
        (["slow-node", "--json", "no/out.json"], ["--json", "in no folder that exists"]),
        (["slow-node", "--csv", "."], ["--csv", "'.' is a folder"]),
        (["slow-node", "--json", "x", "--html", "./x"], ["--html", "is where --json writes"]),
    ],
)
def test_bad_arguments(arguments: list[str], said: list[str]) -> None:
    """An error names the value, the option and the remedy, before anything is simulated."""
    trace("1,2,3", "2,x,4")
    prompts(prompt(0), prompt(0).replace("600", "-600"))
    code, text = invoke(*arguments)
    assert code == 2
    assert [each for each in said if each not in text] == []
    assert "at a time" not in text


def test_read_only_file_is_refused() -> None:
    """Its folder would allow to put another in its place, and that is not what was meant."""
    Path("kept.json").write_text("kept")
    Path("kept.json").chmod(0o444)
    code, text = invoke("slow-node", "--json", "kept.json", *QUICK)
    if code == 0:
        pytest.skip("this user may write to any file")
    assert code == 2
    assert "'kept.json' is write-protected" in text
    assert Path("kept.json").read_text() == "kept"


@pytest.mark.parametrize("module", ["msgspec", "numpy"])
def test_missing_extra_is_named(module: str) -> None:
    """Without what simulations need the command says what to install, and nothing else."""
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        f"sys.argv = ['loadwise', 'compare', 'flapping']\n"
        f"from loadwise.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    hint = f"simulations need {module}: pip install 'loadwise[cli,simulation]'\n"
    assert (done.stderr, done.stdout, done.returncode) == (hint, "", 1)


def test_missing_plotly_is_missed_in_time() -> None:
    """A report that cannot be made is refused before the simulation; without one it runs."""
    code = (
        "import sys; sys.modules['plotly'] = None\n"
        "sys.argv[:1] = ['loadwise', 'compare', 'flapping', '-n', '50', '--seeds', '1']\n"
        "from loadwise.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        [*command, "--html", "out.html"], capture_output=True, text=True, timeout=60, check=False
    )
    hint = "simulations need plotly: pip install 'loadwise[cli,simulation]'\n"
    assert (done.stderr, done.stdout, done.returncode) == (hint, "", 1)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
