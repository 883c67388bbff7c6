"""The replay of a published trace, in small, and in full where the trace is."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest
from benchmarks.prefixes import STRATEGIES, Asked, read, replay

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
    means = {name: fmean(replay(requests, make(), load=2.0)) for name, make in STRATEGIES.items()}
    assert means["pending + 3 x new"] < 0.5 * means["round robin"]
    assert means["pending + 3 x new"] < 0.5 * means["least in flight"]


@pytest.mark.skipif(not TRACE.exists(), reason=f"the Mooncake trace is not in {DATA}")
@pytest.mark.parametrize(("load", "most"), [(1.0, 1.30), (1.5, 1.75)])
def test_the_trace_waits_as_short_as_it_did_in_the_trial(load: float, most: float) -> None:
    """The mean time to first token of all 12,031 requests; see docs/prefix-routing.md."""
    assert fmean(replay(read(TRACE), STRATEGIES["pending + 3 x new"](), load=load)) <= most
