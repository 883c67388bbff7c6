"""Status page without a browser: what it shows, what it answers, and that it escapes everything."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Hashable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from tests.integrations.status_page.asking import WAYS, Ask, by_asgi, by_wsgi, texts

import loadwise
from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    ConsistentHash,
    Endpoint,
    HealthTracker,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
)
from loadwise.integrations.prometheus import PrometheusCollector
from loadwise.integrations.status_page import StatusPage
from loadwise.testing import ManualClock

every_way = pytest.mark.parametrize("ask", WAYS.values(), ids=WAYS)
ONE = Balancer(["a"], name="one")
TOKEN = "t"  # noqa: S105 - of these tests alone
MARKUP = st.text(st.sampled_from("<>&\"'/=ab \x00\x1b\n\r\u2028\u202e\ud800`${}"), max_size=12)


def row(html: str, node: str) -> str:
    """Return the part of a page that tells of a node."""
    found = re.search(rf'<tbody[^>]*data-key="\d+ \w+ {re.escape(node)}">.*?</tbody>', html)
    assert found is not None, f"no {node}"
    return found[0]


@every_way
@pytest.mark.parametrize("mount", ["", "/status", "/ops/état de"])
def test_the_page_is_found_below_any_path(ask: Ask, mount: str) -> None:
    """Whatever it links to is relative, and without the slash at the end it leads there."""
    page = StatusPage(Balancer(["a"]), actions=True, token=TOKEN)
    told = ask(page, mount=mount)
    assert (told.status, told.headers["content-type"]) == (200, "text/html; charset=utf-8")
    linked = re.findall(r'(?:href|src|action|formaction)="([^"]*)"', told.text)
    assert {"./", "status.json", "drain"} <= set(linked)
    assert [each for each in linked if each.startswith(("/", "http", "//"))] == []
    if mount:
        moved = ask(page, "", mount=mount, query="q=a")
        assert (moved.status, moved.headers["location"]) == (
            307,
            {"/status": "./status/?q=a", "/ops/état de": "./%C3%A9tat%20de/?q=a"}[mount],
        )
    assert ask(page, "/elsewhere", mount=mount).status == 404


@every_way
@pytest.mark.parametrize("path", ["/", "/status.json", "/events", "/metrics", "/elsewhere"])
def test_every_answer_is_guarded(ask: Ask, path: str) -> None:
    """Nothing is cached, guessed at, framed, or read by other sites; HEAD has no body."""
    page = StatusPage(Balancer(["a"]))
    told = ask(page, path) if path != "/events" else by_wsgi(page, path)
    guards = {
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }
    assert guards.items() <= told.headers.items()
    assert not any(name.startswith("access-control") for name in told.headers)
    assert ask(page, path, method="HEAD").body == b""


def test_the_policy_lets_only_its_own_script_run() -> None:
    """By hashes of the script and the style that the page has."""
    told = by_asgi(StatusPage(Balancer(["a"])))
    policy = told.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "form-action 'self'" in policy
    assert not re.search(r"<[^>]* (on\w+|style)=", told.text)
    assert "http://" not in told.text
    assert "https://" not in told.text


def test_problems_come_first_and_say_why() -> None:
    """One node of each kind, and the sentence above all of them."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    quota.register("poor", QuotaConfig([QuotaDimension("rpm", limit=1, window=60.0)]))
    ids = ["well", "dead", "hot", "poor", "full", "resting", "other", "turned away"]
    balancer = Balancer(
        ids,
        name="search",
        clock=clock,
        quota=quota,
        health=HealthTracker(ConsecutiveFailurePolicy(1, 2, 10.0), clock=clock),
        where=lambda node: node != "turned away",
        max_in_flight=lambda node: 1 if node == "full" else None,
    )

    def only(node: str) -> Any:
        return balancer.acquire(exclude=set(ids) - {node}, cost={"rpm": 1})

    only("dead").failure("connection refused")
    only("hot").rate_limited(30.0)
    only("poor").success()
    held = only("full")
    balancer.drain("resting")
    clock.advance(3.0)
    told = by_asgi(StatusPage(balancer)).text
    order = re.findall(r'data-key="\d+ str ([^"]*)"', told)
    assert order == ["dead", "hot", "poor", "full", "resting", "turned away", "well", "other"]
    said = {node: " ".join(texts(row(told, node)).texts) for node in order}
    assert "down" in said["dead"]
    assert "connection refused; probe in 7 s" in said["dead"]
    assert "cooldown" in said["hot"]
    assert "rate limited, retry after 30 s; back in 27 s" in said["hot"]
    assert "no quota" in said["poor"]
    assert "0 of rpm left" in said["poor"]
    assert "full" in said["full"]
    assert "1 of 1 request under way" in said["full"]
    assert "gets no new requests" in said["resting"]
    assert "the balancer's own filter does not admit it" in said["turned away"]
    assert said["well"].startswith("up")
    assert "1 down and 3 in trouble of 8 nodes." in told
    held.success()


