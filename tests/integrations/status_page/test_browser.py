"""Status page in a real browser, without a window: what is seen, pressed, typed and sent.

Needs Debian's ``chromium`` or another one in the path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from tests.chromium import running_browser
from tests.simulation.report.browsing import CONTRASTS, DESKTOP, PHONE

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    Endpoint,
    HealthTracker,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
)
from loadwise.integrations._status_page.server import PageServer
from loadwise.integrations.status_page import StatusPage

pytestmark = pytest.mark.slow

TOKEN = "of the browser"  # noqa: S105 - and of nobody else
SMALLEST_TEXT = 12.0
LEGIBLE = 4.5
"""Contrast of text, by WCAG 2.2, success criterion 1.4.3."""
ATTACK = "<img src=x onerror=alert(1)></script><script>alert(1)</script>\"'\u202e\x1b[2J"
SECONDS = 20_000
"""Milliseconds that a browser on a busy machine may take."""


class Fleet:
    """A balancer with a node of each kind, and its page on a server."""

    def __init__(self, names: str = "{}") -> None:
        self.health = HealthTracker(ConsecutiveFailurePolicy(1, 1, 60.0))
        quota = QuotaTracker()
        ids = [names.format(each) for each in ("api-1", "api-2", "api-3", "api-4", "api-5")]
        nodes = [Endpoint(each, zone=each, tags={each: each}) for each in ids]
        for each in ids:
            quota.register(each, QuotaConfig([QuotaDimension(names.format("rpm"), limit=900)]))
        self.balancer = Balancer(
            nodes, health=self.health, quota=quota, name=names.format("search"), max_in_flight=9
        )
        self.health.report_failure(ids[4], names.format("connection refused"))
        self.balancer.acquire(exclude=ids[1:]).rate_limited(600.0, reason=names.format("told so"))
        self.balancer.drain(ids[2])
        for _ in range(30):
            self.balancer.acquire().success()
        self.ids = ids
        page = StatusPage(self.balancer, actions=True, token=TOKEN)
        self._server = PageServer("127.0.0.1", 0)
        self._server.set_app(page.wsgi)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass
class Seen:
    """The page as it is open in the browser, and what the browser had to say and send."""

    page: Page
    fleet: Fleet
    said: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)

    def node(self, name: str) -> Locator:
        return self.page.locator(f'tbody[data-key$=" {name}"]')

    def order(self) -> list[str]:
        keys: list[str] = self.page.locator("tbody").evaluate_all(
            "all => all.map((each) => each.dataset.key.split(' ').at(-1))"
        )
        return keys


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser without a window."""
    with running_browser() as running:
        yield running


@pytest.fixture
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """A fleet for one test."""
    made = Fleet(*getattr(request, "param", ()))
    yield made
    made.close()


@pytest.fixture(scope="module")
def still_fleet() -> Iterator[Fleet]:
    """A fleet that is only looked at."""
    made = Fleet()
    yield made
    made.close()


@contextmanager
def open_page(browser: Browser, fleet: Fleet, path: str = "", **wanted: Any) -> Iterator[Seen]:
    """Open the page, which must not complain and must ask nobody else for anything."""
    width, height = wanted.get("size", DESKTOP)
    context = browser.new_context(
        viewport={"width": width, "height": height},
        is_mobile=(width, height) == PHONE,
        has_touch=(width, height) == PHONE,
        java_script_enabled=wanted.get("scripts", True),
    )
    context.set_default_timeout(SECONDS)
    page = context.new_page()
    seen = Seen(page, fleet)
    page.on("console", lambda message: seen.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.said.append(str(error)))
    page.on("dialog", lambda dialog: seen.said.append(f"dialog: {dialog.message}"))
    page.on("request", lambda sent: seen.sent.append(sent.url))
    page.goto(fleet.url + path)
    yield seen
    context.close()
    assert seen.said == []
    assert [url for url in seen.sent if not url.startswith((fleet.url, "data:,"))] == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_all_is_legible_and_fits(
    browser: Browser, still_fleet: Fleet, size: tuple[int, int]
) -> None:
    """Contrast and size of every text, light and dark; no scrolling sideways; large targets."""
    with open_page(browser, still_fleet, size=size) as seen:
        expect(seen.page.locator("#live")).to_have_text("live", timeout=SECONDS)
        assert seen.page.evaluate("document.documentElement.scrollWidth") == size[0]
        assert seen.page.evaluate(
            "[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)"
        )
        schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
        papers = set[str]()
        for scheme in schemes:
            seen.page.emulate_media(color_scheme=scheme)
            papers.add(seen.page.evaluate("getComputedStyle(document.body).backgroundColor"))
            found = seen.page.evaluate(CONTRASTS)
            assert len(found) > 60
            assert [each for each in found if each["contrast"] < LEGIBLE] == []
            assert [each for each in found if each["size"] < SMALLEST_TEXT] == []
        assert len(papers) == len(schemes)
        if size == PHONE:
            heights = seen.page.locator("button").evaluate_all(
                "all => all.map((each) => each.offsetHeight)"
            )
            assert min(heights) >= 32


