"""A status page of a fleet under load: a node is slow, one dead, one on cooldown, one draining.

    python status_page.py         some load; then what the page says of each node, as lines
    python status_page.py 8080    the page at http://127.0.0.1:8080/, until Ctrl-C

The page has buttons that drain, resume and lift, because it is given a token: here it is "demo".
"""

from __future__ import annotations

import json
import random
import sys
import time
from itertools import count
from threading import Event, Thread
from typing import Any
from wsgiref.util import setup_testing_defaults

from loadwise import Balancer, Endpoint, QuotaConfig, QuotaDimension, QuotaTracker
from loadwise.integrations.status_page import StatusPage

CLIENTS = 8
REQUESTS = 40  # of each client, where there is no page to look at


class RateLimitedError(Exception):
    """Answer 429 of a node."""


def ask(node: Endpoint) -> None:
    """Send a request to a node: here, wait or fail as its server would."""
    if node.id == "api-5":
        raise ConnectionRefusedError("connection refused")
    if node.id == "api-6":
        raise RateLimitedError
    longest = 0.3 if node.id == "api-4" else 0.005
    time.sleep(random.uniform(longest / 2, longest))


def client(balancer: Balancer[Endpoint], stopped: Event, most: int | None) -> None:
    """Send requests until there have been enough, or it is time to stop."""
    for number in count():
        if number == most or stopped.wait(random.uniform(0, 0.02)):
            return
        for attempt in balancer.attempts(3, cost={"rpm": 1}):
            with attempt as lease:
                try:
                    ask(lease.node)
                except RateLimitedError:
                    lease.rate_limited(retry_after=60.0)
                    raise


def fleet() -> Balancer[Endpoint]:
    """Return a balancer of eight nodes, one of which is drained."""
    quota, nodes = QuotaTracker(), list[Endpoint]()
    for number in range(1, 9):
        node = Endpoint(f"api-{number}", zone="ab"[number % 2], tags={"version": "1.4"})
        quota.register(node.id, QuotaConfig([QuotaDimension("rpm", limit=20_000, window=60.0)]))
        nodes.append(node)
    balancer = Balancer(nodes, name="api", quota=quota, max_in_flight=16)
    balancer.drain("api-7")
    return balancer


def told_by(page: StatusPage) -> dict[str, Any]:
    """Return what a program would be told at /status.json; no server is needed for that."""
    environ: dict[str, Any] = {"PATH_INFO": "/status.json"}
    setup_testing_defaults(environ)
    told: dict[str, Any] = json.loads(b"".join(page.wsgi(environ, lambda *_: print)))
    return told


def main() -> None:
    """Run the load, and show the page."""
    balancer = fleet()
    page = StatusPage(balancer, actions=True, token="demo")  # noqa: S106 - yours is a secret
    port = int(sys.argv[1]) if len(sys.argv) > 1 else None
    stopped = Event()
    most = REQUESTS if port is None else None
    clients = [Thread(target=client, args=(balancer, stopped, most)) for _ in range(CLIENTS)]
    for each in clients:
        each.start()
    if port is not None:
        print(f"the page is at http://127.0.0.1:{port}/", flush=True)
        try:
            page.serve(port)
        finally:
            stopped.set()
    for each in clients:
        each.join()
    for node in told_by(page)["balancers"][0]["nodes"]:
        print(f"{node['id']}  {node['state']:9} {node['why']}".rstrip())


if __name__ == "__main__":
    main()
