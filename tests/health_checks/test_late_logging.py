"""Checkers and watchers in the child of a fork whose parent imported `logging` after loadwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import loadwise
assert "logging" not in sys.modules

import os, threading
from loadwise import Balancer, HealthStatus, HealthTracker, NoopCollector

parent = os.getpid()
locked, tried, forked = threading.Event(), threading.Event(), threading.Event()

def between():
    # Called after the resets of loadwise, and before logging's.
    if threading.active_count() > 1:
        assert tried.wait(20)

os.register_at_fork(after_in_child=between)

import logging

class Handler(logging.Handler):
    def acquire(self):
        tried.set()
        super().acquire()

    def emit(self, record):
        pass

handler = Handler()
log = logging.getLogger("script")
log.addHandler(handler)
log.setLevel(logging.INFO)
log.info("whether this is logged is known from now on, without a lock")
logged = threading.Event()

def look(*given):
    if os.getpid() != parent:
        log.info("from a thread of the child's")
        logged.set()
    return RETURNED

def hold():
    with handler.lock:
        locked.set()
        assert forked.wait(20)

balancer = Balancer(["a"])
STARTED
holder = threading.Thread(target=hold)
holder.start()
assert locked.wait(20)
tried.clear()
child = os.fork()
if child == 0:
    os._exit(0 if logged.wait(5) else 1)
forked.set()
holder.join()
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, "a thread of the child's waits for a lock"
running.stop()
print("end")
"""

CHECKER = """
from loadwise.health_checks import HealthChecker
running = HealthChecker(balancer, look, interval=0.01)
running.start()
"""

WATCHER = """
from loadwise.discovery import CallableSource, Watcher
running = Watcher(balancer, CallableSource(look, interval=0.01))
running.start()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(
    ("started", "returned"), [(CHECKER, "True"), (WATCHER, '["a"]')], ids=["checker", "watcher"]
)
def test_no_thread_of_a_child_begins_before_the_log_is_fit_for_it(
    started: str, returned: str
) -> None:
    """In the moment of the fork another thread of the parent's holds the lock of a log handler."""
    script = SCRIPT.replace("STARTED", started).replace("RETURNED", returned)
    run = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.stdout, run.returncode) == ("end\n", 0), run.stderr
