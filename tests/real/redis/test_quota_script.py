"""The script that counts quotas, on a real server, call by call."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from loadwise.integrations.redis._connection import QUOTA

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(client: redis.Redis, prefix: str) -> Run:
    """Return a function that makes a call about one dimension of limit 10; its window is 1000 s."""

    def call(seq: int, op: str = "acquire", *, who: str = "me", **changes: Any) -> dict[str, Any]:
        amount = changes.pop("amount", 1)
        dim = {
            "name": "rpm",
            "limit": 10,
            "window": 1_000_000_000,
            "width": 100_000_000,
            "amount": amount,
            "need": amount if op == "acquire" else 0,
            "used": {bucket(): changes.pop("used")} if "used" in changes else {},
        }
        asked: dict[str, Any] = {
            "who": who,
            "seq": seq,
            "open": [],
            "news": [0, False, 0],
            "marks": False,
            "op": op,
            "ahead": 0,
            "dims": [dim],
        }
        payload = json.dumps(asked | changes)
        raw: Any = client.eval(QUOTA.text.decode(), 1, f"{prefix}:quota:node", payload)
        reply: dict[str, Any] = json.loads(raw)
        return reply

    return call


def bucket() -> str:
    """Return a bucket that counts for the whole test."""
    return str((int(time.time()) // 100 + 2) * 100_000_000)


def others(run: Run) -> float:
    """Return what somebody who never used anything sees."""
    (dim,) = run(1, "sync", who="watcher")["dims"]
    return sum(float(amount) for amount in dim["others"].values())


def granted(reply: dict[str, Any]) -> float:
    """Return what was granted."""
    (dim,) = reply["dims"]
    return sum(float(amount) for amount in dim["granted"].values())


def test_a_call_that_is_repeated_gets_the_same_and_is_counted_once(run: Run) -> None:
    """However often it arrives, before the account makes another one."""
    replies = [run(1, amount=7) for _ in range(3)]
    assert [reply["status"] for reply in replies] == ["ok"] * 3
    assert [granted(reply) for reply in replies] == [7] * 3
    assert others(run) == 7


def test_what_a_call_that_was_given_up_got_is_taken_back(run: Run) -> None:
    """The next call does not name it as waiting, and does not state it: nobody has it."""
    assert granted(run(1, amount=7)) == 7
    assert granted(run(2, amount=10)) == 10
    assert others(run) == 10


def test_a_call_that_was_given_up_gets_nothing_when_it_arrives(run: Run) -> None:
    """Not when it arrives first after the next one, nor when it is repeated then."""
    assert run(3, "sync", used=2)["status"] == "ok"
    for seq in (1, 2):
        reply = run(seq, used=9)
        assert (reply["status"], granted(reply)) == ("stale", 0)
    assert others(run) == 2


def test_a_call_that_was_overtaken_gets_its_share_once(run: Run) -> None:
    """What it states is older and is ignored; what it asks for is granted, and kept till stated."""
    assert granted(run(2, amount=3, open=[1])) == 3
    reply = run(1, amount=4, used=0)
    assert (reply["status"], granted(reply)) == ("ok", 4)
    assert granted(run(1, amount=4)) == 4
    assert others(run) == 7
    # The first is stated by now, the second is not.
    assert run(3, "sync", used=3, open=[1])["status"] == "ok"
    assert others(run) == 7
    assert run(4, "sync", used=7)["status"] == "ok"
    assert others(run) == 7


def test_an_older_statement_gives_nothing_back(run: Run) -> None:
    """One that was made before more was used, and arrives after that was stated."""
    assert run(2, "sync", used=10, open=[1])["status"] == "ok"
    assert run(1, "acquire", used=0)["status"] == "full"
    assert others(run) == 10


def test_a_server_that_has_forgotten_counts_all_with_the_next_call(
    run: Run, client: redis.Redis, prefix: str
) -> None:
    """Also one that comes back with what it knew some time ago; the call itself is decided so."""
    key = f"{prefix}:quota:node"
    assert run(1, "sync", used=4)["known"] is False
    before: Any = client.dump(key)
    assert run(2, "sync", used=9)["known"] is True
    client.restore(key, 0, before, replace=True)
    assert run(3, amount=2, used=9)["status"] == "full"
    assert others(run) == 9
    client.delete(key)
    reply = run(4, amount=2, used=9)
    assert (reply["status"], reply["known"]) == ("full", False)
    assert others(run) == 9


def test_a_word_on_the_pause_is_heeded_once(run: Run) -> None:
    """A lift that is told again does not end a cooldown that another account began since."""
    end = int(run(1, "sync")["now"]) + 500_000_000
    assert int(run(2, "sync", news=[1, False, end])["rest"]) == end
    assert int(run(1, "sync", who="you", news=[1, True, 0])["rest"]) == 0
    assert int(run(3, "sync", news=[2, False, end])["rest"]) == end
    assert int(run(2, "sync", who="you", news=[1, True, 0])["rest"]) == end
    assert run(4)["status"] == "full"
    assert int(run(3, "sync", who="you", news=[2, True, end - 1])["rest"]) == end - 1


def test_who_has_nothing_to_say_leaves_no_trace(run: Run, client: redis.Redis, prefix: str) -> None:
    """Looking at a quota writes nothing, unless a call that was given up may still arrive."""
    key = f"{prefix}:quota:node"
    run(1, "sync")
    assert not client.exists(key)
    run(2, "sync", marks=True)
    assert client.pttl(key) > 0
    assert run(1)["status"] == "stale"


def test_takes_what_there_is(run: Run) -> None:
    """Up to the limit, and nothing while others have used more than that."""
    run(1, "sync", who="you", used=4)
    assert granted(run(1, "take", amount=100)) == 6
    assert granted(run(2, "take", amount=100, used=6)) == 0
    run(2, "sync", who="you", used=40)
    assert granted(run(3, "take", amount=100, used=6)) == 0


def test_a_call_uses_one_key(run: Run, client: redis.Redis, prefix: str) -> None:
    """So it works on a cluster, where a call's keys must lie in one slot."""
    run(1, used=3)
    assert client.keys(f"{prefix}:*") == [f"{prefix}:quota:node".encode()]
