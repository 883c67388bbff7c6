"""The catalogue of strategies, beside everything else that lists them."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path
from random import Random as RandomSource

import pytest

import loadwise.strategies
from loadwise import load
from loadwise.cli.demo.choices import CHOICES
from loadwise.strategies.catalogue import CATALOGUE, STRATEGIES, Entry, known_name

CHECKOUT = Path(__file__).resolve().parents[2]
BY_NAME = {entry.name: entry for entry in CATALOGUE}
COST = re.compile(r"O\([^)]*\)")


def listed(*kinds: str) -> set[str]:
    """Return the classes of these kinds in the catalogue."""
    return {entry.name for entry in CATALOGUE if entry.kind in kinds}


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table of a page with this first heading."""
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    _, _, below = text.partition(f"| {heading} |")
    table = below.split("\n\n", maxsplit=1)[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


def named(text: str) -> set[str]:
    """Return the classes of the catalogue that a text names."""
    return {name for name in BY_NAME if re.search(rf"\b{name}\b", text)}


def test_each_class_has_one_entry() -> None:
    """No name is there twice, of a class or of a maker."""
    assert len(BY_NAME) == len(CATALOGUE)
    assert len(STRATEGIES) == sum(len(entry.makers) for entry in CATALOGUE)


def test_every_strategy_is_listed() -> None:
    """The catalogue has each class of `loadwise.strategies.__all__` but the protocols."""
    everything = {name: getattr(loadwise.strategies, name) for name in loadwise.strategies.__all__}
    concrete = {name for name, kind in everything.items() if not getattr(kind, "_is_protocol", 0)}
    assert len(everything) - len(concrete) == 3
    assert listed("strategy", "combinator") == concrete


def test_every_load_measure_is_listed() -> None:
    """The catalogue has each measure of `loadwise.load`, which has parts of them, too."""
    protocols = {"FirstByteMeasure", "Forgetful", "LoadMeasure"}
    parts = {"Cell", "EwmaCell", "MEASURED", "UNMEASURED_PENALTY", "oldest_waiting"}
    assert listed("load") == set(load.__all__) - protocols - parts


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_classes_can_be_imported_from_the_package(entry: Entry) -> None:
    """Each class of the catalogue can be had from its home."""
    assert getattr(import_module(entry.home), entry.name) is entry.of


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_makers_make_what_the_entry_is_about(entry: Entry) -> None:
    """Every strategy can be made by a name, and the others cannot."""
    assert bool(entry.makers) == (entry.kind == "strategy")
    for name, make in entry.makers.items():
        assert type(make(RandomSource(1), 1.0)) is entry.of
        assert known_name(name.upper().replace("-", "_")) == name
    assert known_name(entry.name) == next(iter(entry.makers), None)


def test_every_strategy_is_compiled() -> None:
    """The list of compiled modules has the module of each strategy, and no other public one."""
    tree = ast.parse((CHECKOUT / "hatch_build.py").read_text(encoding="utf-8"))
    [compiled] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMPILED"
    ]
    modules = {entry.of.__module__ for entry in CATALOGUE}
    public = {f"loadwise.{each.replace('/', '.')}" for each in compiled if "/_" not in each}
    folders = ("loadwise.strategies.", "loadwise.load.")
    assert {each for each in public if each.startswith(folders)} == modules
    for each in compiled:
        assert (CHECKOUT / "src" / "loadwise" / f"{each}.py").is_file()


def test_readme_lists_every_strategy_with_its_cost() -> None:
    """The table of the README has each, and the same orders of growth."""
    table = rows("README.md", "strategy")
    assert set().union(*(named(row[0]) for row in table)) == {entry.name for entry in CATALOGUE}
    for first, *_, cost in table:
        for name in named(first) - listed("load"):
            entry = BY_NAME[name]
            assert {*COST.findall(cost)} == {*COST.findall(entry.cost + entry.use)}, name


def test_pages_list_every_strategy() -> None:
    """The page on choosing has a case for each, and the reference each class."""
    cases = rows("docs/choosing-a-strategy.md", "your case")
    assert listed("strategy") <= set().union(*(named(take) for _, take in cases))
    reference = (CHECKOUT / "docs" / "api.md").read_text(encoding="utf-8")
    assert {name for name in BY_NAME if f".. autoclass:: {name}\n" not in reference} == set()


def test_scenario_page_lists_every_name() -> None:
    """A scenario may name each maker, and its page says so."""
    page = (CHECKOUT / "docs" / "scenarios.md").read_text(encoding="utf-8")
    assert {name for name in STRATEGIES if f"`{name}`" not in page} == set()


def test_demo_runs_strategies_of_the_catalogue() -> None:
    """Its words are its own, its names are not."""
    assert set(CHOICES) <= set(STRATEGIES)
