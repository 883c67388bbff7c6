"""The Prometheus collector in several workers, under a real gunicorn, scraped over HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from time import monotonic, sleep

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.ports import free_port

HERE = Path(__file__).parent
TIMEOUT = 60.0
WORKERS = 4

Samples = dict[str, dict[tuple[str, ...], float]]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="gunicorn needs fork")


class Site:
    """A gunicorn with four workers."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, path: str) -> str:
        """Send one request, on a connection of its own, so that any worker may take it."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        assert answer.status == 200, text
        return text

    def is_up(self) -> bool:
        try:
            self.ask("/")
        except OSError:
            return False
        return True

    def ask_all(self, path: str, least: int) -> Counter[int]:
        """Send so many requests at least, until each worker has had one; tell who had how many."""
        seen: Counter[int] = Counter()
        end = monotonic() + TIMEOUT
        with ThreadPoolExecutor(8) as pool:
            while seen.total() < least or len(seen) < WORKERS:
                assert monotonic() < end, f"not all workers were reached: {seen}"
                seen.update(map(int, pool.map(self.ask, [path] * 40)))
        return seen

    def samples(self) -> Samples:
        found: Samples = {}
        for family in text_string_to_metric_families(self.ask("/metrics")):
            for name, labels, value, *_ in family.samples:
                key = tuple(labels[label] for label in sorted(labels))
                found.setdefault(name, {})[key] = value
        return found

    def until(self, name: str, total: float) -> Samples:
        """Scrape until the series of a gauge add up to ``total``."""
        end = monotonic() + TIMEOUT
        while True:
            samples = self.samples()
            if sum(samples.get(name, {}).values()) == total:
                return samples
            assert monotonic() < end, f"{name} is {samples.get(name)}, not {total} in all"
            sleep(0.05)


@contextmanager
def site(directory: Path, *options: str) -> Iterator[Site]:
    """Run gunicorn until the block ends."""
    files = directory / "files"
    files.mkdir()
    port = free_port()
    command = [
        sys.executable, "-m", "gunicorn", "--workers", str(WORKERS), "--bind", f"127.0.0.1:{port}",
        "--config", str(HERE / "gunicorn_conf.py"), "--chdir", str(HERE), "--no-control-socket",
        "--log-level", "warning", *options, "app:app",
    ]  # fmt: skip
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(files)}
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        it, end = Site(port), monotonic() + TIMEOUT
        while not it.is_up():
            assert process.poll() is None, (directory / "log").read_text()
            assert monotonic() < end
            sleep(0.05)
        yield it
    finally:
        process.terminate()
        process.wait(TIMEOUT)


@pytest.mark.parametrize(
    "options", [(), ("--preload",), ("--worker-class", "gthread", "--threads", "4")]
)
def test_the_totals_over_workers_equal_what_was_sent(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Whichever worker is scraped; however workers are made, and with threads in each."""
    with site(tmp_path, *options) as gunicorn:
        well = gunicorn.ask_all("/succeed", 200).total()
        cancelled = gunicorn.ask_all("/cancel", 40).total()
        held = gunicorn.ask_all("/hold", 40)
        for _ in range(4):
            samples = gunicorn.samples()
            requests = samples["loadwise_requests_total"]
            by_outcome = Counter[str]()
            for (_, _, outcome), number in requests.items():
                by_outcome[outcome] += int(number)
            assert +by_outcome == {"success": well, "cancelled": cancelled}
            picks = well + cancelled + held.total()
            assert sum(samples["loadwise_picks_total"].values()) == picks
            assert samples["loadwise_picks_total"].keys() == {
                ("search", "a", "RoundRobin"), ("search", "b", "RoundRobin"),
            }  # fmt: skip
            durations = samples["loadwise_request_duration_seconds_count"]
            assert sum(durations.values()) == well
            buckets = samples["loadwise_request_duration_seconds_bucket"]
            assert buckets["search", "+Inf", "a"] == durations["search", "a"]
        gunicorn.until("loadwise_requests_in_flight", held.total())
        # Each worker has a view of its own of both nodes, and the parent that only forks has none.
        samples = gunicorn.until("loadwise_node_health", WORKERS * 2)
        assert samples["loadwise_node_health"]["search", "a", "healthy"] == WORKERS


def test_of_a_worker_that_is_killed_the_counts_stay_and_the_gauges_go(tmp_path: Path) -> None:
    """A SIGKILL costs no count; what it had in flight is in flight no more."""
    with site(tmp_path) as gunicorn:
        held = gunicorn.ask_all("/hold", 40)
        gunicorn.until("loadwise_requests_in_flight", held.total())
        killed = next(iter(held))
        os.kill(killed, signal.SIGKILL)
        samples = gunicorn.until("loadwise_requests_in_flight", held.total() - held[killed])
        assert sum(samples["loadwise_picks_total"].values()) == held.total()
        more = gunicorn.ask_all("/succeed", 40)
        assert killed not in more
        samples = gunicorn.samples()
        assert sum(samples["loadwise_picks_total"].values()) == held.total() + more.total()
