"""Snapshots that viewers share, the history that they leave, and what a viewer costs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Hashable
from threading import Barrier, Thread
from typing import Any

import pytest

from loadwise import Balancer, Endpoint, NodeStatus, RendezvousSubset, RoundRobin, Tiers
from loadwise.integrations._status_page.actions import Actions
from loadwise.integrations._status_page.asgi import AsgiPage
from loadwise.integrations._status_page.feed import StatusFeed
from loadwise.integrations._status_page.history import POINTS, STEP, History
from loadwise.integrations._status_page.page import fragment
from loadwise.integrations._status_page.query import PageQuery
from loadwise.integrations._status_page.site import MOST_STREAMS, Site
from loadwise.integrations._status_page.sparkline import sparkline
from loadwise.integrations._status_page.verdicts import Severity
from loadwise.testing import ManualClock


class Counted(Balancer[Hashable]):
    """A balancer that counts how often it is asked how it is."""

    asked = 0

    def status(self) -> list[NodeStatus]:
        self.asked += 1
        return super().status()


class SlowClock(ManualClock):
    """A clock that goes on by a step each time that it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.step = 0.0

    def __call__(self) -> float:
        now = super().__call__()
        self.advance(self.step)
        return now


def site_of(balancer: Balancer[Any], clock: ManualClock) -> Site:
    """Return a site of one balancer, with a clock of the test's."""
    return Site(StatusFeed([(balancer, "p2c")], clock), Actions([balancer], None))


def test_viewers_share_a_snapshot_a_second() -> None:
    """A hundred looks within a second ask the balancer once."""
    clock, balancer = ManualClock(), Counted(["a"])
    site = site_of(balancer, clock)
    for second in range(1, 6):
        for _ in range(100):
            number, _ = site.event(PageQuery())
            assert number == second
        assert balancer.asked == second
        clock.advance(1.0)


