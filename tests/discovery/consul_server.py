"""A server that speaks as much of Consul's HTTP API as a client of ``/v1/health/service`` needs.

Written for these tests from Consul's documents ("Health HTTP Endpoint" and "Blocking Queries"):
each change raises the index; a query with an ``index`` that is not below it waits for a change, for
``wait`` at most; ``passing`` leaves out instances that have a check which does not pass; ``tag``
and ``dc`` choose; a token is asked for if there is one. It is not Consul, and knows no cluster.
"""

from __future__ import annotations

import time
from typing import Any

from tests.discovery.serving import Handler, State, serve

PREFIX = "/v1/health/service/"


class Catalog(State):
    """Instances of services."""

    def __init__(self) -> None:
        super().__init__()
        self.index = 10
        self.services: dict[str, list[dict[str, Any]]] = {}
        self.token = ""
        self.shown_index: str | None = None


CATALOG = Catalog()


class Consul(Handler):
    """Answers queries of a service's health."""

    state = CATALOG

    def answer(self, path: str, query: dict[str, str]) -> None:
        """Answer at once, or when something has changed."""
        if not path.startswith(PREFIX):
            self.send_body(404, "no such path")
            return
        if CATALOG.token and self.headers.get("X-Consul-Token") != CATALOG.token:
            self.send_body(403, "Permission denied: token with AccessorID lacks permission")
            return
        with CATALOG.changed:
            asked = int(query.get("index", "0"))
            end = time.monotonic() + float(query.get("wait", "300000ms").removesuffix("ms")) / 1e3
            while CATALOG.index == asked and time.monotonic() < end:
                CATALOG.changed.wait(end - time.monotonic())
            entries = CATALOG.services.get(path.removeprefix(PREFIX), [])
            index = str(CATALOG.index) if CATALOG.shown_index is None else CATALOG.shown_index
        chosen = [
            entry
            for entry in entries
            if query.get("tag") in (None, *entry["Service"].get("Tags", []))
            and query.get("dc", "dc1") == entry["Node"].get("Datacenter", "dc1")
            and ("passing" not in query or passes(entry))
        ]
        self.send_body(200, chosen, {"X-Consul-Index": index, "X-Consul-Knownleader": "true"})


def passes(entry: dict[str, Any]) -> bool:
    """Tell whether all checks of an instance pass."""
    return all(check["Status"] == "passing" for check in entry.get("Checks", []))


def put(service: str, entries: list[dict[str, Any]]) -> int:
    """List these instances from now on."""
    CATALOG.services[service] = entries
    CATALOG.index += 1
    return CATALOG.index


def index(number: int) -> None:
    """Go on from another index, as after a restore from a snapshot."""
    CATALOG.index = number


def show(text: str | None) -> None:
    """Have answers show this as their index."""
    CATALOG.shown_index = text


def token(text: str) -> None:
    """Ask for a token."""
    CATALOG.token = text


if __name__ == "__main__":
    serve(Consul, {"put": put, "index": index, "show": show, "token": token})
