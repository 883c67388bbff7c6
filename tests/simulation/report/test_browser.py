"""The report in a real browser, without a window: what is drawn, read, pressed and sent.

Needs Debian's ``chromium`` or another one in the path. Tests that only look at a page share it,
and so do those that leave it as they found it.
"""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect
from tests.simulation.report.browsing import BOXES, CONTRASTS, DESKTOP, PHONE, Report
from tests.simulation.report.made import OF_PROMPTS, STRATEGIES

pytestmark = pytest.mark.slow

CHARTS = ("quantiles", "latency", "failures", "load", "queue", "health")
CHARTS_OF_PROMPTS = ("first-tokens", "cached")
SMALLEST_TEXT = 12.0
LEGIBLE = 4.5
"""Contrast of text, by WCAG 2.2, success criterion 1.4.3."""


def with_page(**wanted: Any) -> pytest.MarkDecorator:
    """Say which report a test opens, and how."""
    return pytest.mark.parametrize("opened", [wanted], indirect=True, ids=[""])


in_both_schemes = pytest.mark.parametrize(
    "seen", [{"scheme": "light"}, {"scheme": "dark"}], indirect=True, ids=["light", "dark"]
)
at_all_sizes = pytest.mark.parametrize(
    "seen",
    [
        *({"name": name, "size": size} for name in ("few", "many") for size in (DESKTOP, PHONE)),
        {"name": "prompts", "size": PHONE},
    ],
    indirect=True,
    ids=["few-desktop", "few-phone", "many-desktop", "many-phone", "prompts-phone"],
)


@in_both_schemes
def test_every_chart_is_drawn(seen: Report) -> None:
    """A line for each strategy or server, with markers, faults and words, in either scheme."""
    for name in ("quantiles", "latency", "failures"):
        expect(seen.lines(name)).to_have_count(len(STRATEGIES))
        names = [trace["name"] for trace in seen.drawn(name) if "name" in trace]
        assert names == [*STRATEGIES]
    for name in ("load", "queue"):
        expect(seen.lines(name)).to_have_count(6)
    for name in ("quantiles", "latency", "failures", "load", "queue"):
        lines = seen.lines(name).evaluate_all(
            "lines => lines.map(line => line.querySelector('path.js-line'))"
            ".map(path => [path.getAttribute('d').length, path.style.stroke])"
        )
        assert all(length > 10 for length, _ in lines)
        assert all(colour.startswith("rgb") for _, colour in lines)
    assert len({colour for _, colour in lines}) == 6
    bars = seen.chart("health").locator(".barlayer .point path")
    assert bars.count() > 4
    for name in CHARTS:
        assert len(seen.words(name)) > 10


@pytest.mark.parametrize(
    "seen", [{"name": "prompts", "scheme": "dark", "size": DESKTOP}], indirect=True, ids=[""]
)
def test_charts_of_prompts_are_drawn(seen: Report) -> None:
    """A line for each strategy's times to first token, a row for what it found cached."""
    expect(seen.lines("first-tokens")).to_have_count(len(OF_PROMPTS))
    marks = seen.chart("cached").locator(".points path.point")
    expect(marks).to_have_count(len(OF_PROMPTS))
    expect(seen.chart("cached").locator("path.xerror")).to_have_count(len(OF_PROMPTS))
    colours = marks.evaluate_all("marks => marks.map(mark => mark.style.fill)")
    assert len({*colours}) == len(OF_PROMPTS)
    assert all(colour.startswith("rgb") for colour in colours)


def test_faults_are_marked(seen: Report) -> None:
    """Each fault is shaded and named in every chart over time, and its letter explained."""
    for name in ("latency", "failures", "load", "queue"):
        shapes = seen.chart(name).locator(".shapelayer path")
        expect(shapes).to_have_count(3)
        labels = seen.chart(name).locator(".annotation-text").all_text_contents()
        assert labels == ["A fail", "B slow", "C crash"]
    explained = seen.page.locator(".faults li").all_inner_texts()
    assert [text.split()[:3] for text in explained] == [
        ["A", "fail", "server-3,"],
        ["B", "slow", "server-5,"],
        ["C", "crash", "server-3,"],
    ]


@pytest.mark.parametrize("seen", [{"name": "many"}], indirect=True, ids=[""])
def test_many_servers_make_heat_maps(seen: Report) -> None:
    """Of twenty servers, load and queue are images, with their faults framed in their rows."""
    for name in ("load", "queue"):
        image = seen.chart(name).locator(".heatmaplayer image")
        expect(image).to_have_count(1)
        assert image.evaluate("image => image.href.baseVal").startswith("data:image/png")
        rows = seen.chart(name).locator(".ytick").all_text_contents()
        assert rows == [f"server-{number}" for number in range(1, 21)]
        expect(seen.chart(name).locator(".shapelayer path")).to_have_count(4)
        expect(seen.chart(name).locator(".colorbar")).to_have_count(1)
    expect(seen.page.locator("[data-group=servers]")).to_have_count(0)


