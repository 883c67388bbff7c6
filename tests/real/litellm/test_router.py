"""A Router of litellm that asks a balancer, against a real provider: see ``calls.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
PROVIDER = ROOT / "tests" / "real" / "llm" / "provider.py"
DEADLINE = 300.0
"""Seconds: litellm takes most of them to be imported, on a machine that is busy."""


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What came of all calls, made in one process."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with subprocess.Popen([sys.executable, PROVIDER], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            done = subprocess.run(
                [sys.executable, Path(__file__).with_name("calls.py"), port],
                capture_output=True,
                text=True,
                timeout=DEADLINE,
                check=False,
                env=os.environ | {"PYTHONPATH": path},
            )
        finally:
            server.kill()
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


EXPECTED: dict[str, Any] = {
    "retries_go_to_others": ["hi", [1, 1, 1], ["a FAILURE", "b FAILURE", "c SUCCESS"]],
    "threads": [10, True],
    "stream": [1, ["a SUCCESS"]],
    "stream_async": [1, ["a SUCCESS"]],
    "stream_breaks": ["a FAILURE"],
    "stream_is_left": ["a CANCELLED"],
    "cancelled": [1, ["a CANCELLED"]],
    "rate_limited": [[1, 5], True, "HEALTHY"],
    "wrong_prompt": ["BadRequestError", ["a SUCCESS"]],
    "refused_key": ["a FAILURE", "b SUCCESS"],
    "timeout": ["a FAILURE", "b SUCCESS"],
    "nobody_listens": ["dead FAILURE", "b SUCCESS"],
    "fallback": ["a FAILURE", "a FAILURE", "spare SUCCESS"],
    "members_follow": [[["b", "c"], ["b", "c", "d"]], 3, 0, True],
    "filters_hold": [0, 8],
    "no_deployment": ["RateLimitError", "NoDeploymentError", 429, {"rate_limited": 1}, True],
    "limits_per_minute": [[2, 2], 429],
    "keys_stay": [0, 0, 6],
    "other_endpoints": ["a SUCCESS"],
    "callbacks_were_replaced": ["a SUCCESS", "a SUCCESS"],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_calls(told: dict[str, Any], name: str) -> None:
    """What each case is about stands with it, in ``calls.py``."""
    assert told[name] == EXPECTED[name]


def test_many_at_once(told: dict[str, Any]) -> None:
    """Leases end once each, and those who share metadata do not share a lease."""
    answers, good, once, health, shared = told["many_at_once"]
    assert (answers, good, once) == (30, 30, True)
    assert health == ["HEALTHY", "UNHEALTHY", "HEALTHY"]
    assert "loadwise_lease" not in shared


def test_mistakes(told: dict[str, Any]) -> None:
    """Wrong arguments are refused when they are given."""
    router, key, option = told["mistakes"]
    assert router.startswith("router is ['a'], which has no register_plugin(); give a litellm")
    assert key == "hash_key is 'user'; it must be a function of a request"
    assert option == "there is no option 'nmae'; did you mean 'name'?"


def test_every_case_is_looked_at(told: dict[str, Any]) -> None:
    """None is added in vain."""
    assert told.keys() == EXPECTED.keys() | {"many_at_once", "mistakes"}
