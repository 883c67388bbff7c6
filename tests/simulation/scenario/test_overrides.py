"""Settings that override a scenario's values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.scenario import (
    Bursty,
    Exponential,
    Hang,
    Lognormal,
    Pareto,
    Poisson,
    Scenario,
    Tokens,
)
from loadwise.simulation.scenario.file import load_scenario

SOURCE: dict[str, Any] = {
    "name": "source",
    "about": "",
    "servers": {"groups": [{"name": "a"}, {"name": "b", "count": 2, "speed": 2.0}]},
    "service": {"kind": "exponential", "mean": 0.02},
    "callers": {"timeout": 1.0},
    "faults": [{"kind": "crash", "at": "30%", "servers": ["a"]}],
}


def loaded(*settings: str) -> Scenario:
    """Return the source with settings."""
    return load_scenario(SOURCE, settings)


def refusal(*settings: str) -> str:
    """Return what is said of settings that are refused."""
    with pytest.raises(ScenarioError) as caught:
        loaded(*settings)
    return str(caught.value)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("load=0.9", "load == 0.9"),
        (" load = 0.9 ", "load == 0.9"),
        ("load=.9", "load == 0.9"),
        ("load=1", "load == 1.0"),
        ("requests=200_000", "requests == 200_000"),
        ("health.enabled=false", "health.enabled is False"),
        ("servers.groups.1.speed=0.5", "servers.groups[1].speed == 0.5"),
        ("servers.groups.0.speed=0.5", "servers.groups[0].speed == 0.5"),
        ("servers.groups.1.speed=none", "servers.groups[1].speed is None"),
        ("faults.0.at=40%", "faults[0].at == '40%'"),
        ("faults.0.at=0.01", "faults[0].at == 0.01"),
        ('faults.0.servers=["b-1", "a"]', "faults[0].servers == ('b-1', 'a')"),
        ("faults.0.servers.0=b", "faults[0].servers == ('b',)"),
        ("callers.timeout=none", "callers.timeout is None"),
        ("callers.timeout=2", "callers.timeout == 2.0"),
        ("strategies.1=p2c/no-health", "strategies[1] == 'p2c/no-health'"),
        ("about=a = b", "about == 'a = b'"),
        ("about=", "about == ''"),
        ("about=none", "about == 'none'"),
        ("health.panic_threshold=none", "health.panic_threshold == 'none'"),
        ("health.panic_threshold=0", "health.panic_threshold == 0.0"),
        ("health.panic_window=none", "health.panic_window is None"),
        ('about="0.9"', "about == '0.9'"),
        ("about='it''s", "about == \"'it''s\""),
        ("about=1\nload = 3", "about == '1\\nload = 3'"),
        ("servers.zone=none", "servers.zone is None"),
        ('servers.zone="none"', "servers.zone == 'none'"),
        ("arrivals.rate=500", "arrivals == Poisson(rate=500.0)"),
        ("arrivals.kind=bursty", "arrivals == Bursty()"),
        ('arrivals.kind="bursty"', "arrivals == Bursty()"),
        ('arrivals={kind="bursty", burst=7}', "arrivals == Bursty(burst=7.0)"),
        ("service.kind=exponential", "service == Exponential(mean=0.02)"),
        ("service.kind=lognormal", "service == Lognormal(mean=0.02)"),
        ("service.kind=tokens", "service == Tokens()"),
        ("faults.0.kind=hang", "faults[0] == Hang(at='30%', servers=('a',))"),
        ("clients.zones=['x', 'y']", "clients.zones == ('x', 'y')"),
        ("quotas=[{name='rpm', limit=3}]", "quotas[0].limit == 3.0"),
    ],
)
def test_a_setting(setting: str, value: str) -> None:
    """Dotted keys, indices, and values as in TOML, or as plain text."""
    kinds = {"Bursty": Bursty, "Hang": Hang, "Poisson": Poisson, "Exponential": Exponential}
    kinds |= {"Lognormal": Lognormal, "Tokens": Tokens}
    scenario = loaded(setting)
    fields = {name: getattr(scenario, name) for name in scenario.__struct_fields__}
    assert eval(value, kinds | fields), f"not so: {value}"  # noqa: S307 - our own text


def test_settings_apply_in_order() -> None:
    """A later one wins, and a kind that was set has the keys of its own."""
    scenario = loaded("load=0.5", "service.kind=pareto", "service.alpha=2", "load=0.6")
    assert scenario.load == 0.6
    assert scenario.service == Pareto(mean=0.02, alpha=2.0)


def test_a_new_kind_keeps_what_both_have() -> None:
    """The mean stays when the distribution changes; what only the old kind had is gone."""
    there = loaded("service.kind=lognormal", "service.sigma=2", "service.kind=exponential")
    assert there.service == Exponential(mean=0.02)
    rate = loaded("arrivals.rate=70", "arrivals.kind=bursty", "arrivals.burst=3")
    assert rate.arrivals == Bursty(rate=70.0, burst=3.0)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("load", "--set load: a setting is a key, = and a value, such as load=0.9"),
        ("=3", "--set =3: a scenario has no ''"),
        ("lod=3", "--set lod=3: a scenario has no 'lod'; did you mean 'load'?"),
        (
            "servers.cuont=3",
            "--set servers.cuont=3: servers has no 'cuont'; did you mean 'count'? (it has kind,",
        ),
        ("server.count=3", "a scenario has no 'server'; did you mean 'servers'?"),
        ("arrivals.burst=3", "arrivals of kind 'poisson' has no 'burst' (it has rate, kind)"),
        ("health.kind=x", "health has no 'kind'"),
        ("load.x=3", "--set load.x=3: load has no keys of its own"),
        ("callers.hedge.x=3", "callers.hedge has no keys of its own"),
        ("servers.groups.2.speed=1", "there is no item '2': servers.groups has the items 0, 1"),
        ("servers.groups.-1.speed=1", "there is no item '-1'"),
        ("servers.groups.b.speed=1", "there is no item 'b'"),
        ("faults.0.servers.1=b", "there is no item '1': faults.0.servers has the items 0"),
        ("quotas.0.limit=3", "there is no item '0': quotas is empty"),
        ("load=high", '--set load=high: load is "high"; it must be a share of the fleet\'s cap'),
        ("load=none", '--set load=none: load is "none"; it must be'),
        (
            "health.panic_threshold=never",
            'health.panic_threshold is "never"; it must be a share from 0 to 1, or "none"',
        ),
        ("health.panic_threshold=1.5", "it must be a share from 0 to 1, or"),
        ("health.panic_window=0", "it must be a number of seconds above 0 and"),
        ("health.probe_backoff=0.5", "it must be a factor from 1 to 1,000,000"),
        ("faults.0.at=-3", "--set faults.0.at=-3: faults[0].at is -3; it must be a number of sec"),
        ("arrivals.kind=busty", '--set arrivals.kind=busty: arrivals.kind is "busty"; did you me'),
        ("arrivals.kind=3", "arrivals.kind is 3 (there is bursty,"),
        ("arrivals.kind=[]", "arrivals.kind is [] (there is bursty,"),
        ("arrivals.kind=trace", "--set arrivals.kind=trace: arrivals of kind 'trace' needs 'file'"),
        ("arrivals={}", "--set arrivals={}: arrivals needs a kind"),
        ("servers={}", "the scenario: servers has neither a count nor groups: set servers.count"),
        ("servers.count=3", "each has a count of its own: set servers.groups.0.count"),
        ("servers.groups=[]", "set servers.count"),
        ("x=" + "[" * 5000, "a scenario has no 'x'"),
        ("load=" + "[" * 5000, 'load is "[[['),
        ("load=" + "9" * 5000, 'load is "999'),
        ("about=\udce4", "'about=\\udce4' is no text: surrogates not allowed"),
    ],
)
def test_bad_settings(setting: str, said: str) -> None:
    """The message has the setting, the nearest key or the range."""
    assert said in refusal(setting)


def test_after_an_unknown_kind() -> None:
    """The kind that is missing is what is asked for."""
    assert "set arrivals.kind first" in refusal("arrivals.kind=busty", "arrivals.burst=3")


def test_the_setting_that_is_blamed_is_the_one() -> None:
    """Not one whose key only begins like that of the wrong value."""
    told = refusal("servers.cache=5", "servers.cached=2", "load=0.5")
    assert told.startswith("--set servers.cached=2: servers.cached is 2; it must be a share from")


PARTS = [
    "servers",
    "groups",
    "0",
    "1",
    "name",
    "kind",
    "faults",
    "at",
    "arrivals",
    "service",
    "mean",
    "callers",
    "timeout",
    "health",
    "enabled",
    "strategies",
    "count",
    "quotas",
    "lod",
]
KEYS = st.lists(st.sampled_from(["", *PARTS]), min_size=1, max_size=4).map(".".join)
ODD = [
    "0.5",
    "-1",
    "nan",
    "inf",
    "true",
    "none",
    "[]",
    "{}",
    "[[]]",
    "bursty",
    "tokens",
    "150%",
    "{kind='crash'}",
    "1979-05-27",
    "07:32:00",
    "0x10",
    '"',
    "'''",
    "1e400",
]
TEXTS = st.text(max_size=12) | st.sampled_from(["\ud800", *ODD])


@given(st.lists(st.tuples(KEYS, TEXTS), max_size=4))
def test_any_settings_give_a_scenario_or_an_error(settings: list[tuple[str, str]]) -> None:
    """Whatever is set, nothing but `ScenarioError` comes out of it."""
    try:
        scenario = loaded(*(f"{key}={text}" for key, text in settings))
    except ScenarioError:
        return
    assert isinstance(scenario, Scenario)


@given(st.floats(min_value=1e-9, max_value=10.0))
def test_numbers_come_through_unchanged(load: float) -> None:
    """What ``repr`` writes is set to the bit."""
    assert loaded(f"load={load!r}").load == load


def test_the_source_is_left_alone() -> None:
    """Settings are made to a copy."""
    before = repr(SOURCE)
    loaded("servers.groups.0.count=7", "faults.0.kind=hang")
    assert repr(SOURCE) == before