@pytest.mark.parametrize(
    "seen",
    [
        {"name": "few", "scheme": "light", "size": DESKTOP},
        {"name": "few", "scheme": "dark", "size": DESKTOP},
        {"name": "few", "scheme": "light", "size": PHONE},
        {"name": "many", "scheme": "light", "size": PHONE},
        {"name": "many", "scheme": "dark", "size": DESKTOP},
        {"name": "prompts", "scheme": "dark", "size": DESKTOP},
    ],
    indirect=True,
    ids=["few-light", "few-dark", "few-phone", "many-light", "many-dark", "prompts-dark"],
)
def test_all_text_is_legible(seen: Report) -> None:
    """Every text, in the page and in the charts, has contrast and size."""
    found = seen.page.evaluate(CONTRASTS)
    assert len([each for each in found if each["inPlot"]]) > 40
    assert len([each for each in found if not each["inPlot"]]) > 80
    assert [each for each in found if each["contrast"] < LEGIBLE] == []
    assert [each for each in found if each["size"] < SMALLEST_TEXT] == []


@at_all_sizes
def test_labels_keep_apart_and_all_fits(seen: Report) -> None:
    """Labels do not touch, charts keep to the page, and what is wider scrolls for itself."""
    window = seen.page.viewport_size
    assert window is not None
    assert seen.page.evaluate("document.documentElement.scrollWidth") == window["width"]
    of_prompts = seen.chart(CHARTS_OF_PROMPTS[0]).count()
    for name in (*CHARTS, *CHARTS_OF_PROMPTS) if of_prompts else CHARTS:
        plot = seen.chart(name).locator(".plot")
        if plot.is_hidden():
            continue
        edge = plot.bounding_box()
        assert edge is not None
        assert 0 <= edge["x"] < edge["x"] + edge["width"] <= window["width"]
        for kind in (".xtick text", ".ytick text", ".annotation-text"):
            boxes = plot.locator(kind).evaluate_all(BOXES)
            for box in boxes:
                assert edge["x"] - 1 <= box["left"] < box["right"] <= edge["x"] + edge["width"] + 1
            for place, one in enumerate(boxes):
                for other in boxes[place + 1 :]:
                    apart = (
                        one["right"] <= other["left"] + 1
                        or other["right"] <= one["left"] + 1
                        or one["bottom"] <= other["top"] + 3
                        or other["bottom"] <= one["top"] + 3
                    )
                    assert apart, (name, kind, one, other)


@pytest.mark.parametrize("seen", [{"size": PHONE}], indirect=True, ids=[""])
def test_the_table_scrolls_by_keyboard(seen: Report) -> None:
    """On a phone the table is wider than its region, which takes the focus and the arrow keys."""
    region = seen.page.get_by_role("region", name="Strategies compared")
    region.focus()
    name = region.locator("tbody th").first
    before = name.bounding_box()
    seen.page.keyboard.press("ArrowRight")
    seen.page.wait_for_function(
        "region => region.scrollLeft > 20", arg=region.element_handle(), timeout=5000
    )
    assert name.bounding_box() == before, "the names stay in sight"
    region.evaluate("region => { region.scrollLeft = 0; region.blur(); }")


def test_the_keyboard_reaches_everything(used: Report) -> None:
    """Tab goes through the table, the legends, the selector and the scenario, in this order."""
    # Tab goes on from where the focus was last, so it is put before everything.
    used.page.evaluate("() => { document.body.tabIndex = -1; document.body.focus(); }")
    reached: list[str] = []
    for _ in range(30):
        used.page.keyboard.press("Tab")
        if not reached or reached[-1] != used.focus():
            reached.append(used.focus())
    used.page.evaluate("document.body.removeAttribute('tabindex')")
    assert reached[:5] == ["scroll", "strategies", "strategy", "servers", "summary"]
    expect(used.page.get_by_label("Strategy", exact=True)).to_have_count(1)


def test_another_strategy_by_keyboard(used: Report) -> None:
    """The arrow keys change the charts of the servers, what they say, and what is announced."""
    before = {name: used.drawn(name) for name in CHARTS}
    words = used.words("load")
    used.page.locator("#strategy").focus()
    used.page.keyboard.press("ArrowDown")
    expect(used.page.locator("#status")).to_have_text("The charts show p2c.")
    assert used.drawn("load") != before["load"]
    assert used.drawn("queue") != before["queue"]
    assert used.drawn("latency") == before["latency"]
    assert used.words("load") != words
    expect(used.lines("load")).to_have_count(6)
    used.page.keyboard.press("End")
    expect(used.chart("health").locator(".plot")).to_be_hidden()
    assert "none kept watch" in used.words("health")
    used.page.keyboard.press("Home")
    expect(used.chart("health").locator(".plot")).to_be_visible()
    assert used.drawn("load") == before["load"]


