"""The benchmarks still run: each of them once, with as little to do as there can be.

Nothing is said here of how long anything takes.
"""

from __future__ import annotations

import gc
import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import compiled, pages, peers, registry
from benchmarks.__main__ import main, scorecard
from benchmarks.duels import DUELS
from benchmarks.fleets import CONTEXTS, RULES, Rule
from benchmarks.floors import FLOORS
from benchmarks.grid import by_size
from benchmarks.model import SMALLEST, Result, Scale, Subject, Table, Target, show_seconds
from benchmarks.timing import Case, Timed, Timings, measure

from loadwise import NodeSet

pytestmark = pytest.mark.slow

SUBJECTS = registry.SUBJECTS | peers.SUBJECTS
ROOT = Path(__file__).resolve().parents[1]
MARKER = re.compile(r"<!-- bench:(begin|end) ([a-z-]+) -->")
# Written by the command itself, not by a subject, or by a program of its own.
OTHERS = {"compiled", "run-own", "run-peers", "targets-own", "targets-peers"}
TABLES = {"peers", "peers-ratios", "peers-short", "peers-versions", *registry.SUBJECTS, *OTHERS}


@pytest.fixture
def _frozen_again() -> Iterator[None]:
    """Leave what a subject imports and unfreezes out of the next ones' collections of garbage."""
    yield
    gc.collect()
    gc.freeze()


@pytest.mark.usefixtures("_frozen_again")
@pytest.mark.parametrize("name", SUBJECTS)
def test_every_benchmark_prints_its_rows(name: str) -> None:
    """Each subject measures something and has a table with as many cells as columns.

    It leaves nothing frozen: what is measured next in the same process is collected as before.
    """
    subject: Subject = SUBJECTS[name]
    before = gc.get_freeze_count()
    result = subject(SMALLEST)
    assert gc.get_freeze_count() <= before
    assert result.tables[0].rows
    for table in result.tables:
        assert all(len(row) == len(table.header) for row in table.rows)
        assert table.markdown().count("\n") >= 2 + len(table.rows)
    assert result.figures
    assert all(value > 0 for figure in result.figures for value in figure.values)


def test_every_strategy_has_a_floor() -> None:
    """There is a floor for each rule."""
    assert set(FLOORS) == {rule.name for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.name))
@pytest.mark.parametrize("size", [2, 10, 57])
def test_floors_choose_as_their_strategies_do(rule: Rule, size: int) -> None:
    """From the same draws both choose the same nodes: neither leaves a part of the work out."""
    nodes = rule.servers(size)
    members = NodeSet(nodes)
    floor, strategy = FLOORS[rule.name](nodes), rule.make()
    chosen: list[list[int | None]] = []
    for choose in (strategy.select, floor):
        random.seed(1)
        chosen.append([choose(members, context) for context in CONTEXTS])
    assert chosen[0] == chosen[1]


def test_the_command_writes_tables_and_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run prints what it writes, and the file with all turns is JSON."""
    assert main(["--quick", "--only", "startup", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    table = (tmp_path / "startup.md").read_text(encoding="utf-8")
    assert table in printed
    assert json.loads((tmp_path / "own.json").read_text(encoding="utf-8"))["benchmarks"]


def test_an_unknown_subject_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is no subject's is an error that lists those there are."""
    with pytest.raises(SystemExit):
        main(["--only", "selekt"])
    assert "select" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["", "selekt"])
def test_a_subject_without_a_name_is_refused(
    wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error quotes what is no subject, were it empty."""
    with pytest.raises(SystemExit):
        main(["--only", f"startup,{wrong}"])
    assert f"no such subject: {wrong!r}; there are" in capsys.readouterr().err
    if not wrong:
        with pytest.raises(SystemExit):
            main(["--only", wrong])


def test_a_subject_named_twice_is_measured_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Blanks after the commas are none of the names."""
    main(["--quick", "--only", "startup, startup", "--out", str(tmp_path)])
    assert capsys.readouterr().out.count("### Start-up") == 1


def test_an_interrupted_run_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No table of it is mixed with those of the run before."""

    def interrupt(_: Scale) -> Result:
        raise KeyboardInterrupt

    (tmp_path / "startup.md").write_text("before")
    monkeypatch.setitem(registry.SUBJECTS, "interrupted", interrupt)
    with pytest.raises(KeyboardInterrupt):
        main(["--quick", "--only", "startup,interrupted", "--out", str(tmp_path)])
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_a_part_is_not_written_over_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documentation's tables and scorecard are those of a run of everything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry.SUBJECTS, "short", lambda _: SUBJECTS["startup"](SMALLEST))
    main(["--only", "short"])
    assert [path.name for path in (tmp_path / ".benchmarks").iterdir()] == ["only"]


def test_pages_need_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a fresh checkout all tables stay as they are."""
    monkeypatch.chdir(tmp_path)
    text = "<!-- bench:begin select -->\nkept\n<!-- bench:end select -->\n"
    for page in pages.PAGES:
        page.parent.mkdir(exist_ok=True)
        page.write_text(text)
    pages.main()
    assert {page.read_text() for page in pages.PAGES} == {text}


def test_missed_targets_come_first() -> None:
    """The scorecard begins with what is not met."""
    targets = [Target("a", "1", "1", met=True), Target("b", "1", "2", met=False)]
    table = scorecard("targets", targets)
    assert [row[0] for row in table.rows] == ["b", "a"]
    assert table.note == "1 of 2 are met."


def test_pages_take_the_tables_that_were_measured(tmp_path: Path) -> None:
    """What stands between the markers is replaced; what was not measured stays."""
    (tmp_path / "speed.md").write_text("| new |\n")
    text = (
        "<!-- bench:begin speed -->\nold\n<!-- bench:end speed -->\n"
        "<!-- bench:begin other -->\nkept\n<!-- bench:end other -->\n"
    )
    once = pages.filled(text, tmp_path)
    assert "| new |" in once
    assert "old" not in once
    assert "kept" in once
    assert pages.filled(once, tmp_path) == once


@pytest.mark.parametrize("page", pages.PAGES, ids=str)
def test_markers_name_tables(page: Path) -> None:
    """Every marker of a page is closed, and names something that a run writes."""
    found = MARKER.findall((ROOT / page).read_text(encoding="utf-8"))
    names = [name for kind, name in found if kind == "begin"]
    assert names == [name for kind, name in found if kind == "end"]
    assert names
    assert set(names) <= TABLES


def test_every_table_is_on_a_page() -> None:
    """What a run writes can be read somewhere."""
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in pages.PAGES]
    assert {name for text in texts for _, name in MARKER.findall(text)} == TABLES


