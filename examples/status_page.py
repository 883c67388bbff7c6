"""A status page for a fleet under load: one node slow, one dead, one on cooldown, one draining.

    python status_page.py         a few seconds of load; then what the page says, as lines
    python status_page.py 8080    the page at http://127.0.0.1:8080/, until Ctrl-C

The page shows a button for each action, because it is given a token: here it is "demo".
"""

from __future__ import annotations

import random
import sys
import time
from threading import Event, Thread
from typing import Any

from loadwise import Balancer, Endpoint, NoNodeAvailable, QuotaConfig, QuotaDimension, QuotaTracker
from loadwise.integrations.status_page import StatusPage

CLIENTS = 8
SECONDS = {"api-4": 0.08}  # the slow one; the others answer within 5 ms


class RateLimitedError(Exception):
    """Answer 429 of a node."""


def ask(node: Endpoint) -> None:
    """Send a request; here, wait and fail as its server would."""
    if node.id == "api-5":
        raise ConnectionRefusedError("connection refused")
    if node.id == "api-6" and random.random() < 0.2:
        raise RateLimitedError
    time.sleep(random.uniform(0.5, 1.0) * SECONDS.get(str(node.id), 0.005))


def client(balancer: Balancer[Endpoint], stopped: Event) -> None:
    """Send requests until it is time to stop."""
    while not stopped.wait(random.uniform(0, 0.02)):
        for attempt in balancer.attempts(3, cost={"rpm": 1}):
            try:
                with attempt as lease:
                    try:
                        ask(lease.node)
                    except RateLimitedError:
                        lease.rate_limited(retry_after=60.0)
            except NoNodeAvailable:
                stopped.wait(0.1)


def fleet() -> Balancer[Endpoint]:
    """Return a balancer of eight nodes, one of which is being drained."""
    nodes = [
        Endpoint(f"api-{number}", zone="ab"[number % 2], tags={"version": "1.4"})
        for number in range(1, 9)
    ]
    quota = QuotaTracker()
    for node in nodes:
        quota.register(node.id, QuotaConfig([QuotaDimension("rpm", limit=20_000, window=60.0)]))
    balancer = Balancer(nodes, name="api", quota=quota, max_in_flight=16)
    balancer.drain("api-7")
    return balancer


def call(page: StatusPage, path: str) -> dict[str, Any]:
    """Ask the page as a program would: no server is needed for that."""
    import json  # noqa: PLC0415

    (body,) = page.wsgi({"REQUEST_METHOD": "GET", "PATH_INFO": path}, lambda *_: print)
    told: dict[str, Any] = json.loads(body)
    return told


def main() -> None:
    """Run the load, and show the page."""
    balancer = fleet()
    page = StatusPage(balancer, actions=True, token="demo")
    stopped = Event()
    clients = [Thread(target=client, args=(balancer, stopped)) for _ in range(CLIENTS)]
    for each in clients:
        each.start()
    try:
        if len(sys.argv) > 1:
            print(f"the page is at http://127.0.0.1:{sys.argv[1]}/ ; Ctrl-C ends it")
            page.serve(int(sys.argv[1]))
        else:
            time.sleep(3)
            (told,) = call(page, "/status.json")["balancers"]
            for node in told["nodes"]:
                print(f"{node['id']}  {node['state']:10}{node['why']}")
    finally:
        stopped.set()
        for each in clients:
            each.join()


if __name__ == "__main__":
    main()
