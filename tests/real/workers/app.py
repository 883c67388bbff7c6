"""A WSGI application that shows its metrics, for gunicorn and uWSGI."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from loadwise import Balancer, Lease, RoundRobin
from loadwise.integrations.prometheus import PrometheusCollector

balancer = Balancer(["a", "b"], RoundRobin(), metrics=PrometheusCollector(), name="search")
held: list[Lease[str]] = []
if "WARM" in os.environ:
    balancer.acquire().success()


def scrape() -> bytes:
    """Return the metrics of all workers."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    for _ in range(100):
        # Another process may be making a file: prometheus/client_python#1199.
        with suppress(struct.error):
            return generate_latest(registry)
    return b""


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Do what the path says; the answer is the process that did it, or the metrics."""
    path = environ["PATH_INFO"]
    text = str(os.getpid()).encode()
    if path == "/succeed":
        balancer.acquire().success()
    elif path == "/cancel":
        balancer.acquire().cancel()
    elif path == "/hold":
        held.append(balancer.acquire())
    elif path == "/metrics":
        text = scrape()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text]
