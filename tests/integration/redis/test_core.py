"""What shared quotas ask of the server and make of its answers, without a server."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import pytest
from tests.integration.redis.support import rpm

from loadwise.integrations.redis._connection import CircuitBreaker
from loadwise.integrations.redis._core import Core
from loadwise.integrations.redis._events import EventLog
from loadwise.integrations.redis._exchange import Unreachable
from loadwise.integrations.redis._mirror import OutagePolicy
from loadwise.integrations.redis._quota_wire import Call, Reply, SharedBucket
from loadwise.integrations.redis._stake import Charge, Use
from loadwise.integrations.redis._supply import Supply
from loadwise.quota import QuotaDimension
from loadwise.testing import ManualClock


class Desk:
    """A core, and the server's part played by hand."""

    def __init__(self, policy: OutagePolicy = "refuse") -> None:
        self.clock = ManualClock(1000.0)
        self.link = CircuitBreaker(EventLog("quota", None), self.clock, "meanwhile")
        self.core = Core(self.clock, self.link, policy, 1.0, lambda: None)
        self.core.register("node", rpm(100))

    def begin(self, amount: float = 1) -> tuple[Any, Call]:
        """Begin to acquire; return the steps and the call that they make."""
        steps = self.core.acquire("node", {"rpm": amount})
        return steps, next(steps)


def asked(call: Call) -> dict[str, Any]:
    """Return what a call says of its one dimension, and its epoch."""
    said = json.loads(call.payload)
    return {"epoch": said["epoch"], "back": said["dims"][0]["back"], "add": said["dims"][0]["add"]}


def answer(
    status: str, epoch: str = "e1", granted: tuple[float, int] | None = None, used: float = 0
) -> Reply:
    """Return an answer of the server."""
    reply = Reply(status, epoch)
    if status in ("ok", "full"):
        if granted is not None:
            reply.granted["rpm"] = granted
        reply.buckets["rpm"] = deque([SharedBucket(7, 1001.0, 1000.0, used)])
    return reply


def finish(steps: Any, reply: Reply) -> Any:
    """Give the last answer; return what comes of it all."""
    with pytest.raises(StopIteration) as stop:
        steps.send(reply)
    return stop.value.value


def test_what_may_not_have_arrived_is_charged_again_and_never_given_back_again() -> None:
    """After a call without an answer its charges are told anew; what it gave back stays given."""
    desk = Desk()
    steps, call = desk.begin(10)
    reservation = finish(steps, answer("ok", granted=(10, 7), used=10))
    reservation.settle({"rpm": 4})
    desk.core.record_usage("node", {"rpm": 3})
    steps, call = desk.begin()
    assert asked(call) == {"epoch": "e1", "back": [[7, 6]], "add": [[0, 3]]}
    with pytest.raises(StopIteration):
        steps.throw(Unreachable())
    desk.clock.advance(2.0)
    _, call = desk.begin()
    assert asked(call) == {"epoch": "e1", "back": [], "add": [[2_000_000, 3]]}


def test_an_interrupted_call_counts_as_one_without_an_answer() -> None:
    """When the one who asks is cancelled, what the call told is told again."""
    desk = Desk()
    desk.core.record_usage("node", {"rpm": 3})
    steps, call = desk.begin()
    assert asked(call)["add"] == [[0, 3]]
    steps.close()
    _, call = desk.begin()
    assert asked(call)["add"] == [[0, 3]]


def test_two_who_notice_that_all_is_lost_tell_it_once() -> None:
    """Of two calls under way when the server forgot, one tells everything, once, and both go on."""
    desk = Desk()
    finish(desk.begin(10)[0], answer("ok", granted=(10, 7), used=10))
    (first, _), (second, _) = desk.begin(), desk.begin()
    assert asked(first.send(answer("lost", ""))) == {"epoch": "", "back": [], "add": [[0, 10]]}
    assert asked(second.send(answer("lost", "")))["add"] == []
    assert finish(first, answer("ok", "e2", (1, 8), 11))
    assert finish(second, answer("ok", "e2", (1, 8), 12))
    assert desk.core.remaining("node", "rpm") == 88
    assert list(desk.core.news) == [("resynchronised", "what was used of 'node' is told anew")]


def test_what_is_being_told_when_the_first_epoch_is_learnt_is_not_told_again() -> None:
    """Two calls are under way when a process first hears of the counts: each has told its part."""
    desk = Desk()
    desk.core.record_usage("node", {"rpm": 2})
    telling = desk.core.chores()
    assert asked(next(telling))["add"] == [[0, 2]]
    steps, _ = desk.begin()
    assert finish(steps, answer("ok", granted=(1, 7), used=3))
    steps, call = desk.begin()
    assert asked(call)["add"] == []
    finish(steps, answer("full", used=3))
    finish(telling, answer("ok", used=3))
    _, call = desk.begin()
    assert asked(call)["add"] == []


