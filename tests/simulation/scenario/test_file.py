"""Scenarios from files: what is read, and what is said of those that are not as they must be."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadwise.errors import LoadwiseError
from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.scenario import Crash, Poisson, Scenario, Servers, Trace
from loadwise.simulation.scenario.file import load_scenario

PLAIN: dict[str, Any] = {"name": "plain", "about": "", "servers": {"count": 2}}
HEAD = 'name = "mine"\nabout = "."\n'


def refusal(source: str | Path | dict[str, Any], *settings: str) -> str:
    """Return what is said of a scenario that is refused."""
    with pytest.raises(ScenarioError) as caught:
        load_scenario(source, settings)
    return str(caught.value)


def test_a_file(tmp_path: Path) -> None:
    """By its path, as a text or not; what it does not say is as by default."""
    file = tmp_path / "mine.toml"
    file.write_text(HEAD + "load = 0.5\n[servers]\ncount = 2\n", encoding="utf-8")
    wanted = Scenario(name="mine", about=".", load=0.5, servers=Servers(count=2))
    assert load_scenario(file) == load_scenario(str(file)) == wanted


def test_a_scenario_of_the_gallery() -> None:
    """By its name."""
    assert load_scenario("supermarket").servers.count == 100


def test_a_file_with_the_name_of_a_scenario(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `Path` is always a file, as is a text with a folder; a bare name is one of the gallery."""
    monkeypatch.chdir(tmp_path)
    Path("overload").write_text(HEAD + "[servers]\ncount = 2\n", encoding="utf-8")
    assert load_scenario(Path("overload")).name == load_scenario("./overload").name == "mine"
    assert load_scenario("overload").name == "overload"


def test_a_mapping() -> None:
    """What such a file holds, of any kind of mapping and sequence; it is not changed."""
    fault = MappingProxyType({"kind": "crash", "at": "50%", "servers": ("server-1",)})
    source = MappingProxyType({**PLAIN, "faults": (fault,)})
    scenario = load_scenario(source, ["faults.0.at=7", "load=0.5", "requests=1000"])
    assert scenario.faults == (Crash(at=7.0, servers=("server-1",)),)
    assert fault["at"] == "50%"
    assert "load" not in source


def test_traces_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path in a file is as seen from there; one in a setting, as seen from here."""
    file = tmp_path / "mine.toml"
    trace = '[arrivals]\nkind = "trace"\nfile = "data/calls.csv"\ntime = "t"\n'
    file.write_text(HEAD + "[servers]\ncount = 2\n" + trace, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for source in (file, "./mine.toml", "mine.toml"):
        arrivals = load_scenario(source).arrivals
        assert isinstance(arrivals, Trace)
        assert arrivals.file == str(tmp_path / "data" / "calls.csv")
    for path, meant in (("other.csv", "other.csv"), (str(tmp_path / "x.csv"), tmp_path / "x.csv")):
        arrivals = load_scenario(file, [f"arrivals.file={path}"]).arrivals
        assert isinstance(arrivals, Trace)
        assert arrivals.file == str(meant)


def test_what_is_raised() -> None:
    """The error is one of loadwise's, and a `ValueError`."""
    assert issubclass(ScenarioError, LoadwiseError)
    assert issubclass(ScenarioError, ValueError)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("supermarkt", "there is no scenario 'supermarkt'; did you mean 'supermarket'?"),
        ("zzz", "there is no scenario 'zzz' ('loadwise scenarios' lists them; a file is named by"),
        ("", "there is no scenario ''"),
        ("nowhere.toml", "the scenario 'nowhere.toml' cannot be read: No such file or directory"),
        ("./nowhere", "the scenario './nowhere' cannot be read"),
        (Path("nowhere"), "the scenario 'nowhere' cannot be read"),
        ("a\0b.toml", "cannot be read"),
        ("./", "the scenario './' cannot be read"),
    ],
)
def test_no_such_scenario(source: str | Path, said: str) -> None:
    """The nearest name, or why the file cannot be read."""
    assert said in refusal(source)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"load = 0.9\nload = 0.8\n", "line 2, column 11: this is not TOML: Cannot overwrite"),
        (b"load = 0.9\n\nname = mine\n", "line 3, column 8: this is not TOML: Invalid value"),
        (b'name = "mine\n', "line 1, column 13: this is not TOML"),
        (b"name = ", "this is not TOML"),
        (b'name = "a"\n# \xe4\n', "line 2: this is not UTF-8"),
        (b"x = " + b"[" * 5000, "not"),
        (b"load = " + b"9" * 5000, "digits"),
        (b"", "needs 'name', a text in quotes and 'about', a text in quotes and 'servers', a tab"),
    ],
)
def test_files_that_are_not_toml(tmp_path: Path, content: bytes, said: str) -> None:
    """The message names the file and the line."""
    file = tmp_path / "mine.toml"
    file.write_bytes(content)
    message = refusal(file)
    assert message.startswith(str(file))
    assert said in message


