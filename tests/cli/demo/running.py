"""A demo that runs as its users run it, and what became of its processes."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Timer

DEADLINE = 60.0
_END = 20.0
LONG = ("--requests", "8000")
"""So many that the first server is killed seconds after a tenth of them are through."""

Demo = subprocess.Popen[str]


@contextmanager
def demo(*arguments: str, **environment: str) -> Generator[Demo, None, None]:
    """A running demo with its output in a pipe; killed if it hangs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "loadwise", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "80", "PYTHONUNBUFFERED": "1", **environment},
    )
    watchdog = Timer(DEADLINE, process.kill)
    watchdog.start()
    try:
        with process:
            yield process
    finally:
        watchdog.cancel()
        process.kill()


def read_until(process: Demo, text: str) -> str:
    """Return the output up to the line that contains ``text``."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"{text!r} never came; there was:\n{''.join(lines)}")


def pids_in(output: str) -> list[int]:
    """Return the processes that the output names."""
    return [int(pid) for pid in re.findall(r"pid (\d+)", output)]


def alive(pids: list[int]) -> list[int]:
    """Return the processes that exist."""
    found = []
    for pid in pids:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        found.append(pid)
    return found


@contextmanager
def ends_of(pids: list[int]) -> Generator[Callable[[], bool], None, None]:
    """Watch processes that are nobody's children; gives what waits until all have ended."""
    watched = [os.pidfd_open(pid) for pid in pids]

    def all_have_ended() -> bool:
        waiting = set(watched)
        deadline = time.monotonic() + _END
        while waiting and (left := deadline - time.monotonic()) > 0:
            waiting -= set(select.select(waiting, [], [], left)[0])
        return not waiting

    try:
        yield all_have_ended
    finally:
        for descriptor in watched:
            os.close(descriptor)