def test_threads_that_look_at_once_share_it_too() -> None:
    """One takes it and renders it, the others wait for it."""
    balancer, rendered = Counted(["a"]), list[bytes]()
    site = site_of(balancer, ManualClock())
    barrier = Barrier(8)

    def look() -> None:
        barrier.wait()
        rendered.append(site.event(PageQuery())[1])

    threads = [Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert balancer.asked == 1
    assert {id(each) for each in rendered} == {id(rendered[0])}


def test_viewers_of_the_same_nodes_share_the_html() -> None:
    """It is the very same object; of other nodes, or a second later, it is another."""
    clock = ManualClock()
    site = site_of(Balancer(["a", "b"]), clock)
    (_, first), (_, again), (_, other) = map(site.event, [PageQuery(), PageQuery(), PageQuery("a")])
    assert first is again
    assert other is not first
    clock.advance(1.0)
    assert site.event(PageQuery())[1] is not first


def test_the_page_takes_a_twentieth_of_a_core_at_most() -> None:
    """The more a snapshot and its rendering cost this thread, the later the next one comes."""
    clock, spent, balancer = ManualClock(), SlowClock(), Counted(["a"])
    feed = StatusFeed([(balancer, "p2c")], clock, spent)
    spent.step = 0.5
    assert feed.current().interval == pytest.approx(10.0)
    spent.step = 0.0
    clock.advance(9.5)
    assert feed.current().number == 1
    clock.advance(0.5)
    assert feed.current().number == 2
    assert feed.current().interval == 1.0
    with feed.rendering():
        spent.advance(0.25)
    clock.advance(1.0)
    assert feed.current().interval == 5.0
    clock.advance(5.0)
    assert feed.current().interval == 1.0


def test_time_that_other_threads_take_is_no_cost() -> None:
    """Where a snapshot waits for them, the page is as live as ever."""
    clock, balancer = SlowClock(), Counted(["a"])
    clock.step = 3.0
    assert StatusFeed([(balancer, "p2c")], clock, lambda: 0.0).current().interval == 1.0


def test_an_action_shows_at_once() -> None:
    """Whoever looks next gets a new snapshot."""
    balancer = Counted(["a"])
    feed = StatusFeed([(balancer, "p2c")], ManualClock())
    feed.current()
    feed.expire()
    assert feed.due_in() == 0
    assert (feed.current().number, feed.current().number) == (2, 2)


def test_rates_and_history() -> None:
    """Picks per second by node, a point every two seconds, two minutes at most."""
    clock = ManualClock()
    balancer = Balancer(["a", "b"])
    feed = StatusFeed([(balancer, "p2c")], clock)
    assert feed.current().balancers[0].rate is None
    for _ in range(200):
        clock.advance(1.0)
        for _ in range(6):
            balancer.acquire(exclude=["b"]).success()
        facts = feed.current()
    assert [each.rate for each in facts.balancers[0].nodes] == [6.0, 0.0]
    points = feed.points(0, "a", facts.when)
    assert len(points) == POINTS + 1
    assert [point.rate for point in points[1:]] == [6.0] * POINTS
    assert points[0].seconds - points[-1].seconds == POINTS * STEP
    assert feed.points(0, "nobody", facts.when) == []


def test_a_node_that_the_strategy_passes_over_is_idle() -> None:
    """It is well, and gets nothing though there is much; with little to do that says nothing."""
    clock = ManualClock()
    nodes = [Endpoint("first", priority=0), Endpoint("second", priority=1)]
    balancer = Balancer(nodes, Tiers(RoundRobin))
    feed = StatusFeed([(balancer, "Tiers")], clock)
    for picks, word in ((0, "up"), (79, "up"), (80, "idle")):
        for _ in range(picks):
            balancer.acquire().success()
        found = feed.current().balancers[0].nodes
        assert [each.verdict.word for each in found] == ["up", word]
        clock.advance(2.0)
    assert "prefers others" in found[1].verdict.why
    assert feed.current().balancers[0].severities[Severity.WELL] == 2


def test_nodes_outside_of_a_subset_are_counted() -> None:
    """Who looks for one in vain sees why."""
    balancer = Balancer(range(30), subset=RendezvousSubset("me", 10))
    facts = StatusFeed([(balancer, "p2c")], ManualClock()).current()
    assert (len(facts.balancers[0].nodes), facts.balancers[0].outside) == (10, 20)
    html = fragment(facts, PageQuery(), lambda _, __: [], actions=False)
    assert "<dt>in its subset</dt><dd>10 of 30</dd>" in html


def test_a_history_has_gaps() -> None:
    """Where nobody looked, where a node was away, and where it came back and counts anew."""
    history = History()
    history.add(0.0, ["a", "b"], [0, 0], bytes([3, 3]))
    history.add(1.0, ["a", "b"], [5, 0], bytes([3, 3]))  # too soon
    history.add(2.0, ["a"], [10], bytes([3]))
    history.add(4.0, ["b", "a"], [1, 14], bytes([0, 3]))
    history.add(104.0, ["b", "a"], [900, 4], bytes([0, 3]))
    history.add(106.0, ["b", "a"], [900, 2], bytes([0, 3]))
    assert [point.rate for point in history.points("a", 106.0)] == [None, 5.0, 2.0, None, None]
    assert [point.rate for point in history.points("b", 106.0)] == [None, None, None, 0.0]
    assert history.rates(107.0)("a", 12) == 10.0
    assert history.rates(190.0)("a", 12) is None
    assert History().rates(1.0)("a", 12) is None


def test_a_sparkline_draws_what_is_known() -> None:
    """Areas for picks, with gaps, and a strip for the times of trouble."""
    history = History()
    for second in range(0, 20, 2):
        history.add(float(second), ["a"], [second * 10], bytes([0 if second in (4, 6) else 3]))
    drawn = sparkline(history.points("a", 18.0), 10.0)
    assert 'aria-label="picks per second: 10 now, 10 at most"' in drawn
    assert drawn.count('class="area"') == 1
    assert drawn.count('class="down"') == 1
    assert drawn.split('class="down" d="')[1].split('"')[0].count("M") == 2
    assert 'aria-label="no history yet"' in sparkline([], 0.0)


def test_a_stream_is_one_of_many_and_its_end_is_noticed() -> None:
    """Fifty viewers of one loop share each event; beyond the limit there is one event each."""
    balancer = Counted(["a"])
    page = AsgiPage(site_of(balancer, ManualClock()))
    scope = {"type": "http", "method": "GET", "path": "/events", "headers": []}

    async def view(gone: asyncio.Event, seen: asyncio.Semaphore) -> list[Any]:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if b"data:" in message.get("body", b""):
                seen.release()

        await page.serve(scope, receive, send)
        return sent

    async def main() -> tuple[list[list[Any]], list[Any]]:
        gone, seen = asyncio.Event(), asyncio.Semaphore(0)
        viewers = [asyncio.create_task(view(gone, seen)) for _ in range(MOST_STREAMS)]
        for _ in viewers:
            await asyncio.wait_for(seen.acquire(), 30)
        one_more = await view(gone, seen)
        gone.set()
        return await asyncio.wait_for(asyncio.gather(*viewers), 30), one_more

    all_sent, one_more = asyncio.run(main())
    bodies = {sent[2]["body"] for sent in all_sent}
    assert len(bodies) == 1
    assert b"str a" in bodies.pop()
    assert balancer.asked == 1
    assert all(sent[-1]["more_body"] for sent in all_sent), "nothing is sent to who has gone"
    assert [message["type"] for message in one_more] == [
        "http.response.start",
        "http.response.body",
    ]
    assert one_more[1]["body"].startswith(b"retry: 1000\n\ndata: ")
    assert page._streams == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_looks_for_itself() -> None:
    """It has locks and a history of its own, and its own number of the process."""
    clock, balancer = ManualClock(), Balancer(["a"])
    site = site_of(balancer, clock)
    site.event(PageQuery())
    with site.feed._lock, site._lock:
        child = os.fork()
        if not child:
            _, event = site.event(PageQuery())
            os._exit(f"process {os.getpid()} ".encode() in event)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1