@pytest.mark.parametrize(
    ("late", "again"),
    [
        (answer("ok", "e1", used=12), 2),  # it arrived before all was lost
        (answer("lost", "e2"), 2),
        (answer("lost", ""), 2),
        (answer("ok", "e2", used=13), 0),
        (Unreachable(), 2),
    ],
    ids=["before", "lost", "lost-twice", "after", "unknown"],
)
def test_what_is_being_told_when_all_is_lost_is_told_again_if_that_was_lost_too(
    late: Reply | Unreachable, again: float
) -> None:
    """The answer says whether it has reached the counts that began anew; until then it waits."""
    desk = Desk()
    finish(desk.begin(10)[0], answer("ok", granted=(10, 7), used=10))
    desk.core.record_usage("node", {"rpm": 2})
    telling = desk.core.chores()
    assert asked(next(telling))["add"] == [[0, 2]]
    steps, _ = desk.begin()
    assert asked(steps.send(answer("lost", "")))["add"] == [[0, 10]]
    assert finish(steps, answer("ok", "e2", (1, 8), 11))
    call = None
    try:
        # One that was lost is repeated at once, with what it told.
        call = telling.throw(late) if isinstance(late, Unreachable) else telling.send(late)
    except StopIteration:
        _, call = desk.begin()
    assert sum(amount for _, amount in asked(call)["add"]) == again


def test_what_was_granted_before_all_was_lost_is_told_too() -> None:
    """A grant that arrives after another call found all lost belongs to what is told anew."""
    desk = Desk()
    finish(desk.begin(10)[0], answer("ok", granted=(10, 7), used=10))
    (first, _), (second, _) = desk.begin(5), desk.begin()
    second.send(answer("lost", ""))
    assert finish(second, answer("ok", "e2", (1, 8), 11))
    reservation = finish(first, answer("ok", "e1", (5, 7), 15))
    _, call = desk.begin()
    assert asked(call)["add"] == [[0, 5]]
    # Which bucket of the new counts holds it nobody knows: it is not given back to another's.
    reservation.settle({"rpm": 0})
    _, call = desk.begin()
    assert asked(call)["back"] == []


def test_registering_again_gives_nothing_back_twice() -> None:
    """What is to be given back is given back once, though a call is planned with the old limits."""
    desk = Desk()
    finish(desk.begin(10)[0], answer("ok", granted=(10, 7), used=10)).settle({"rpm": 4})
    before = desk.core._stakes["node"]
    desk.core.register("node", rpm(200))
    late = desk.core._plan("node", before, "sync", {})
    _, call = desk.begin()
    assert (asked(late)["back"], asked(call)["back"]) == ([], [[7, 6]])


def test_answers_that_overtake_each_other() -> None:
    """What is shown is the answer to the latest call, in whatever order they arrive."""
    desk = Desk()
    (first, _), (second, _) = desk.begin(), desk.begin()
    finish(second, answer("ok", granted=(1, 7), used=42))
    finish(first, answer("ok", granted=(1, 7), used=41))
    assert desk.core.remaining("node", "rpm") == 58


def test_what_the_server_was_not_told_yet_shows() -> None:
    """An answer does not hide what was used here and is still to be told."""
    desk = Desk()
    steps, _ = desk.begin()
    desk.core.record_usage("node", {"rpm": 3})
    finish(steps, answer("ok", granted=(1, 7), used=20))
    assert desk.core.remaining("node", "rpm") == 77


def test_what_is_being_told_is_not_granted_meanwhile() -> None:
    """Whichever of two calls the server runs first, what one of them charges is not free."""
    desk = Desk()
    desk.core.record_usage("node", {"rpm": 97})
    telling = desk.core.chores()
    assert json.loads(next(telling).payload)["dims"][0]["due"] == 0
    steps, call = desk.begin(5)
    assert (asked(call)["add"], json.loads(call.payload)["dims"][0]["due"]) == ([], 97)
    finish(telling, answer("ok", used=97))
    finish(steps, answer("full", used=97))
    _, call = desk.begin(5)
    assert json.loads(call.payload)["dims"][0]["due"] == 0


def test_nothing_is_asked_while_the_link_is_down() -> None:
    """With the circuit open no call is made; what is used counts, and is told in the end."""
    desk = Desk("local")
    desk.link.failed(OSError("gone"))
    granted = 0
    for _ in range(120):
        with pytest.raises(StopIteration) as stop:
            next(desk.core.acquire("node", {}))
        granted += stop.value.value is not None
    assert granted == 100
    desk.link.restored()
    _, call = desk.begin()
    assert asked(call)["add"] == [[0, 100]]


