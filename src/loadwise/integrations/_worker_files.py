"""Metrics of one of several processes, in the files of prometheus_client's multiprocess mode.

Whichever process is scraped, it shows what all have written to their files. Only the metric
classes of prometheus_client write there. So counters and times are written by them as they happen,
and gauges, which nobody asks this process for, once a second.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from threading import RLock, Thread
from time import sleep
from typing import Any, Literal

from prometheus_client import Counter, Gauge, Histogram

from loadwise._fork import call_in_child, is_uwsgi_master
from loadwise._log import log_exception
from loadwise._threads import start_thread
from loadwise.integrations._balancer_metrics import BalancerMetrics
from loadwise.integrations._metric_table import METRICS, SHARED_EVENTS, Merge, Metric, MetricKind
from loadwise.integrations._snapshot import Snapshot

__all__ = ["WorkerFiles"]

_PUBLISH_EVERY = 1.0

_MODES: Mapping[Merge, Literal["livesum", "livemax", "livemin"]] = {
    Merge.SUM: "livesum",
    Merge.MOST: "livemax",
    Merge.LEAST: "livemin",
}
# The number that changes nothing in a sum, a greatest or a least, for nodes that left.
_NOTHING = {Merge.SUM: 0.0, Merge.MOST: 0.0, Merge.LEAST: math.inf}

_READ = tuple(
    metric
    for metric in METRICS
    if metric.kind in {MetricKind.GAUGE, MetricKind.ADDITIVE_GAUGE} or metric is SHARED_EVENTS
)

# prometheus_client has one lock for all that it writes. It is free at the moment of a fork, as far
# as loadwise uses it, so that the child does not find it held for ever.
_writing = RLock()

_Series = tuple[Metric, tuple[str, ...]]


class _WrittenCounter:
    """A counter that is written whenever ``next`` advances it."""

    __slots__ = ("_count", "_files", "_write")

    def __init__(self, files: WorkerFiles, write: Callable[[], object]) -> None:
        self._count = count()
        self._files = files
        self._write = write

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        with _writing:
            self._write()
        if not self._files.publishing:
            self._files.publish_from_now_on()
        return next(self._count)

    def __repr__(self) -> str:
        return repr(self._count)


class WorkerFiles:
    """The metrics of one collector, in this process's files.

    Args:
        bounds: Upper bounds of the histograms' buckets, in seconds.
        shown: Returns what there is to show.

    Attributes:
        publishing: Whether gauges are written, which begins with the first event in a process. So
            a parent that only forks workers shows no gauges of its own.

    Thread-safety: all methods may be called from any thread. A child of a fork has files of its
    own, and what its parent has counted stays in the parent's.

    Cost: O(1) per event, about a microsecond; O(nodes) per second in a daemon thread.
    """

    def __init__(
        self, bounds: Sequence[float], shown: Callable[[], Sequence[BalancerMetrics[Any]]]
    ) -> None:
        self._shown = weakref.WeakMethod(shown)
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._timers: dict[str, Histogram] = {}
        for metric in METRICS:
            name, labels = metric.prometheus_name, ("balancer", *metric.labels)
            if metric.kind is MetricKind.COUNTER:
                self._counters[metric.name] = Counter(name, metric.help, labels, registry=None)
            elif metric.kind is MetricKind.HISTOGRAM:
                self._timers[metric.name] = Histogram(
                    name, metric.help, labels, registry=None, buckets=bounds
                )
            else:
                self._gauges[metric.name] = Gauge(
                    name,
                    metric.help,
                    labels,
                    registry=None,
                    multiprocess_mode=_MODES[metric.merge],
                )
        self._written: dict[_Series, float] = {}
        self._complaints = [None]
        self.publishing = False
        _all_files.add(self)

    def counter(self, metric: str, balancer: str, *labels: str) -> Iterator[int]:
        """Return a counter that ``next`` advances, here and in the file."""
        with _writing:
            return _WrittenCounter(self, self._counters[metric].labels(balancer, *labels).inc)

    def timer(self, metric: str, balancer: str, *labels: str) -> Callable[[float], None]:
        """Return a function that records seconds in a histogram in the file."""
        with _writing:
            write = self._timers[metric].labels(balancer, *labels).observe

        def observe(seconds: float) -> None:
            with _writing:
                write(seconds)

        return observe

    def publish_from_now_on(self) -> None:
        """Write the gauges, now and once a second, in a thread of their own."""
        if is_uwsgi_master():  # it only forks; a thread of its own might hold a lock meanwhile
            return
        self.publishing = True
        thread = Thread(
            target=_keep_publishing, args=(weakref.ref(self),), name="loadwise-metrics", daemon=True
        )
        try:
            start_thread(thread)
        except RuntimeError:  # no more threads, or the process is about to end
            self.publishing = False

    def go_on_in_child(self) -> None:
        """Go on in the child of a fork, with files of its own, in which all is 0."""
        # What is counted from here on is the child's; the rest is in the parent's files.
        self._written = self._numbers([SHARED_EVENTS])
        if self.publishing:
            self.publish_from_now_on()

    def publish(self) -> None:
        """Write the gauges as they are now. O(nodes)."""
        numbers = self._numbers(_READ)
        for series, number in numbers.items():
            before = self._written.get(series)
            if number != before:
                self._write(series, number, before)
        for series in self._written.keys() - numbers.keys():
            if not _is_counter(series[0]):
                self._write(series, _NOTHING[series[0].merge], None)
                del self._written[series]

    def _numbers(self, metrics: Sequence[Metric]) -> dict[_Series, float]:
        shown = self._shown()
        return {
            (metric, (snapshot.name, *labels)): number
            for snapshot in map(Snapshot, shown() if shown is not None else ())
            for metric in metrics
            if metric.read is not None
            for labels, number in metric.read(snapshot)
        }

    def _write(self, series: _Series, number: float, before: float | None) -> None:
        metric, labels = series
        with _writing:
            if _is_counter(metric):
                # Its source may have begun again, as a balancer's successor with its own quota.
                more = max(0.0, number - (before or 0.0))
                self._counters[metric.name].labels(*labels).inc(more)
            else:
                self._gauges[metric.name].labels(*labels).set(number)
            self._written[series] = number

    def complain(self) -> None:
        """Log the exception being handled, the first time."""
        with suppress(IndexError):
            self._complaints.pop()
            log_exception("gauges could not be written; further failures are not logged")


def _is_counter(metric: Metric) -> bool:
    return metric.kind is MetricKind.COUNTER


def _keep_publishing(files: weakref.ref[WorkerFiles]) -> None:
    while (present := files()) is not None:
        try:
            present.publish()
        except Exception:  # noqa: BLE001 - a quota or a budget of the user's may raise
            present.complain()
        del present
        sleep(_PUBLISH_EVERY)


_all_files: weakref.WeakSet[WorkerFiles] = weakref.WeakSet()


def _go_on_in_child() -> None:
    for files in list(_all_files):
        files.go_on_in_child()


call_in_child(_go_on_in_child)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_writing.acquire, after_in_parent=_writing.release, after_in_child=_writing.release
    )
