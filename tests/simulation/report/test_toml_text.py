"""A scenario written as TOML reads back as the same scenario."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from loadwise.simulation.report.toml_text import toml_of
from loadwise.simulation.scenario import (
    Add,
    Arrivals,
    Bursty,
    Crash,
    Drain,
    Group,
    Network,
    Pair,
    Quota,
    Scenario,
    Servers,
    Trace,
)
from loadwise.simulation.scenario.file import load_scenario

GALLERY = sorted(
    path.name.removesuffix(".toml")
    for path in (files("loadwise.simulation.scenario") / "gallery").iterdir()
    if path.name.endswith(".toml")
)
FULL = Scenario(
    name="full",
    about="Two lines,\nboth of them.",
    servers=Servers(
        zone="a", groups=(Group(name="big", count=2, speed=2.0), Group(name="small", zone="b"))
    ),
    arrivals=Bursty(rate=1e-5),
    network=Network(delay=0.001, pairs=(Pair(zones=("a", "b"), delay=0.02),)),
    quotas=(Quota(name="rpm", limit=60.0), Quota(name="tpm", limit=1e12, counts="tokens")),
    faults=(
        Crash(servers=("big-1", "small"), at="30%", lasts=5),
        Add(at=7.5, group=Group(name="new", count=3)),
        Drain(servers=("big-2",), at=9.0),
    ),
)


def read(text: str) -> Scenario:
    """Read a scenario as its file would be read, and no more."""
    return msgspec.convert(tomllib.loads(text), Scenario)


@pytest.mark.parametrize("name", GALLERY)
def test_the_gallery(name: str) -> None:
    """Every scenario that ships comes back equal, and so does what is written of it."""
    scenario = load_scenario(name)
    text = toml_of(scenario)
    assert read(text) == scenario
    assert toml_of(read(text)) == text


def test_all_kinds_of_nesting() -> None:
    """Tables in lists, a table in a table of a list, and lists of lists come back."""
    text = toml_of(FULL)
    assert read(text) == FULL
    assert "[[faults]]" in text
    assert "[faults.group]" in text
    assert "queue_limit" not in text, "None is what is left unsaid"
    assert 'at = "30%"' in text
    assert 'about = """\nTwo lines,\nboth of them."""' in text


@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    arrivals=st.builds(
        Trace,
        file=st.text(st.characters(exclude_categories=["Cs"])),
        time=st.just("t"),
        cost=st.tuples(st.text(st.characters(exclude_categories=["Cs"]))),
        speed=st.floats(min_value=1e-300, max_value=1e6),
    ),
)
def test_any_text_and_any_number(text: str, arrivals: Arrivals) -> None:
    """Quotes, backslashes, control characters and tiny numbers come back as they were."""
    scenario = replace(FULL, name=text, about=text[::-1], arrivals=arrivals)
    assert read(toml_of(scenario)) == scenario