def test_a_kill_is_seen_without_loading_again(browser: Browser, fleet: Fleet) -> None:
    """The node moves to the top with its reason; the title counts it; the focus stays."""
    with open_page(browser, fleet) as seen:
        assert seen.order() == ["api-5", "api-1", "api-3", "api-2", "api-4"]
        expect(seen.page).to_have_title("(2) search · loadwise status")
        seen.page.evaluate("window.loadedOnce = true")
        button = seen.page.get_by_role("button", name="Drain: api-4")
        button.focus()
        fleet.health.report_failure("api-4", "killed")
        expect(seen.node("api-4")).to_contain_text("killed", timeout=SECONDS)
        assert seen.order() == ["api-4", "api-5", "api-1", "api-3", "api-2"]
        expect(seen.page).to_have_title("(3) search · loadwise status")
        expect(button).to_be_focused()
        fleet.balancer.remove("api-5")
        expect(seen.node("api-5")).to_have_count(0, timeout=SECONDS)
        fleet.balancer.add(Endpoint("api-9"))
        expect(seen.node("api-9")).to_contain_text("up", timeout=SECONDS)
        assert seen.page.evaluate("window.loadedOnce")


def test_a_pause_holds_the_page(browser: Browser, fleet: Fleet) -> None:
    """Until it is ended."""
    with open_page(browser, fleet) as seen:
        expect(seen.page.locator("#live")).to_have_text("live", timeout=SECONDS)
        seen.page.get_by_role("button", name="Pause").press("Enter")
        expect(seen.page.locator("#live")).to_have_text("paused")
        fleet.health.report_failure("api-4", "killed")
        # Another viewer has been told of it, and so has this one.
        seen.page.evaluate(
            "() => new Promise((done) => { const other = new EventSource('events');"
            " other.onmessage = ({data}) => {"
            " if (data.includes('killed')) { other.close(); done(); } }; })"
        )
        expect(seen.node("api-4")).not_to_contain_text("killed")
        seen.page.get_by_role("button", name="Go on").press("Enter")
        expect(seen.node("api-4")).to_contain_text("killed", timeout=SECONDS)


def test_the_keyboard_reaches_everything(browser: Browser, still_fleet: Fleet) -> None:
    """Tab goes from the link past the header to the last button."""
    with open_page(browser, still_fleet) as seen:
        reached: list[str] = []
        for _ in range(14):
            seen.page.keyboard.press("Tab")
            reached.append(
                seen.page.evaluate(
                    "() => { const at = document.activeElement;"
                    " return at.ariaLabel || at.id || at.name || at.textContent; }"
                )
            )
        assert reached == [
            "Skip to the nodes",
            "q",
            "show",
            "Show",
            "pause",
            "token",
            "Nodes of balancer search",
            "Drain: api-5",
            "Lift: api-1",
            "Drain: api-1",
            "Resume: api-3",
            "Drain: api-2",
            "Drain: api-4",
            "status.json",
        ]


def test_actions_are_done_from_the_page(browser: Browser, fleet: Fleet) -> None:
    """With the token; without it nothing happens, and the field is asked for."""
    with open_page(browser, fleet) as seen:
        drain = seen.page.get_by_role("button", name="Drain: api-4")
        drain.click()
        expect(seen.page.locator("#token")).to_be_focused()
        seen.page.locator("#token").fill("wrong")
        drain.click()
        expect(seen.page.locator("#said")).to_have_text("Refused: the token is wrong")
        assert "403 (Forbidden)" in seen.said.pop()  # as the browser itself reports it
        assert not fleet.balancer.status()[3].drained
        seen.page.locator("#token").fill(TOKEN)
        drain.click()
        expect(seen.page.locator("#said")).to_have_text(
            "Node 'api-4' of balancer 'search' is drained: it gets no new requests."
        )
        assert fleet.balancer.status()[3].drained
        seen.page.get_by_role("button", name="Lift: api-1").click()
        expect(seen.node("api-1")).not_to_contain_text("told so", timeout=SECONDS)
        seen.page.get_by_role("button", name="Resume: api-4").press("Enter")
        expect(seen.node("api-4")).not_to_contain_text("drained", timeout=SECONDS)
        assert not any(TOKEN in url for url in seen.sent)


