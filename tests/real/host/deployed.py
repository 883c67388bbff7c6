"""A WSGI service whose workers share a host's picture; what it shares is made on import."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from loadwise import Balancer, Lease
from loadwise.shared_memory import HostState

host = HostState(os.environ["HOST_STATE"])
balancer = Balancer(["a", "b"], host=host, max_in_flight=100)
held: list[Lease[str]] = []
if "WARM" in os.environ:
    balancer.acquire().success()


def answer(path: str) -> dict[str, Any]:
    """Do what a path says; tell what this process sees."""
    if path == "/hold":
        held.append(balancer.acquire())
    elif path == "/end":
        while held:
            held.pop().success()
    else:
        balancer.acquire().success()
    return {
        "pid": os.getpid(),
        "shared": host.is_shared,
        "in flight": sum(each.in_flight for each in balancer.status()),
    }


def application(
    environ: Mapping[str, Any], start_response: Callable[..., object]
) -> Iterable[bytes]:
    """Serve WSGI."""
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer(environ["PATH_INFO"])).encode()]


async def asgi(scope: Mapping[str, Any], _receive: object, send: Callable[..., Any]) -> None:
    """Serve ASGI."""
    if scope["type"] == "http":
        body = json.dumps(answer(scope["path"])).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


if "CELERY" in os.environ:
    from celery import Celery  # type: ignore[import-untyped]  # it has no types

    folder = os.environ["CELERY"]
    app = Celery("deployed", broker="filesystem://", backend=f"file://{folder}/results")
    app.conf.broker_transport_options = {
        "data_folder_in": f"{folder}/tasks",
        "data_folder_out": f"{folder}/tasks",
        "control_folder": f"{folder}/control",
    }

    @app.task  # type: ignore[untyped-decorator]  # as above
    def work(path: str) -> dict[str, Any]:
        """Do what a request for a path does."""
        return answer(path)
