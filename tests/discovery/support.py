"""What the tests of sources and watchers share: patience, a log, and a list that can be changed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

from loadwise import Balancer, node_id

TIMEOUT = 20.0
"""Seconds after which a test gives up on something that should happen at once."""


def until(holds: Callable[[], object], told: Callable[[], object] = lambda: "") -> None:
    """Return as soon as something holds."""
    end = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < end, told()
        time.sleep(0.002)


def ids(balancer: Balancer[Any]) -> set[object]:
    """The ids of a balancer's members."""
    return {node_id(node) for node in balancer.nodes}


def until_nodes(balancer: Balancer[Any], *wanted: object) -> None:
    """Return as soon as these are a balancer's members."""
    until(lambda: ids(balancer) == set(wanted), lambda: f"{ids(balancer)} is not {set(wanted)}")


class Listed:
    """A function that lists nodes, which can be changed and can fail, and counts its calls."""

    def __init__(self, *nodes: Any) -> None:
        self.nodes: Any = list(nodes)
        self.error: BaseException | None = None
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return self.nodes


class Lines(logging.Handler):
    """The lines of a log, each with its level."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.came = Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}")
        self.came.set()

    def having(self, text: str) -> list[str]:
        """The lines with a text in them."""
        return [line for line in self.lines if text in line]


@contextmanager
def logged() -> Iterator[Lines]:
    """Have what loadwise logs in a list."""
    lines, log = Lines(), logging.getLogger("loadwise")
    before = log.level, log.propagate
    log.addHandler(lines)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield lines
    finally:
        log.removeHandler(lines)
        log.setLevel(before[0])
        log.propagate = before[1]