def supply(charges: Mapping[float, float]) -> Supply:
    """Return a supply of slices: units by when they expire."""
    found = Supply(QuotaDimension("rpm", limit=1000), 0.1)
    for expires, units in charges.items():
        charge = Charge(Use("rpm", 0, 0), units, 1, "e1")
        charge.left, charge.expires = units, expires
        found.slices.append(charge)
    return found


def test_slices_that_have_expired_are_not_used() -> None:
    """Units count until their slice expires; the oldest that still hold go first."""
    found = supply({10.0: 5, 20.0: 5, 30.0: 5})
    assert (found.left(9.0), found.left(10.0), found.left(25.0)) == (15, 10, 5)
    assert [part for _, part in found.draw(7, 10.0)] == [5, 2]
    assert [charge.left for charge in found.slices] == [5, 0, 3]
    assert [left for _, left in found.stale(20.0)] == [5]
    assert [charge.left for charge in found.slices] == [3]
    assert [left for _, left in found.stale(math.inf)] == [3]


def test_what_is_held_follows_the_demand() -> None:
    """It doubles while over half is used, up to half the limit, and halves while nothing is."""
    found = supply({})
    sizes = []
    for now in range(5):
        wanted = found.ask(float(now), 5.0)
        sizes.append(found.target)
        charge = Charge(Use("rpm", 0, 0), wanted, 1, "e1")
        charge.left, charge.expires = wanted, now + 5.0
        found.slices.append(charge)
        list(found.draw(found.left(float(now)) * 0.9, float(now)))
    assert sizes == [100, 200, 400, 500, 500]
    found.drawn = 0
    sizes = []
    for now in range(100, 200, 5):
        found.ask(float(now), 5.0)
        sizes.append(found.target)
    assert sizes[-1] == 10
    assert sorted(sizes, reverse=True) == sizes
    found.short = 700
    assert found.ask(300.0, 5.0) == 700
    assert found.ask(301.0, 5.0) == 10


def lifted_at(moment: int) -> Reply:
    """Return an answer that tells of a pause that was lifted."""
    reply = answer("ok")
    reply.lifted = moment
    return reply


def paused_until(moment: float) -> Reply:
    """Return an answer that tells of a pause."""
    reply = answer("ok")
    reply.rest = moment
    return reply


def test_an_answer_that_is_older_than_a_lift_brings_no_pause_back() -> None:
    """Neither before the server is told, nor while it is being told, nor if that is lost."""
    desk = Desk()
    desk.core.mark_exhausted("node", 60.0)
    telling = desk.core.chores()
    assert json.loads(next(telling).payload)["rest"] == 60_000_000
    assert desk.core.lift("node")
    finish(telling, paused_until(1060.0))
    assert desk.core.rests_until("node") is None
    desk.clock.advance(2.0)
    telling = desk.core.chores()
    said = json.loads(next(telling).payload)
    assert (said["lift"], said["rest"]) == (True, 0)
    steps, _ = desk.begin()
    finish(steps, paused_until(1060.0))
    assert desk.core.rests_until("node") is None
    with pytest.raises(StopIteration):
        telling.throw(Unreachable())
    said = json.loads(next(desk.core.chores()).payload)
    assert (said["lift"], said["rest"]) == (True, 0)


def test_a_pause_that_the_server_has_not_heard_of_outlives_a_lift() -> None:
    """A pause begun here after another process lifted an older one goes on, and is told."""
    desk = Desk()
    desk.core.mark_exhausted("node", 60.0)
    telling = desk.core.chores()
    next(telling)
    finish(telling, paused_until(1060.0))
    desk.clock.advance(2.0)
    asking = desk.core.chores()
    next(asking)
    desk.core.mark_exhausted("node", 90.0)
    finish(asking, lifted_at(5))
    assert desk.core.rests_until("node") == 1092.0
    telling = desk.core.chores()
    assert json.loads(next(telling).payload)["rest"] == 90_000_000
    finish(telling, paused_until(1092.0))
    assert desk.core.rests_until("node") == 1092.0
    desk.clock.advance(2.0)
    asking = desk.core.chores()
    next(asking)
    finish(asking, lifted_at(6))
    assert desk.core.rests_until("node") is None
    desk.core.mark_exhausted("node", 30.0)
    desk.clock.advance(2.0)
    telling = desk.core.chores()
    next(telling)
    finish(telling, lifted_at(6))  # the same as before: no news
    assert desk.core.rests_until("node") == 1034.0