def test_panic_is_told_above_all() -> None:
    """In the first sentence and beside its balancer."""
    health = HealthTracker(ConsecutiveFailurePolicy(1))
    balancer = Balancer(["a", "b"], health=health, name="search")
    for node in ("a", "b"):
        health.report_failure(node)
    told = by_asgi(StatusPage(Balancer(["c"]), balancer)).text
    words = "panic: all 2 nodes are dead; requests go to them as a last resort"
    assert f'<p class="panic">{words}</p>' in told
    assert f"search: {words} · 2 down of 3 nodes." in told


@every_way
def test_json_has_all_there_is(ask: Ask) -> None:
    """The keys of status_dict, ids that stay what they are, and no NaN."""
    balancer: Balancer[Hashable] = Balancer(["1", 2, ("x", 3)], name="search")
    quota = QuotaTracker()
    quota.register("a", QuotaConfig([QuotaDimension("rpm", limit=5)]))
    shared = Balancer([Endpoint("a", zone="z", tags={"v": "1"}), "b"], quota=quota)
    told = ask(StatusPage(balancer, shared), "/status.json")
    assert told.headers["content-type"] == "application/json"
    assert told.json["pid"] == os.getpid()
    assert told.json["loadwise"] == loadwise.__version__
    first, second = told.json["balancers"]
    assert [node["id"] for node in first["nodes"]] == ["1", 2, "('x', 3)"]
    for told_of, asked in ((first, balancer.status_dict()), (second, shared.status_dict())):
        nodes, others = told_of.pop("nodes"), asked.pop("nodes")
        assert asked.items() <= told_of.items()
        for node, other in zip(nodes, others, strict=True):
            node["state_seconds"] = other["state_seconds"]
            assert other.items() <= node.items()
            assert (node["state"], node["severity"], node["why"]) == ("up", "well", "")
    assert second["strategy"] == "PowerOfTwoChoices"


def test_a_balancer_that_cannot_be_read_is_told_of() -> None:
    """The others are shown all the same."""

    class Broken(QuotaTracker):
        def remaining_by_dimension(self, node_id: Hashable) -> dict[str, float]:
            raise RuntimeError("store <b>away</b>")

    quota = Broken()
    balancer = Balancer(["x"], name="broken")
    page = StatusPage(balancer, Balancer(["fine"], name="other"))
    balancer._roster._quota = quota
    told = by_asgi(page)
    assert told.status == 200
    assert "RuntimeError: store &lt;b&gt;away&lt;/b&gt;" in told.text
    assert row(told.text, "fine")
    assert by_asgi(page, "/status.json").json["balancers"][0]["error"].startswith("RuntimeError")


def test_strategies_that_need_a_key_are_shown() -> None:
    """The page asks who would be chosen for a key of its own."""
    balancer = Balancer(["a", "b"], ConsistentHash())
    balancer.drain("a")
    assert "gets no new requests" in row(by_asgi(StatusPage(balancer)).text, "a")
    assert by_asgi(StatusPage(balancer), "/status.json").json["balancers"][0]["choice"] == "b"


@settings(max_examples=12)
@given(MARKUP, MARKUP, MARKUP, MARKUP)
def test_names_are_shown_and_never_taken_for_markup(
    name: str, node: str, reason: str, tag: str
) -> None:
    """Whatever they are, the page has the elements that it has with plain ones."""

    def told(name: str, node: str, reason: str, tag: str) -> tuple[list[str], str]:
        clock = ManualClock()
        health = HealthTracker(ConsecutiveFailurePolicy(1), clock=clock)
        quota = QuotaTracker(clock)
        quota.register(f"{node}1", QuotaConfig([QuotaDimension(f"{tag}q", limit=5)]))
        endpoints = [
            Endpoint(f"{node}{number}", zone=f"z{tag}", tags={f"t{tag}": tag})
            for number in range(3)
        ]
        balancer = Balancer(endpoints, name=f"n{name}", clock=clock, health=health, quota=quota)
        health.report_failure(f"{node}0", f"r{reason}")
        balancer.acquire(exclude=[f"{node}0", f"{node}2"]).rate_limited(9.0, reason=f"c{reason}")
        page = StatusPage(balancer, actions=True, token=TOKEN)
        html = by_asgi(page).text + by_wsgi(page, "/events").text
        json.dumps(by_asgi(page, "/status.json").json)
        return texts(html).tags, html

    tags, html = told(name, node, reason, tag)
    assert tags == told("a", "b", "c", "d")[0]
    assert not set("\x00\x1b\r\u2028\u202e") & set(html)


