"""What shared state does to the process: forks, exits, and a package that is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.real.redis.support import PATIENCE, Valkey

FORKER = Path(__file__).with_name("forker.py")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform does not fork")
def test_a_forked_child_shares_for_itself(valkey: Valkey, prefix: str) -> None:
    """Parent and child of a fork both go on, and each answers for what it used itself.

    The child hears of the parent's health and the parent of the child's. What the parent had
    leased the child does not use, what it had reserved the child does not give back: of the
    strict quota 10 + 5 are used, of the leased one 1 + 2 + 1.
    """
    run = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(FORKER), str(valkey.port), prefix],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    assert run.stderr == ""
    assert json.loads(run.stdout) == {
        "heard": True,
        "child": {"held after the fork": 0, "leased": True, "strict": True, "heard": True},
        "works": True,
        f"used of {prefix}": pytest.approx(15, abs=0.01),
        f"used of {prefix}-leased": 4,
    }


def test_nothing_keeps_the_interpreter_alive(valkey: Valkey, prefix: str) -> None:
    """A program that closes nothing ends by itself, silently, with threads under way."""
    program = f"""
import redis
from loadwise import QuotaConfig, QuotaDimension
from loadwise.integrations.redis import SharedHealth, SharedQuota

client = redis.Redis(port={valkey.port})
health = SharedHealth(client, {prefix!r}, timeout={PATIENCE})
quota = SharedQuota(client, {prefix!r}, "leased", timeout={PATIENCE})
quota.register("node", QuotaConfig([QuotaDimension("rpm", limit=100)]))
assert quota.try_acquire("node")
for _ in range(3):
    health.report_failure("node")
print("end")
"""
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    assert run.stdout == "end\n"
    assert "Error" not in run.stderr


def test_says_what_to_install() -> None:
    """Without redis-py, importing the integration says which extra brings it."""
    program = """
import sys
sys.modules["redis"] = None
try:
    import loadwise.integrations.redis
except ImportError as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60
    )
    assert "pip install 'loadwise[redis]'" in run.stdout