def test_a_byte_order_mark_is_not_minded(tmp_path: Path) -> None:
    """Some editors write one."""
    file = tmp_path / "mine.toml"
    file.write_text(HEAD + "[servers]\ncount = 2\n", encoding="utf-8-sig")
    assert load_scenario(file).name == "mine"


CRASH = {"kind": "crash", "at": 1.0, "servers": ["server-1"]}

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"load": 0}, "load is 0; it must be a share of the fleet's capacity, such as 0.8 or"),
    ({"load": 80}, 'load is 80; it must be a share of the fleet\'s capacity, such as 0.8 or "80%"'),
    ({"load": 10.5}, "load is 10.5; it must be"),
    ({"load": "0.9"}, 'load is "0.9"; it must be'),
    ({"load": True}, "load is true; it must be"),
    ({"load": float("nan")}, "load is NaN; it must be"),
    ({"load": 10**400}, "load is 1000"),
    ({"requests": 0}, "requests is 0; it must be a whole number of requests from 1 to 20,000,000"),
    ({"requests": 1e4}, "requests is 10000.0; it must be a whole number"),
    ({"name": 3}, "name is 3; it must be a text in quotes"),
    ({"schema": 2}, "schema is 2; it must be the version of the layout (1)"),
    (
        {"clients": {"per_host": 0}},
        "clients.per_host is 0; it must be a whole number from 1 to 4,096",
    ),
    ({"tau": -1}, "tau is -1; it must be a number of seconds above 0 and at most 1,000,000,000"),
    ({"strategies": "p2c"}, 'strategies is "p2c"; it must be a list, each item a text in quotes'),
    ({"strategies": [1]}, "strategies[0] is 1; it must be a text in quotes"),
    ({"lod": 0.9}, "the scenario has no key 'lod'; did you mean 'load'?"),
    ({"servers": {"cuont": 3}}, "servers has no key 'cuont'; did you mean 'count'?"),
    ({"servers": {"zzz": 3}}, "servers has no key 'zzz' (there is kind, count, parallelism,"),
    ({"servers": 3}, "servers is 3; it must be a table"),
    ({"servers": {"count": 0}}, "servers.count is 0; it must be a whole number from 1 to 100,000"),
    ({"servers": {"groups": [{}]}}, "servers.groups[0] needs 'name', a name of letters, digits"),
    ({"servers": {"groups": [{"name": "ä"}]}}, 'servers.groups[0].name is "ä"; it must be a name'),
    ({"servers": {"groups": [{"name": "a\n"}]}}, "servers.groups[0].name is"),
    (
        {"servers": {"groups": [{"name": "a"}, {"name": "b", "speed": 0}]}},
        "servers.groups[1].speed is 0; it must be a factor above 0 and at most 1,000,000",
    ),
    ({"arrivals": {}}, "arrivals needs a kind: bursty, constant, poisson, prompts, ramp, trace"),
    ({"arrivals": {"rate": 5}}, "arrivals needs a kind"),
    ({"arrivals": "poisson"}, 'arrivals is "poisson"; it must be a table whose kind is "bursty"'),
    (
        {"arrivals": {"kind": "poison"}},
        "arrivals.kind is \"poison\"; did you mean 'poisson'? (there is bursty, constant,",
    ),
    ({"arrivals": {"kind": 3}}, "arrivals.kind is 3 (there is bursty"),
    (
        {"arrivals": {"kind": "poisson", "burst": 5}},
        "arrivals of kind 'poisson' has no key 'burst' (there is rate)",
    ),
    ({"arrivals": {"kind": "trace", "file": "x"}}, "arrivals of kind 'trace' needs 'time', a text"),
    (
        {"service": {"kind": "lognormal", "sigma": 6}},
        "service.sigma is 6; it must be a standard deviation above 0 and at most 5",
    ),
    ({"faults": {}}, "faults is {}; it must be a list, each item a table whose kind is"),
    ({"faults": [CRASH, 3]}, "faults[1] is 3; it must be a table whose kind is"),
    (
        {"faults": [CRASH | {"at": -3}]},
        "faults[0].at is -3; it must be a number of seconds from 0 to 1,000,000,000, or a share of",
    ),
    ({"faults": [CRASH | {"at": "soon"}]}, 'faults[0].at is "soon"; it must be a number of sec'),
    ({"faults": [CRASH | {"at": "-3%"}]}, 'faults[0].at is "-3%"'),
    ({"faults": [CRASH | {"at": "٣%"}]}, 'faults[0].at is "٣%"'),
    ({"faults": [CRASH | {"lasts": []}]}, "faults[0].lasts is []; it must be"),
    ({"faults": [{"kind": "crash", "at": 1}]}, "faults[0] of kind 'crash' needs 'servers', a list"),
    ({"faults": [CRASH | {"kind": "crush"}]}, "faults[0].kind is \"crush\"; did you mean 'crash'?"),
    (
        {"faults": [CRASH | {"serves": []}]},
        "faults[0] of kind 'crash' has no key 'serves'; did you",
    ),
    (
        {"network": {"pairs": [{"zones": ["a"], "delay": 1}]}},
        'network.pairs[0].zones is ["a"]; it must be a list of two, each a text in quotes',
    ),
    (
        {"quotas": [{"name": "q", "limit": 1, "counts": "words"}]},
        'quotas[0].counts is "words"; it must be "requests" or "tokens"',
    ),
    ({"a` - at `$.load": 1}, "Object contains unknown field `a` - at `$.load`"),
    ({"servers": {"a.b[0]": 1}}, "servers has no key 'a.b[0]'"),
    ({"about": None}, "about is none; it must be a text in quotes"),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=[said[:50] for _, said in WRONG])
