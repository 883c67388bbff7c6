"""The verdict: errors first, ties said to be ties, and never more than the intervals support."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.simulation.results import summary

from loadwise.simulation.analysis.statistics import t_quantile
from loadwise.simulation.analysis.summary import Summary
from loadwise.simulation.analysis.verdict import verdict
from loadwise.simulation.scenario import Fail, Fault, Flap, Scenario, Servers, Slow, Trace

FAILING = Fail(at=0.0, servers=("server-1",))


def scenario(*faults: Fault, **settings: Any) -> Scenario:
    """Return a scenario with these faults."""
    return Scenario(name="test", about="", servers=Servers(count=4), faults=faults, **settings)


def said(summaries: Sequence[Summary], *faults: Fault) -> str:
    """Return the verdict as one text."""
    return "\n".join(verdict(scenario(*faults), summaries))


def line(text: str, begin: str) -> str:
    """Return the one point that begins so."""
    (found,) = [each for each in text.splitlines() if each.startswith(begin)]
    return found


QUICK = summary("quick", [1.0, 1.1, 1.05])
MIDDLE = summary("middle", [2.0, 2.1, 2.2])
SLOW = summary("slow", [4.0, 4.1, 4.2])


def test_best_next_and_last() -> None:
    """The lowest latency, and by how much, against the runner-up and the worst."""
    text = said([SLOW, QUICK, MIDDLE])
    assert line(text, "Mean latency") == (
        "Mean latency: quick has the lowest, 1.05 s. Those behind range from 2.10 s (middle, 2.0 "
        "times as much) to 4.10 s (slow, 3.9 times as much)."
    )
    assert line(text, "p99 latency").startswith("p99 latency: quick has the lowest, 4.83 s.")
    assert line(text, "Requests lost") == "Requests lost: none."
    assert line(text, "Compared") == (
        "Compared seed by seed; each point holds with 95 % confidence, for all 3 pairs of "
        "strategies together (Bonferroni)."
    )


def test_small_differences_are_in_percent() -> None:
    """To say 1.0 times as much would say nothing."""
    near = summary("near", [1.02, 1.122, 1.071])
    assert "near follows with 1.07 s, 2.0 % more." in said([QUICK, near])


def test_many_times_need_no_decimals() -> None:
    """A factor has three digits at most, and thousands are set off."""
    far = summary("far", [15_000.0, 15_001.0, 15_002.0])
    assert "far follows with 15,001 s, 14,287 times as much." in said([QUICK, far])
    assert "slow follows with 22.0 s, 21 times as much." in said(
        [QUICK, summary("slow", [22.0, 22.1, 21.9])]
    )


def test_ties_are_ties() -> None:
    """What seeds do not tell apart is said not to be, with what to do."""
    other = summary("other", [1.1, 1.0, 1.1])
    assert line(said([QUICK, other, SLOW]), "Mean latency") == (
        "Mean latency: other (1.07 s) cannot be told apart from quick (1.05 s, the lowest) with 3 "
        "seeds: raise --seeds. slow follows with 4.10 s, 3.9 times as much."
    )


def test_more_seeds_do_not_help_what_is_the_same() -> None:
    """Two strategies that do the same are a tie for ever."""
    text = said([QUICK, summary("twin", [1.0, 1.1, 1.05])])
    assert "cannot be told apart" in text
    assert "raise --seeds" not in text


def test_errors_come_first() -> None:
    """A strategy that loses requests is not the best because the others are answered quickly."""
    lossy = summary("lossy", [0.1, 0.11, 0.1], failed=[200, 210, 190], dropped=10)
    text = said([lossy, QUICK, SLOW])
    assert line(text, "Requests lost") == (
        "Requests lost: lossy (21 %) loses more than the best, quick (0 %); it is not ranked by "
        "latency."
    )
    assert "quick has the lowest" in line(text, "Mean latency")
    assert "lossy" not in line(text, "Mean latency")


def test_requests_without_an_end_are_lost() -> None:
    """Who has a tenth of the requests hang for good is not the best by the latency of the rest."""
    hangs = summary("hangs", [0.5, 0.6, 0.55], in_flight=[100, 102, 101])
    text = said([hangs, QUICK, MIDDLE])
    assert line(text, "Requests lost").startswith("Requests lost: hangs (10 %) loses more than")
    assert line(text, "Mean latency").startswith("Mean latency: quick has the lowest, 1.05 s.")


def test_few_more_errors_do_not_outweigh_latency() -> None:
    """8.05 % lost instead of 8 % is beyond chance here, and beside the point."""
    one = summary("one", [2.0, 2.1, 2.05], failed=[8000, 8000, 8001], arrived=100_000)
    two = summary("two", [1.0, 1.1, 1.05], failed=[8050, 8050, 8051], arrived=100_000)
    text = said([one, two])
    assert line(text, "Requests lost") == (
        "Requests lost: one has the lowest, 8.0 %. two follows with 8.1 %."
    )
    assert line(text, "Mean latency").startswith("Mean latency: two has the lowest")


def test_errors_that_may_be_chance_rule_nobody_out() -> None:
    """One lost request in one run is no reason."""
    unlucky = summary("unlucky", [0.5, 0.51, 0.52], failed=[0, 1, 0])
    text = said([QUICK, unlucky])
    assert "unlucky (0.03 %) cannot be told apart from quick (0 %" in line(text, "Requests lost")
    assert "unlucky has the lowest" in line(text, "Mean latency")


def test_only_one_does_not_lose() -> None:
    """Where errors decide, latency has nothing to add."""
    lossy = summary("lossy", [0.1, 0.11, 0.1], failed=[200, 210, 190])
    text = said([lossy, QUICK])
    assert "loses more than the best, quick" in text
    assert "latency:" not in text


def test_nobody_completes_anything() -> None:
    """Without a latency there is none to speak of."""
    text = said([summary(name, [math.nan] * 3, completed=0, failed=1000) for name in "ab"])
    assert "b (100 %) cannot be told apart from a" in line(text, "Requests lost")
    assert "unknown" in line(text, "Mean latency")


def test_one_strategy_without_a_latency() -> None:
    """It is named, and the others are ranked."""
    text = said([summary("empty", [1.0, math.nan, 1.0]), QUICK, SLOW])
    assert line(text, "Mean latency").endswith(
        "Unknown for empty: in some run no request was completed."
    )


def test_one_seed_supports_nothing() -> None:
    """And that is all that is said."""
    text = said([summary("a", [1.0]), summary("b", [9.0])], FAILING)
    assert text == (
        "One seed supports no verdict: what differs may be chance. Run several: --seeds 5."
    )


def test_one_strategy() -> None:
    """There is nothing to compare it with."""
    assert said([QUICK]) == "Only quick was run: there is nothing to compare it with."


def test_health_tracking_helps() -> None:
    """Where a contender runs with and without, the difference is told."""
    tracked = summary("p2c", [1.0] * 3, unhealthy_picks=[4, 4, 5])
    blind = summary("p2c/no-health", [1.0] * 3, unhealthy_picks=[610, 620, 605])
    text = said([tracked, blind], FAILING)
    where = "servers that were failing"
    assert (
        f"With health tracking p2c sends 0.43 % of its attempts to {where} instead of 61 %." in text
    )
    assert f"Attempts sent to {where}: p2c has the lowest, 0.43 %." in text


def test_health_tracking_may_make_no_difference() -> None:
    """Then nothing is claimed for it."""
    tracked = summary("p2c", [1.0] * 3, unhealthy_picks=[10, 12, 9])
    blind = summary("p2c/no-health", [1.0] * 3, unhealthy_picks=[9, 11, 13])
    text = said([tracked, blind], Flap(at=0.0, down=1.0, up=1.0, servers=("server-1",)))
    assert (
        "Whether health tracking keeps p2c from servers that were down cannot be told with 3 "
        "seeds (1.0 % with it, 1.1 % without)." in text
    )


def test_panic_is_told() -> None:
    """Of those that were in it, and of nobody else; it is neither praised nor blamed."""
    calm = summary("p2c/no-health", [1.0] * 3)
    text = said([summary("p2c", [1.0] * 3, panic=[0.3, 0.2, 0.1]), calm])
    begin = "In panic, where clients send to ailing servers, too, as too few are available: "
    assert line(text, "In panic") == begin + "p2c for 20 % of the time."
    both = [summary(name, [1.0] * 3, panic=0.5) for name in ("p2c", "random")]
    assert line(said(both), "In panic") == begin + "p2c for 50 % and random for 50 % of the time."
    assert "panic" not in said([QUICK, calm])


def test_no_trouble_no_word_of_it() -> None:
    """Slow servers are not unhealthy, and one that nobody asked is not worth a word."""
    assert "Attempts" not in said([QUICK, SLOW], Slow(at=0.0, servers=("server-1",)))
    assert "Attempts" not in said([QUICK, SLOW], FAILING)


def test_keys_and_caches() -> None:
    """The fewest keys moved, and the most found at hand."""
    sticky = summary(
        "sticky", [1.0] * 3, keys_moved=[0.01, 0.011, 0.01], cache_hits=[0.9, 0.9, 0.91]
    )
    other = summary("other", [1.0] * 3, keys_moved=[0.9, 0.91, 0.9], cache_hits=[0.3, 0.31, 0.3])
    text = said([other, sticky])
    assert "Requests whose key moved: sticky has the lowest, 1.0 %. other follows with 90 %" in text
    assert "Cache hits: sticky has the highest, 90 %. other follows with 30 %." in text


def test_recording_is_the_same_for_every_seed() -> None:
    """Then seeds tell nothing of other days, and the verdict says so."""
    recorded = scenario(arrivals=Trace(file="calls.csv", time="when"))
    assert "that recording only" in verdict(recorded, [QUICK, SLOW])[-1]


def interval(first: Sequence[float], second: Sequence[float], pairs: int) -> tuple[float, float]:
    """Return Bonferroni's interval of the logarithms of the ratios, worked out independently."""
    logs = [math.log(b) - math.log(a) for a, b in zip(first, second, strict=True)]
    half = t_quantile(1 - 0.025 / pairs, len(logs) - 1) * stdev(logs) / math.sqrt(len(logs))
    return fmean(logs) - half, fmean(logs) + half


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(2, 5), st.integers(2, 6))
def test_never_more_than_the_intervals_support(
    data: st.DataObject, contenders: int, seeds: int
) -> None:
    """Whoever is called lowest, or said to follow, is so by every interval that it takes."""
    value = st.floats(1e-3, 1e3)
    drawn = {
        f"s{n}": data.draw(st.lists(value, min_size=seeds, max_size=seeds))
        for n in range(contenders)
    }
    text = said([summary(name, values) for name, values in drawn.items()])
    pairs = contenders * (contenders - 1) // 2
    point = line(text, "Mean latency")
    lowest = min(drawn, key=lambda name: fmean(drawn[name]))
    assert re.search(rf"\b{lowest}\b", point)
    before, apart, _ = point.partition(" cannot be told apart")
    tied = set(re.findall(r"s\d", before)) if apart else set()
    for name, values in drawn.items():
        if name == lowest or values == drawn[lowest]:
            continue
        low, _ = interval(drawn[lowest], values, pairs)
        if abs(low) > 1e-6:  # not on the very border, where rounding decides
            assert (low > 0) == (name not in tied), (point, low)
    if "has the lowest" in point:
        assert not tied
