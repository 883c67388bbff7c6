"""Percentages in scenarios: numbers where a share may stand, text everywhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.scenario.file import load_scenario

PLAIN: dict[str, Any] = {"name": "a", "about": "80%", "servers": {"count": 2}}
PLACES: dict[str, Callable[[float | str], dict[str, Any]]] = {
    "load": lambda share: {"load": share},
    "warmup": lambda share: {"warmup": share},
    "servers.cached": lambda share: {"servers": {"count": 2, "cached": share}},
    "callers.budget": lambda share: {"callers": {"budget": share}},
    "health.panic_threshold": lambda share: {"health": {"panic_threshold": share}},
    "faults[0].probability": lambda share: {
        "faults": [{"kind": "fail", "at": "80%", "servers": ["server-1"], "probability": share}]
    },
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("text", "number"), [("80%", 0.8), ("30.1%", 0.301)])
def test_every_share_may_be_a_percentage(place: str, text: str, number: float) -> None:
    """A percentage is the number that it is, to the bit."""
    of_text, of_number = (load_scenario(PLAIN | PLACES[place](each)) for each in (text, number))
    assert of_text == of_number


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"load": "80 percent"}, 'load is "80 percent"; it must be a share'),
        ({"load": "-5%"}, 'load is "-5%"; it must be a share'),
        ({"load": "1e2%"}, 'load is "1e2%"; it must be a share'),
        ({"load": "2000%"}, "load is 20.0; it must be a share"),
        ({"requests": "80%"}, 'requests is "80%"; it must be a whole number'),
        ({"tau": "80%"}, 'tau is "80%"; it must be a number of seconds'),
        ({"servers": {"count": 2, "speed": "80%"}}, 'servers.speed is "80%"; it must be a factor'),
        ({"strategies": {"0": "80%"}}, "strategies is "),
    ],
)
def test_nothing_else_may(change: dict[str, Any], said: str) -> None:
    """Neither another text for a share nor a percentage of something else is taken."""
    with pytest.raises(ScenarioError) as caught:
        load_scenario(PLAIN | change)
    assert said in str(caught.value)


def test_text_and_the_timeline_keep_theirs() -> None:
    """A percentage that is a text, or a point of the timeline, stays as it was written."""
    scenario = load_scenario(PLAIN | PLACES["faults[0].probability"]("20%"), ["load=70%"])
    assert (scenario.about, scenario.load, scenario.faults[0].at) == ("80%", 0.7, "80%")


def test_a_percentage_without_its_sign_is_refused() -> None:
    """``load = 80`` is eighty times the capacity, and the error says how 80 % is written."""
    with pytest.raises(ScenarioError, match=r"load is 80; .* such as 0\.8 or \"80%\""):
        load_scenario(PLAIN | {"load": 80})
