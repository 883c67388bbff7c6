"""A server that speaks as much of the Kubernetes API as a client of EndpointSlices needs.

Written for these tests from the Kubernetes documents ("API concepts": efficient detection of
changes, watch bookmarks, retrieving large results sets in chunks, 410 Gone) and the reference of
EndpointSlice, discovery.k8s.io/v1: each change has a resourceVersion of its own; a list may be
read in pages; a watch tells all that happened after a version, one JSON text per line, with
bookmarks if they are wanted, and ends after its time; a version that is too old is 410, be it as
status or as an event. It is not Kubernetes, and knows no other kind of object.
"""

from __future__ import annotations

import json
import time
from typing import Any

from tests.discovery.serving import Handler, State, serve

KIND = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice"}
LABEL = "kubernetes.io/service-name"


class Cluster(State):
    """Slices by namespace and name, and what happened to them."""

    def __init__(self) -> None:
        super().__init__()
        self.version = 100
        self.oldest = 0
        self.slices: dict[tuple[str, str], dict[str, Any]] = {}
        self.history: list[tuple[int, str, dict[str, Any]]] = []
        self.token = ""
        self.cut = 0  # raised to end all watches
        self.noise: list[str] = []


CLUSTER = Cluster()


def gone() -> dict[str, Any]:
    """The status of a version that is no longer known."""
    text = "too old resource version"
    return {
        "kind": "Status",
        "status": "Failure",
        "reason": "Expired",
        "code": 410,
        "message": text,
    }


class Kubernetes(Handler):
    """Lists and watches slices."""

    state = CLUSTER

    def answer(self, path: str, query: dict[str, str]) -> None:
        """Answer a list, or begin a watch."""
        parts = path.split("/")
        if parts[:5] != ["", "apis", "discovery.k8s.io", "v1", "namespaces"]:
            self.send_body(404, {"kind": "Status", "code": 404})
            return
        if CLUSTER.token and self.headers.get("Authorization") != f"Bearer {CLUSTER.token}":
            self.send_body(401, {"kind": "Status", "message": "Unauthorized", "code": 401})
            return
        label, _, service = query.get("labelSelector", "").partition("=")
        assert label == LABEL
        if query.get("watch") in {"1", "true"}:
            self.watch(parts[5], service, query)
        else:
            self.list(parts[5], service, query)

    def list(self, namespace: str, service: str, query: dict[str, str]) -> None:
        """Send one page."""
        with CLUSTER.changed:
            version = CLUSTER.version
            items = [
                item
                for (space, _), item in sorted(CLUSTER.slices.items())
                if space == namespace and item["metadata"]["labels"][LABEL] == service
            ]
        begin, limit = int(query.get("continue", "0")), int(query.get("limit", "0"))
        meta: dict[str, Any] = {"resourceVersion": str(version)}
        if limit and begin + limit < len(items):
            meta["continue"] = str(begin + limit)
        page = items[begin : begin + limit] if limit else items
        self.send_body(200, {**KIND, "kind": "EndpointSliceList", "metadata": meta, "items": page})

    def watch(self, namespace: str, service: str, query: dict[str, str]) -> None:
        """Send what happens, until the time is over."""
        version = int(query["resourceVersion"])
        if version < CLUSTER.oldest:
            self.send_body(410, gone())
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with CLUSTER.changed:
            cut = CLUSTER.cut
        end = time.monotonic() + float(query.get("timeoutSeconds", "1800"))
        while time.monotonic() < end:
            with CLUSTER.changed:
                news = [each for each in CLUSTER.history if each[0] > version]
                noise, CLUSTER.noise = CLUSTER.noise, []
                if CLUSTER.cut != cut or version < CLUSTER.oldest:
                    break
                if not news and not noise:
                    CLUSTER.changed.wait(end - time.monotonic())
                    continue
            lines = [*noise]
            for number, kind, thing in news:
                version = number
                mine = kind == "BOOKMARK" and query.get("allowWatchBookmarks") == "true"
                if kind != "BOOKMARK":
                    meta = thing["metadata"]
                    mine = meta["namespace"] == namespace and meta["labels"][LABEL] == service
                if mine:
                    lines.append(json.dumps({"type": kind, "object": thing}))
            self.chunk("".join(f"{line}\n" for line in lines))
        if version < CLUSTER.oldest and CLUSTER.cut == cut:
            self.chunk(f"{json.dumps({'type': 'ERROR', 'object': gone()})}\n")
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, text: str) -> None:
        """Send a chunk, in two pieces so that lines come in parts."""
        content = text.encode()
        if content:
            half = len(content) // 2 or 1
            for piece in (content[:half], content[half:]):
                if piece:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    self.wfile.flush()


def happen(kind: str, thing: dict[str, Any]) -> str:
    """Note what has happened, with a version of its own."""
    CLUSTER.version += 1
    thing["metadata"]["resourceVersion"] = str(CLUSTER.version)
    CLUSTER.history.append((CLUSTER.version, kind, thing))
    return str(CLUSTER.version)


def put(namespace: str, service: str, name: str, content: dict[str, Any]) -> str:
    """Make or change a slice."""
    key = (namespace, name)
    kind = "MODIFIED" if key in CLUSTER.slices else "ADDED"
    meta = {"name": name, "namespace": namespace, "labels": {LABEL: service}}
    CLUSTER.slices[key] = {**KIND, "metadata": meta, **content}
    return happen(kind, json.loads(json.dumps(CLUSTER.slices[key])))


def delete(namespace: str, name: str) -> str:
    """Delete a slice."""
    return happen("DELETED", CLUSTER.slices.pop((namespace, name)))


def bookmark() -> str:
    """Tell all watches how far they are."""
    return happen("BOOKMARK", {**KIND, "metadata": {}})


def compact() -> None:
    """Forget what has happened, so that older versions are too old."""
    CLUSTER.history = []
    CLUSTER.oldest = CLUSTER.version = CLUSTER.version + 1
    for thing in CLUSTER.slices.values():
        thing["metadata"]["resourceVersion"] = str(CLUSTER.version)


def cut() -> None:
    """End all watches."""
    CLUSTER.cut += 1


def noise(*lines: str) -> None:
    """Have lines sent in a watch that are no events."""
    CLUSTER.noise.extend(lines)


def token(text: str) -> None:
    """Ask for a token."""
    CLUSTER.token = text


def drop(name: str) -> None:
    """Take a slice out without telling any watch, as a list after an outage finds it."""
    CLUSTER.slices = {key: each for key, each in CLUSTER.slices.items() if key[1] != name}


if __name__ == "__main__":
    ORDERS = (put, delete, bookmark, compact, cut, noise, token, drop)
    serve(Kubernetes, {order.__name__: order for order in ORDERS})