def test_what_is_compared_with_its_compiled_form_runs() -> None:
    """Each operation does its work, and the one with a target is among them."""
    batches = compiled.batches()
    assert compiled.TARGET_ROW in batches
    assert all(batch(3) > 0 for batch in batches.values())


def test_a_folder_without_the_compiled_form_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The comparison says what it needs, and how to get it."""
    monkeypatch.setattr("sys.argv", ["compiled", str(tmp_path)])
    assert compiled.main() == 2
    assert "make bench-compiled" in capsys.readouterr().err


def test_what_is_compiled_for_another_python_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here it would be interpreted, and compared with the same."""
    (tmp_path / "loadwise__mypyc.cpython-27-pdp11.so").touch()
    monkeypatch.setattr("sys.argv", ["compiled", str(tmp_path)])
    monkeypatch.setattr(compiled, "_TURNS", 1)
    assert compiled.main() == 2


def test_setups_of_peers_are_programs() -> None:
    """The setups and calls that the documentation refers to are valid Python."""
    for duel in DUELS:
        compile(f"{duel.setup}\n{duel.call}\n", duel.package, "exec")
        compile(f"{duel.own_setup}\n{duel.own_call}\n", "loadwise", "exec")


def test_a_turn_is_whole_rounds() -> None:
    """Where operations differ in cost by turns, each turn has as many of the dear ones."""
    done: list[int] = []

    def batch(loops: int) -> float:
        done.append(loops)
        return loops * 1e-4

    scale = Scale((10,), turns=2, turn_seconds=0.002, most_seconds=1.0, share=0.0)
    measure("subject", [Case("row", "10", batch, round=7)], scale)
    assert done[-4:] == [21, 21, 21, 21]


def test_one_stall_does_not_make_turns_short() -> None:
    """A turn of two operations could miss what only each 64th has to do."""
    done: list[int] = []

    def batch(loops: int) -> float:
        done.append(loops)
        return 0.002 if len(done) == 2 else loops * 1e-6

    scale = Scale((10,), turns=1, turn_seconds=0.002, most_seconds=1.0, share=0.0)
    measure("subject", [Case("row", "10", batch)], scale)
    assert done[-1] == 2000


def test_all_that_grow_too_much_are_named() -> None:
    """A row that misses its limit does not hide another; if none does, the nearest is shown."""
    scale = replace(SMALLEST, sizes=(10, 1000))
    growth = {"much": 3.0, "more": 2.0, "little": 1.2}
    timed = [
        Timed(Case(row, str(size), lambda _: 0.0), [1e-6 * (times if size > 10 else 1.0)])
        for row, times in growth.items()
        for size in scale.sizes
    ]
    timings = Timings("s", timed, Timed(Case("", "", lambda _: 0.0), [1e-8]))
    [target] = by_size(timings, scale, "T", limit=lambda _: 1.4).targets
    assert (target.found, target.met) == ("3 (much); 2 (more)", False)
    [target] = by_size(timings, scale, "T", limit=lambda _: 4.0).targets
    assert (target.found, target.met) == ("3 (much)", True)


def test_only_scans_may_grow() -> None:
    """Every strategy has a limit on its growth but those that look at every node."""
    assert all((rule.most is None) == rule.scans for rule in RULES)


def test_numbers_stand_to_the_right() -> None:
    """A column of numbers is aligned to the right, one of words to the left."""
    table = Table("t", "T", ("who", "time"), (("a", "84 ns"), ("b", "1.93 us")))
    assert table.markdown().splitlines()[1] == "|---|---:|"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (84e-9, "84 ns"),
        (1.934e-6, "1.93 us"),
        (0.0123, "12.3 ms"),
        (0.5, "500 ms"),
        (3.1, "3.10 s"),
        (999.7e-9, "1.00 us"),
        (9.997e-6, "10.0 us"),
        (99.97e-3, "100 ms"),
        (-2.5e-6, "-2.50 us"),
    ],
)
def test_times_have_three_digits(seconds: float, shown: str) -> None:
    """Times are shown in the unit that fits."""
    assert show_seconds(seconds) == shown