def test_lines_are_hidden_by_keyboard(used: Report) -> None:
    """A name in the legend hides its lines in all charts that it belongs to, and shows them."""
    button = used.page.get_by_role("button", name="p2c", exact=True)
    button.focus()
    used.page.keyboard.press("Space")
    expect(button).to_have_attribute("aria-pressed", "false")
    for name in ("quantiles", "latency", "failures"):
        expect(used.lines(name)).to_have_count(2)
    expect(used.lines("load")).to_have_count(6)
    used.page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(used.lines("quantiles")).to_have_count(3)


def test_the_scenario_opens_by_keyboard(used: Report) -> None:
    """Enter opens it, and its button copies it or selects it for copying."""
    text = used.page.locator("#toml")
    expect(text).to_be_hidden()
    used.page.locator("summary").focus()
    used.page.keyboard.press("Enter")
    expect(text).to_be_visible()
    assert 'name = "few"' in text.inner_text()
    used.page.keyboard.press("Tab")
    assert used.focus() == "copy"
    used.page.keyboard.press("Enter")
    expect(used.page.locator("#copied")).to_have_text("Copied.")
    used.page.locator("summary").focus()
    used.page.keyboard.press("Enter")
    expect(text).to_be_hidden()


def test_charts_follow_the_scheme(used: Report) -> None:
    """When the system turns dark, so do the charts, and back; paper stays light."""
    ground = used.chart("latency").locator(".main-svg").first
    light, dark = "rgb(255, 255, 255)", "rgb(18, 21, 26)"
    expect(ground).to_have_css("background-color", light)
    used.page.emulate_media(color_scheme="dark")
    expect(ground).to_have_css("background-color", dark)
    used.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(ground).to_have_css("background-color", light)
    expect(used.page.locator("body")).to_have_css("background-color", light)
    used.page.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(ground).to_have_css("background-color", dark)
    used.page.emulate_media(color_scheme="light")
    expect(ground).to_have_css("background-color", light)


def test_charts_follow_the_window(used: Report) -> None:
    """A narrower window makes narrower charts."""
    chart = used.chart("latency").locator(".main-svg").first
    used.page.set_viewport_size({"width": 700, "height": 800})
    expect(chart).to_have_css("width", "660px")
    used.page.set_viewport_size({"width": DESKTOP[0], "height": DESKTOP[1]})
    expect(chart).not_to_have_css("width", "660px")


def test_pointing_at_a_line_tells_its_value(used: Report) -> None:
    """Name, value and place, in the units that are spoken."""
    used.point_at_a_marker()
    label = used.chart("quantiles").locator(".hovertext")
    expect(label).to_contain_text("% of the requests within")
    assert any(name in str(label.text_content()) for name in STRATEGIES)


@with_page(name="hostile")
def test_names_run_no_code(opened: Report) -> None:
    """Markup in names is shown as it is written, in the page and in hover labels."""
    attack = "<img src=x onerror=alert(1)></script><script>alert(1)</script>"
    expect(opened.page.locator("h1")).to_have_text(attack)
    expect(opened.page.locator("#strategy option").first).to_have_text(attack)
    expect(opened.page.locator("img")).to_have_count(0)
    opened.point_at_a_marker()
    expect(opened.chart("quantiles").locator(".hovertext")).to_contain_text(attack)


def test_no_other_script_may_run(used: Report) -> None:
    """Even if markup came in, the policy would not run it, nor let anything out."""
    ran = used.page.evaluate(
        "() => { const script = document.createElement('script');"
        " script.textContent = 'window.ran = true'; document.body.append(script);"
        " return Boolean(window.ran); }"
    )
    assert not ran
    fetched = used.page.evaluate("fetch('data:,x').then(() => true, () => false)")
    assert not fetched
    assert used.said
    assert all("Content Security Policy" in said for said in used.said)
    used.said.clear()


@with_page(scripts=False)
def test_without_scripts_the_table_is_there(opened: Report) -> None:
    """And a word on what is not."""
    expect(opened.page.locator("noscript p")).to_be_visible()
    expect(opened.page.locator(".charts").first).to_be_hidden()
    expect(opened.page.get_by_role("row")).to_have_count(1 + len(STRATEGIES))
    opened.page.locator("summary").click()
    expect(opened.page.locator("#toml")).to_be_visible()