def test_values_that_are_wrong(change: dict[str, Any], said: str) -> None:
    """The message has the place, the value, the unit, the range, and the nearest name."""
    message = refusal(PLAIN | change)
    assert message.startswith(f"the scenario: {said}")
    assert "msgspec" not in message
    assert len(message) < 500


def test_messages_name_the_file(tmp_path: Path) -> None:
    """So that one knows which of several files is wrong, also for what does not go together."""
    file = tmp_path / "mine.toml"
    file.write_text(HEAD + "[servers]\ncount = -2\n", encoding="utf-8")
    assert refusal(file).startswith(f"{file}: servers.count is -2; it must be a whole number")
    file.write_text(HEAD + "[servers]\n", encoding="utf-8")
    assert refusal(file) == f"{file}: servers has neither a count nor groups: set servers.count"
    assert refusal("overload", "warmup=2").startswith("--set warmup=2: warmup is 2; it must be")
    assert refusal("overload", "warmup=0.2", "strategies=[]").startswith("overload: strategies is")


@pytest.mark.parametrize("odd", [{"about": "\ud800"}, {"strategies": ["\ud800"]}, {"\ud800": 1}])
def test_texts_that_cannot_be_written(odd: dict[str, Any]) -> None:
    """Half a character is refused before it breaks something else."""
    assert refusal(PLAIN | odd) == "'\\ud800' is no text: surrogates not allowed"


TEXTS = st.text(st.characters(), max_size=8)  # halves of characters included
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner),
    max_leaves=6,
)
KEYS = st.sampled_from([*Scenario.__struct_fields__, "kind", "lod"])


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_values_give_a_scenario_or_an_error(change: dict[str, Any]) -> None:
    """Whatever a file holds, nothing but `ScenarioError` comes out of it."""
    try:
        scenario = load_scenario(PLAIN | change)
    except ScenarioError:
        return
    assert isinstance(scenario, Scenario)


@given(st.floats(min_value=1e-6, max_value=10.0), st.integers(1, 20_000_000))
def test_scenarios_survive_being_written(load: float, requests: int) -> None:
    """What a scenario is made into, it is made from again, to the last digit."""
    servers = Servers(count=2)
    scenario = Scenario(name="a", about="b", servers=servers, load=load, requests=requests)
    assert load_scenario(msgspec.to_builtins(scenario)) == scenario
    assert scenario.arrivals == Poisson()
