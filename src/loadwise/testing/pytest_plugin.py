"""Fixtures for pytest, to be named in a ``conftest.py``.

``pytest_plugins = ["loadwise.testing.pytest_plugin"]`` there makes them known. They are no entry
point, which pytest would load in all of your projects, whether or not they want it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

from loadwise.testing.fake_fleet import FakeFleet
from loadwise.testing.virtual_time import VirtualClock

__all__ = ["fake_fleet", "pytest_runtest_makereport", "virtual_clock"]

_fleets: pytest.StashKey[list[FakeFleet[Any]]] = pytest.StashKey()


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """Return a clock of virtual time at 0 seconds, the same for all fleets of the test."""
    return VirtualClock()


@pytest.fixture
def fake_fleet(
    request: pytest.FixtureRequest, virtual_clock: VirtualClock
) -> Callable[..., FakeFleet[Any]]:
    """Return what makes a `FakeFleet`; if the test fails, the report shows what it was sent."""
    item: pytest.Item = request.node
    made = item.stash.setdefault(_fleets, [])

    def make(nodes: Any, **options: Any) -> FakeFleet[Any]:  # noqa: ANN401 - those of FakeFleet
        options.setdefault("clock", virtual_clock)
        made.append(FakeFleet(nodes, **options))
        return made[-1]

    return make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a test that failed what its fleets were sent."""
    report = yield
    if report.failed:
        for fleet in item.stash.setdefault(_fleets, []):
            report.sections.append((repr(fleet), str(fleet)))
    return report
