"""The engine against timings that were measured on GPUs: see docs/llm-simulation.md."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from statistics import median

import pytest
from msgspec.structs import replace
from tests.simulation.world.serving import Serving

from loadwise.simulation.scenario import LlmTable

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
TIMINGS = DATA / "splitwise-perf-model.csv"
pytestmark = pytest.mark.skipif(
    not TIMINGS.exists(), reason=f"Splitwise's measured timings are not in {DATA}"
)
FITTED = {
    "llama2-70b": LlmTable(
        prefill_base=0.024, prefill_rate=14_100.0, decode_base=0.0303, decode_each=0.0003
    ),
    "bloom-176b": LlmTable(
        prefill_base=0.019, prefill_rate=7_500.0, decode_base=0.0358, decode_each=0.0004
    ),
}


def measured(model: str) -> dict[tuple[int, int], tuple[float, float]]:
    """Return seconds of a prefill and of a token, by prompt tokens and batch, on 8 H100s."""
    found: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    with TIMINGS.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            where = (row["model"], row["hardware"], row["tensor_parallel"])
            if where == (model, "h100-80gb", "8"):
                key = int(row["prompt_size"]), int(row["batch_size"])
                found[key].append((float(row["prompt_time"]) / 1e3, float(row["token_time"]) / 1e3))
    return {
        key: (median(first for first, _ in times), median(each for _, each in times))
        for key, times in found.items()
    }


@pytest.mark.parametrize(
    ("model", "usual", "most", "of_tokens"),
    [("llama2-70b", 0.25, 0.44, 0.03), ("bloom-176b", 0.17, 0.29, 0.06)],
)
def test_errors_are_those_of_the_page(
    model: str, usual: float, most: float, of_tokens: float
) -> None:
    """Median and largest error of a prefill, and the largest of a token."""
    errors: list[float] = []
    for (tokens, batch), (prefill, token) in measured(model).items():
        # Measured as one prompt as long as all of them; and all answers begin then.
        serving = Serving(FITTED[model])
        ready = serving.ask([(0.0, tokens * batch, 101, ())]).first
        serving.loop.finish()
        errors.append(abs(ready[0] / prefill - 1))
        if tokens == 512:  # the only size of which several batches were measured
            serving = Serving(replace(FITTED[model], prefill_base=0.0, prefill_rate=1e12))
            caller = serving.ask([(0.0, 1, 101, ())] * batch)
            serving.loop.finish()
            found = (caller.last[0] - caller.first[0]) / 100
            assert found == pytest.approx(token, rel=of_tokens)
    assert median(errors) <= usual
    assert max(errors) <= most
