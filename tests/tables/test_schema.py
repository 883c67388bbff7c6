"""The layout of scenarios, and its reference in the documentation."""

from __future__ import annotations

import re
import tomllib
from types import ModuleType

import msgspec
import pytest
from tests.config.reference import FLEET_REFERENCE
from tests.simulation.reference import GUIDE, SCENARIO_REFERENCE
from tests.tables.reference import Reference

from loadwise._tables.schema import (
    child,
    described,
    fields_of,
    kinds_of,
    table_of,
)
from loadwise.config import records as fleet_records
from loadwise.simulation import scenario
from loadwise.simulation.scenario.file import load_scenario
from loadwise.simulation.scenario.layout import SCENARIO


@pytest.mark.parametrize("reference", [SCENARIO_REFERENCE, FLEET_REFERENCE])
def test_a_reference_is_up_to_date(reference: Reference) -> None:
    """If not: ``python -m tests.simulation.reference``, or ``python -m tests.config.reference``."""
    assert reference.as_it_is() == reference.as_it_should_be()


@pytest.mark.parametrize(
    ("reference", "records", "names"),
    [
        (SCENARIO_REFERENCE, scenario, scenario.__all__),
        (FLEET_REFERENCE, fleet_records, fleet_records.__all__),
    ],
)
def test_a_reference_is_complete(
    reference: Reference, records: ModuleType, names: list[str]
) -> None:
    """Every key of every record that can be in a file is described, and none without meaning."""
    text = reference.made()
    for name in names:
        record = getattr(records, name)
        if isinstance(record, type) and issubclass(record, msgspec.Struct):
            for key in record.__struct_fields__:
                assert f"\n| `{key}` | " in text, f"{name}.{key} is missing"
    assert not re.search(r"\|  \|", text)


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_in_the_guide_are_scenarios(number: int) -> None:
    """The first is whole, the second is a part of one."""
    example = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)[number]
    part = {"name": "part", "about": "", "servers": {"count": 2}} if number else {}
    assert load_scenario(part | tomllib.loads(example)).servers.count == (2 if number else 6)


def test_the_settings_in_the_guide_work() -> None:
    """Each of the table of settings changes a scenario that has what it is about."""
    page = GUIDE.read_text(encoding="utf-8")
    settings = re.findall(r"^\| `([^`]*=[^`]*)` \|", page, re.MULTILINE)
    assert len(settings) == 9
    groups = {"groups": [{"name": "a"}, {"name": "b"}]}
    faults = [{"kind": "crash", "at": 0, "servers": ["a"]}]
    source = {"name": "x", "about": "", "servers": groups, "faults": faults}
    source |= {"callers": {"timeout": 1.0}}
    for setting in settings:
        assert load_scenario(source, [setting]) != load_scenario(source)


def test_finding_the_way() -> None:
    """Keys, indices and kinds lead somewhere, or nowhere."""
    faults = child(SCENARIO.root, {}, "faults")
    assert faults is not None
    fault = child(faults, [], 0)
    assert fault is not None
    assert sorted(kinds_of(fault))[:3] == ["add", "crash", "drain"]
    assert table_of(fault, {"kind": "crush"}) is None
    assert table_of(fault, {}) is None
    assert table_of(fault, 3) is None
    crash = table_of(fault, {"kind": "crash"})
    assert crash is not None
    assert list(fields_of(crash)) == ["servers", "at", "lasts"]
    assert child(SCENARIO.root, {}, "lod") is None
    assert child(SCENARIO.root, {}, 0) is None
    assert kinds_of(SCENARIO.root) == {}
    assert described(SCENARIO.root) == "a table"
