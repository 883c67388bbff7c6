"""What shared quotas ask of the server and make of its replies, without a server."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from tests.integrations.redis.limits import rpm

from loadwise.integrations.redis._account import SharedBucket
from loadwise.integrations.redis._arguments import OutagePolicy
from loadwise.integrations.redis._shared_counts import SharedCounts
from loadwise.integrations.redis._shared_node import PendingCall, SharedReservation
from loadwise.integrations.redis._slices import Slice, SlicePool
from loadwise.quota import QuotaDimension
from loadwise.testing import ManualClock

SERVER = 1_700_000_000_000_000
"""What the server's clock shows when the local one shows 1000."""


class Desk(SharedCounts):
    """Shared counts, and the server's part played by hand."""

    def __init__(self, policy: OutagePolicy = "refuse") -> None:
        self.time = ManualClock(1000.0)
        super().__init__(
            "desk",
            "strict",
            policy,
            timeout=1.0,
            slice_share=0.1,
            clock=self.time,
            on_event=None,
            wake=lambda: None,
        )
        self._set_limits("node", rpm(100))

    def request(self, amount: float = 1) -> PendingCall:
        """Begin to acquire."""
        request = self._begin("node", {"rpm": amount})
        assert isinstance(request, PendingCall)
        return request

    def sync(self) -> PendingCall:
        """Begin what the background would do."""
        self._nodes["node"].synced = -math.inf
        return next(self._due("node"))

    def give_up(self, request: PendingCall) -> None:
        """Wait for a reply no longer."""
        self._unanswered(request)

    def answer(
        self,
        request: PendingCall,
        status: str = "ok",
        *,
        others: float = 0,
        known: bool = True,
        rest: float = 0,
        at: int | None = None,
    ) -> SharedReservation | None:
        """Give a reply; return what comes of it."""
        now = SERVER + round((self.time() - 1000.0) * 1e6)
        end = str(at or (now // 10_000_000 + 1) * 10_000_000)
        granted = status == "ok" and request.call.op == "acquire"
        amount = request.call.amounts["rpm"]
        dims = {"granted": {end: str(amount)} if granted else {}, "others": {end: str(others)}}
        said: dict[str, Any] = {
            "status": status,
            "now": str(now),
            "rest": str(now + round(rest * 1e6)),
        }
        said |= {"dropped": 0, "known": known, "dims": [dims]}
        self._received(request, json.dumps(said).encode())
        return self._finish(request) if request.call.op == "acquire" else None

    def news(self) -> list[str]:
        """Return the kinds of events that are to be told."""
        return [kind for kind, _ in self._log.deferred]


def asked(request: PendingCall) -> dict[str, Any]:
    """Return what a call says; of its one dimension what was used, and the room it needs."""
    said: dict[str, Any] = json.loads(request.call.payload)
    (dim,) = said["dims"]
    return said | {"used": sum(dim["used"].values()), "need": dim["need"]}


def test_every_call_states_all_that_was_used() -> None:
    """Whether or not an earlier call got through: so none has to be told again, or taken back."""
    desk = Desk()
    reservation = desk.answer(desk.request(10))
    assert reservation is not None
    reservation.settle({"rpm": 4})
    desk.record_usage("node", {"rpm": 3})
    for _ in range(3):
        request = desk.request()
        assert asked(request)["used"] == 7
        desk.give_up(request)
    assert desk._nodes["node"].account.pending()
    desk.answer(desk.sync())
    assert not desk._nodes["node"].account.pending()
    assert asked(desk.request())["used"] == 7


def test_a_call_names_those_that_wait_and_not_those_given_up() -> None:
    """The server keeps what it granted to the former, and takes back what the latter got."""
    desk = Desk()
    first, second = desk.request(), desk.request()
    desk.give_up(first)
    third = desk.request()
    assert asked(third)["open"] == [second.call.seq]
    assert asked(third)["marks"]
    desk.answer(third)
    desk.answer(second)
    assert not asked(desk.sync())["marks"]


def test_replies_that_overtake_each_other() -> None:
    """What is shown of others is the reply to the latest call, in whatever order they arrive."""
    desk = Desk()
    first, second = desk.request(), desk.request()
    desk.answer(second, others=41)
    desk.answer(first, others=40)
    assert desk.remaining("node", "rpm") == 100 - 41 - 2


def test_what_was_used_before_the_first_reply_is_kept_free() -> None:
    """Its bucket is not known before the server's clock is; till then the room is asked for."""
    desk = Desk("local")
    desk._circuit.failed(OSError("gone"))
    assert sum(desk._begin("node", None) is not None for _ in range(120)) == 100
    desk._circuit.restored()
    request = desk.request(5)
    assert (asked(request)["used"], asked(request)["need"]) == (0, 105)
    desk.answer(request, "full")
    request = desk.request(5)
    assert (asked(request)["used"], asked(request)["need"]) == (100, 5)
    assert desk.remaining("node", "rpm") == 0


def test_a_server_that_has_forgotten_is_an_event() -> None:
    """Once, and only if it had counted what it is told again."""
    desk = Desk()
    desk.record_usage("node", {"rpm": 2})
    desk.answer(desk.sync(), known=False)
    desk.answer(desk.sync(), known=False)
    assert desk.news() == []
    desk.answer(desk.sync())
    desk.answer(desk.sync(), known=False)
    assert desk.news() == ["resynchronised"]
    desk.answer(desk.sync())
    desk.time.advance(80.0)  # by then the key has expired
    desk.record_usage("node", {"rpm": 2})
    desk.answer(desk.sync(), known=False)
    assert desk.news() == ["resynchronised"]


def test_registering_again_states_what_was_used() -> None:
    """Under other limits, too; what a call was granted meanwhile belongs to it."""
    desk = Desk()
    request = desk.request(10)
    desk._set_limits("node", rpm(200, resolution=3))
    reservation = desk.answer(request)
    assert reservation is not None
    assert asked(desk.request())["used"] == 10
    reservation.settle({"rpm": 4})
    assert asked(desk.request())["used"] == 4
    assert desk.remaining("node", "rpm") == 196


def test_what_is_settled_after_its_bucket_was_forgotten_gives_nothing_back() -> None:
    """Then it no longer counts anyway; what was used beyond it does."""
    desk = Desk()
    early, late = desk.answer(desk.request(10)), desk.answer(desk.request(10))
    assert early is not None
    assert late is not None
    desk.time.advance(80.0)
    early.settle({"rpm": 0})
    late.settle({"rpm": 12})
    assert asked(desk.request())["used"] == 2
    assert desk.remaining("node", "rpm") == 98


def test_the_child_of_a_fork_states_nothing_of_its_parents() -> None:
    """What was used is another's then, and what was reserved is not given back here."""
    desk = Desk()
    reservation = desk.answer(desk.request(10))
    parent = asked(desk.request())["who"]
    desk._after_fork()
    assert reservation is not None
    reservation.settle({"rpm": 0})
    request = desk.request()
    assert (asked(request)["used"], asked(request)["open"]) == (0, [])
    assert asked(request)["who"] != parent
    assert desk.remaining("node", "rpm") == 90


def test_a_pause_is_told_until_it_is_heard() -> None:
    """With its number, so that the server heeds it once; a reply that is older does not end it."""
    desk = Desk()
    desk.answer(desk.sync())
    older = desk.sync()
    desk.mark_exhausted("node", 60.0)
    desk.answer(older)
    assert desk.cooldown_until("node") == 1060.0
    request = desk.sync()
    assert asked(request)["news"] == [1, False, SERVER + 60_000_000]
    desk.give_up(request)
    request = desk.sync()
    assert asked(request)["news"] == [1, False, SERVER + 60_000_000]
    desk.answer(request, rest=60.0)
    assert desk.cooldown_until("node") == 1060.0
    assert not desk._nodes["node"].account.pending()


def test_a_lift_ends_what_was_told_before_and_nothing_later() -> None:
    """What the server has not heard is told together: first the lift, then the cooldown."""
    desk = Desk()
    desk.answer(desk.sync(), rest=500.0)
    assert desk.cooldown_until("node") == pytest.approx(1500.0)
    assert desk.lift("node")
    desk.mark_exhausted("node", 30.0)
    assert asked(desk.sync())["news"] == [2, True, SERVER + 30_000_000]
    desk.answer(desk.sync(), rest=30.0)
    desk.mark_exhausted("node", 40.0)
    assert asked(desk.sync())["news"] == [3, False, SERVER + 40_000_000]


def test_a_pause_goes_with_what_the_server_holds() -> None:
    """When another process has lifted it, or the key is gone, it is over here, too."""
    desk = Desk()
    desk.answer(desk.sync(), rest=500.0)
    version = desk.version
    assert desk.unavailable() == ["node"]
    desk.answer(desk.sync(), rest=0)
    assert desk.cooldown_until("node") is None
    assert desk.unavailable() == []
    assert desk.version > version


def pool(slices: dict[float, float]) -> SlicePool:
    """Return a pool of slices: units by when they expire."""
    found = SlicePool(QuotaDimension("rpm", limit=1000), 0.1)
    for expires, units in slices.items():
        found.slices.append(Slice(SharedBucket(0.0), units, expires))
    return found


def test_slices_that_have_expired_are_not_used() -> None:
    """Units count until their slice expires; the oldest that still hold go first."""
    found = pool({10.0: 5, 20.0: 5, 30.0: 5})
    assert (found.left(9.0), found.left(10.0), found.left(25.0)) == (15, 10, 5)
    assert [part for _, part in found.draw(7, 10.0)] == [5, 2]
    assert [each.left for each in found.slices] == [5, 0, 3]
    assert [left for _, left in found.take_out(20.0)] == [5]
    assert [each.left for each in found.slices] == [3]
    assert [left for _, left in found.take_out(math.inf)] == [3]


def test_what_is_held_follows_the_demand() -> None:
    """It doubles while over half is used, up to half the limit, and halves while nothing is."""
    found = pool({})
    sizes = []
    for now in range(5):
        wanted = found.ask(float(now), 5.0)
        sizes.append(found.target)
        found.slices.append(Slice(SharedBucket(0.0), wanted, now + 5.0))
        found.draw(found.left(float(now)) * 0.9, float(now))
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


def test_a_pause_without_end_is_told_as_a_month() -> None:
    """However long a node is to sit out, the server is told of what it can remember."""
    desk = Desk()
    desk.answer(desk.request())
    desk.mark_exhausted("node", 1.7e308)
    number, _, until = asked(desk.sync())["news"]
    assert number == 1
    assert until == pytest.approx(SERVER + 30 * 24 * 3600 * 1e6)