@every_way
def test_hostile_queries_are_shown_and_nothing_else(ask: Ask) -> None:
    """What was looked for stands in the field, as text; numbers that are none count for nothing."""
    page = StatusPage(Balancer([f"node-{number}" for number in range(120)]))
    attack = "q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E%FF&page=-1&balancer=1e9&show=%00"
    told = ask(page, query=attack)
    assert told.status == 200
    assert "<script>alert" not in told.text
    assert "None of 120 nodes has “&quot;&gt;&lt;script&gt;" in told.text
    for query in ("page=99999999999999999999", "page=x", "balancer=٣", "&".join(["q=1"] * 99)):
        assert ask(page, query=query).status == 200
    assert ask(page, query="q=" + "x" * 5000).status == 414


def test_large_fleets_come_in_pages() -> None:
    """Fifty nodes at a time, problems first, and what is looked for is found on any page."""
    health = HealthTracker(ConsecutiveFailurePolicy(1))
    balancer = Balancer(
        [Endpoint(f"n{number}", tags={"rack": f"r{number % 7}"}) for number in range(2000)],
        health=health,
    )
    health.report_failure("n1900")
    page = StatusPage(balancer, Balancer(["other"]))
    first = by_asgi(page).text
    assert first.count("<tbody") == 51
    assert len(first) < 100_000
    assert first.index("str n1900") < first.index("str n0")
    assert "1 to 50 of 2,000 nodes" in first
    assert 'href="./?balancer=1&amp;page=2"' in first
    second = by_asgi(page, query="balancer=1&page=2").text
    assert second.count("<tbody") == 50
    assert "51 to 100 of 2,000 nodes" in second
    last = by_asgi(page, query="balancer=1&page=999999").text
    assert "1,951 to 2,000 of 2,000 nodes" in last
    found = by_asgi(page, query="q=N1234&balancer=1").text
    assert re.findall(r'data-key="\d+ str ([^"]*)"', found) == ["n1234"]
    assert by_asgi(page, query="q=rack%3Dr3&balancer=1").text.count("<tbody") == 50
    problems = by_asgi(page, query="show=problems&balancer=1").text
    assert re.findall(r'data-key="\d+ str ([^"]*)"', problems) == ["n1900"]


def test_long_texts_are_cut() -> None:
    """A reason or a name of a megabyte does not become a page of one."""
    health = HealthTracker(ConsecutiveFailurePolicy(1))
    name = "x" * 10**6
    balancer = Balancer([name], health=health, name=name)
    health.report_failure(name, name)
    tags = {f"tag{number}": name for number in range(50)}
    wide = Balancer([Endpoint("a", tags=tags, zone=name)])
    assert len(by_asgi(StatusPage(balancer, wide)).body) < 60_000


def test_metrics_are_those_of_prometheus() -> None:
    """The default registry's."""
    collector = PrometheusCollector()
    balancer = Balancer(["a"], metrics=collector, name="shown-by-status")
    try:
        told = by_asgi(StatusPage(balancer), "/metrics")
    finally:
        REGISTRY.unregister(collector)
    assert told.headers["content-type"].startswith("text/plain; version=")
    assert 'loadwise_requests_in_flight{balancer="shown-by-status",node="a"} 0.0' in told.text


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((), {}, "there is no balancer to show; give"),
        (("a",), {}, "'a' is no Balancer; give balancers, one by one"),
        (([Balancer(["a"])],), {}, "is no Balancer"),
        ((ONE, Balancer(["b"]), ONE), {}, "balancer 'one' is given twice; give each once"),
        ((Balancer(["a"]),), {"actions": True}, "actions need a token"),
        ((Balancer(["a"]),), {"actions": True, "token": ""}, "token is empty"),
        ((Balancer(["a"]),), {"actions": True, "token": " "}, "token is empty"),
        ((Balancer(["a"]),), {"actions": True, "token": b"x"}, "token is a bytes"),
        ((Balancer(["a"]),), {"actions": "yes", "token": "x"}, "actions is 'yes'"),
    ],
)
def test_wrong_arguments(
    arguments: tuple[Any, ...], options: Mapping[str, Any], message: str
) -> None:
    """Are refused at once, and say what to give."""
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        StatusPage(*arguments, **options)


def test_wrong_ports_and_hosts() -> None:
    """Likewise, and nothing listens."""
    page = StatusPage(Balancer(["a"]))
    with pytest.raises(TypeError, match="port is '80'; it must be an int"):
        page.serve("80")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="port is 70000; it must be at most 65535"):
        page.serve(70_000)
    with pytest.raises(TypeError, match="host is None"):
        page.serve(0, host=None)  # type: ignore[arg-type]
    assert repr(page) == "<StatusPage of 'default'>"
