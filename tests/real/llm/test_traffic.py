"""Ten minutes of traffic near the limits, against a provider that enforces them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from loadwise import NoNodeAvailable
from loadwise.integrations.llm import KeyPool
from loadwise.testing import ManualClock

PROVIDER = Path(__file__).with_name("limited_provider.py")
KEYS = 5
RPM, TPM = 20, 20 * 300
SHARE = 0.95
MINUTES = 10
AT_ONCE = 4


@pytest.fixture
def start() -> Iterator[Callable[..., str]]:
    """Start a provider; stop it in the end."""
    started: list[subprocess.Popen[str]] = []

    def start_one(**rules: Any) -> str:
        process = subprocess.Popen(
            [sys.executable, str(PROVIDER), json.dumps(rules)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        return f"http://127.0.0.1:{int(process.stdout.readline())}/v1"

    yield start_one
    for process in started:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize(("headers", "minutes"), [(True, MINUTES), (False, 2)])
def test_at_95_percent_of_the_limits_no_prompt_meets_a_429(
    start: Callable[..., str], *, headers: bool, minutes: int
) -> None:
    """Prompts of any size that leave their answers' length open; what has no room yet comes again.

    Where the provider tells what is left, all of it can be used; else units are free 2 s late.
    """
    url = start(rpm=RPM, tpm=TPM, headers=headers)
    clock = ManualClock()
    pool = KeyPool(
        [{"key": f"sk-{i}", "base_url": url, "rpm": RPM, "tpm": TPM} for i in range(KEYS)],
        clock=clock,
        timeout=0.0,
    )
    dice = random.Random(7)
    pause = 60 / (KEYS * RPM * SHARE)
    total = round(60 * minutes / pause)
    # 300 tokens on average: the prompt, and what it is answered.
    todo = [(dice.randrange(4, 1_000), dice.randrange(50, 300)) for _ in range(total)]
    late: list[tuple[int, int]] = []
    seen: Counter[str] = Counter()
    with (
        httpx2.Client(transport=pool.transport(), base_url="http://llm") as client,
        ThreadPoolExecutor(AT_ONCE) as threads,
    ):

        def ask(prompt: tuple[int, int]) -> None:
            length, answer = prompt
            messages = [{"role": "user", "content": "x" * length}]
            asked = {"model": "m", "messages": messages, "max_completion_tokens": 300}
            extra = {"x-now": str(clock()), "x-answer": str(answer)}
            try:
                response = client.post("/chat/completions", json=asked, headers=extra)
            except NoNodeAvailable:
                late.append(prompt)
                seen["waited"] += 1
            else:
                seen[str(response.status_code)] += 1

        while todo or late:
            again, late[:] = late[:AT_ONCE], late[AT_ONCE:]
            new, todo[:] = todo[: AT_ONCE - len(again)], todo[AT_ONCE - len(again) :]
            list(threads.map(ask, again + new))
            clock.advance(pause * AT_ONCE)
            assert seen["waited"] < total
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - http, as above
        told: dict[str, list[int]] = json.load(answer)
    refused = sum(each[1] for each in told.values())
    assert set(seen) <= {"200", "waited"}
    assert seen["200"] == total == sum(each[0] for each in told.values())
    assert refused <= total / 1_000
    assert clock() < 60 * minutes * (1.05 if headers else 1.1)