def test_without_scripts_it_is_a_page_of_forms(browser: Browser, fleet: Fleet) -> None:
    """It loads itself again, and finds, drains and leads back without a script."""
    with open_page(browser, fleet, scripts=False) as seen:
        refresh = seen.page.locator("meta[http-equiv=refresh]")
        assert int(refresh.get_attribute("content") or 0) > 1
        expect(seen.page.locator("#pause")).to_be_hidden()
        seen.page.locator("#token").fill(TOKEN)
        seen.page.get_by_role("button", name="Drain: api-4").click()
        expect(seen.page.locator("#said")).to_contain_text("is drained")
        assert fleet.balancer.status()[3].drained
        seen.page.get_by_role("link", name="Back to the nodes").click()
        expect(seen.node("api-4")).to_contain_text("gets no new requests")
        seen.page.locator("#q").fill("api-4")
        seen.page.get_by_role("button", name="Show").click()
        expect(seen.page.locator("tbody")).to_have_count(1)


def test_what_was_looked_for_stays_while_it_is_live(browser: Browser, fleet: Fleet) -> None:
    """The events are those of the same choice."""
    with open_page(browser, fleet, "?show=problems") as seen:
        assert seen.order() == ["api-5", "api-1", "api-3"]
        fleet.health.report_success("api-5")
        expect(seen.node("api-5")).to_have_count(0, timeout=SECONDS)
        assert seen.order() == ["api-1", "api-3"]


@pytest.mark.parametrize("fleet", [(f"{{}}{ATTACK}",)], indirect=True, ids=[""])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_hostile_names_run_no_code(browser: Browser, fleet: Fleet, size: tuple[int, int]) -> None:
    """In every field they are shown as they are written, in the page and in its events."""
    shown = ATTACK.replace("\u202e", "\\u202e").replace("\x1b", "\\x1b")
    with open_page(browser, fleet, size=size) as seen:
        expect(seen.page.locator("h2")).to_have_text(f"search{shown}")
        expect(seen.page.locator("tbody .node").nth(0)).to_contain_text(f"api-5{shown}")
        seen.page.locator("#token").fill(TOKEN)
        seen.page.get_by_role("button", name=f"Drain: api-4{shown}").click()
        expect(seen.page.locator("#said")).to_contain_text("is drained")
        fleet.health.report_failure(fleet.ids[1], f"killed{ATTACK}")
        expect(seen.page.locator("main")).to_contain_text(f"killed{shown}", timeout=SECONDS)
        expect(seen.page.locator("img, main script")).to_have_count(0)
        assert re.search("search<img", seen.page.title())
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_no_other_script_may_run(browser: Browser, still_fleet: Fleet) -> None:
    """Even if markup came in, the policy would not run it, nor let anything out."""
    with open_page(browser, still_fleet) as seen:
        ran = seen.page.evaluate(
            "() => { const script = document.createElement('script');"
            " script.textContent = 'window.ran = true'; document.body.append(script);"
            " document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.ran=true>');"
            " return Boolean(window.ran); }"
        )
        assert not ran
        assert not seen.page.evaluate("fetch('data:,x').then(() => true, () => false)")
        assert seen.said
        assert all("Content Security Policy" in said for said in seen.said)
        seen.said.clear()


def test_a_server_that_goes_is_noticed(browser: Browser, fleet: Fleet) -> None:
    """The page says for how long there has been no news, and keeps what it has."""
    with open_page(browser, fleet) as seen:
        expect(seen.page.locator("#live")).to_have_text("live", timeout=SECONDS)
        seen.page.route("**/events*", lambda route: route.abort())
        seen.page.reload()  # else the stream that is open would go on for its time
        expect(seen.page.locator("#live")).to_contain_text("no news for", timeout=SECONDS)
        expect(seen.page.locator("tbody")).to_have_count(5)
        seen.page.unroute("**/events*")
        expect(seen.page.locator("#live")).to_have_text("live", timeout=SECONDS)
        assert all("ERR_FAILED" in said for said in seen.said)
        seen.said.clear()
