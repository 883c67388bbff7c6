"""A browser, and reports that are open in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser
from tests.chromium import running_browser
from tests.simulation.report.browsing import DESKTOP, PHONE, Report
from tests.simulation.report.made import few_servers, hostile, many_servers, prompts

from loadwise.simulation.report import write_report

USUAL = {"name": "few", "scheme": "light", "size": DESKTOP}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser without a window."""
    with running_browser() as running:
        yield running


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The reports, written once."""
    folder = tmp_path_factory.mktemp("reports")
    made = {
        "few": few_servers(),
        "many": many_servers(),
        "prompts": prompts(),
        "hostile": hostile("<img src=x onerror=alert(1)></script><script>alert(1)</script>"),
    }
    for name, comparison in made.items():
        write_report(folder / f"{name}.html", comparison)
    return {name: folder / f"{name}.html" for name in made}


@pytest.fixture
def opened(
    browser: Browser, files: dict[str, Path], request: pytest.FixtureRequest
) -> Iterator[Report]:
    """A report in a page of its own; by default the one on few servers, light, on a desktop."""
    with report_in(browser, files, **getattr(request, "param", {})) as report:
        yield report


@pytest.fixture(scope="module")
def on_show(browser: Browser, files: dict[str, Path]) -> Iterator[Callable[..., Report]]:
    """Reports that are only looked at, so that each has to be drawn but once."""
    shown: dict[str, Report] = {}
    with ExitStack() as stack:

        def show(**wanted: Any) -> Report:
            key = repr(sorted({**USUAL, **wanted}.items()))
            if key not in shown:
                shown[key] = stack.enter_context(report_in(browser, files, **wanted))
            return shown[key]

        yield show


@pytest.fixture
def seen(on_show: Callable[..., Report], request: pytest.FixtureRequest) -> Report:
    """As `opened`, but shared with others that only look at it; the scenario is unfolded."""
    report = on_show(**getattr(request, "param", {}))
    report.page.evaluate("document.querySelector('details').open = true")
    return report


@pytest.fixture
def used(on_show: Callable[..., Report]) -> Iterator[Report]:
    """The report on few servers, shared with others that use it and leave it as they found it."""
    report = on_show(used=True)
    before = report.state()
    yield report
    report.page.mouse.move(0, 0)
    report.page.evaluate("document.activeElement.blur()")
    assert report.state() == before


@contextmanager
def report_in(browser: Browser, files: dict[str, Path], **wanted: Any) -> Iterator[Report]:
    """Open a report.

    Whatever is done to it, the page must not complain and must ask for nothing.
    """
    wanted = {**USUAL, **wanted}
    width, height = wanted["size"]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=wanted["scheme"],
        is_mobile=wanted["size"] == PHONE,
        has_touch=wanted["size"] == PHONE,
        java_script_enabled=wanted.get("scripts", True),
        # A browser with a window grants it by the key that is pressed, a bare shell does not.
        permissions=["clipboard-write"],
    )
    page = context.new_page()
    report = Report(page, files[wanted["name"]])
    page.on("console", lambda message: report.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: report.said.append(str(error)))
    page.on("dialog", lambda dialog: report.said.append(f"dialog: {dialog.message}"))
    page.on("request", lambda sent: report.sent.append(sent.url))
    page.goto(report.file.as_uri())
    yield report
    context.close()
    assert report.said == []
    assert report.sent == [report.file.as_uri()]
