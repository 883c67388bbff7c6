"""The replay of a published trace, in small, and in full where the trace is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import pytest
from benchmarks.prefixes import FLEET, STRATEGIES, UNEVEN, Asked, read, replay

from loadwise import NodeSet, Strategy
from loadwise.strategies import ViewStrategy

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
TRACE = DATA / "mooncake-conversation.jsonl"


def conversations(count: int, turns: int) -> list[Asked]:
    """Return conversations that begin alike, each turn some blocks longer, in lockstep."""
    requests: list[Asked] = []
    for turn in range(turns):
        for number in range(count):
            own = tuple(1000 * number + place for place in range(1, 4 + 4 * turn))
            at = turn * 20.0 + number * 20.0 / count
            requests.append(Asked(at, 512 * (len(own) + 1), (0, *own)))
    return requests


def test_conversations_wait_less_where_they_began() -> None:
    """Forty-one conversations of six turns wait less than half of what they do elsewhere."""
    requests = conversations(41, 6)
    means = {
        name: fmean(replay(requests, make(), load=2.0).waits) for name, make in STRATEGIES.items()
    }
    assert means["pending + 3 x new"] < 0.5 * means["round robin"]
    assert means["pending + 3 x new"] < 0.5 * means["least in flight"]


def test_unequal_workers_are_told_by_their_pace() -> None:
    """A worker three times as quick is found to be, and all are alike where they are."""
    requests = conversations(97, 4)
    strategy = STRATEGIES["pending + 3 x new"]()
    replay(requests, strategy, UNEVEN, 4.0)
    speeds = _facts(strategy)["speed"]
    assert speeds[:4] == pytest.approx([speeds[0]] * 4, rel=0.2)
    assert [speeds[0] / speed for speed in speeds[4:]] == pytest.approx([3.0] * 4, rel=0.2)
    strategy = STRATEGIES["pending + 3 x new"]()
    replay(requests, strategy, FLEET, 4.0)
    assert "speed" not in _facts(strategy)


def _facts(strategy: Strategy[int]) -> Mapping[str, Sequence[float]]:
    assert isinstance(strategy, ViewStrategy)
    return strategy.facts(NodeSet(range(8)))


@pytest.mark.skipif(not TRACE.exists(), reason=f"the Mooncake trace is not in {DATA}")
@pytest.mark.parametrize(("load", "most"), [(1.0, 1.30), (1.5, 1.75)])
def test_the_trace_waits_as_short_as_it_did_in_the_trial(load: float, most: float) -> None:
    """The mean time to first token of all 12,031 requests; see docs/prefix-routing.md."""
    assert fmean(replay(read(TRACE), STRATEGIES["pending + 3 x new"](), load=load).waits) <= most
