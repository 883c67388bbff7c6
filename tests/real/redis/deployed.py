"""A service as servers run it, for WSGI, ASGI and celery. What it shares is made on import."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import redis

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    NoNodeAvailable,
    QuotaConfig,
    QuotaDimension,
)
from loadwise.health_checks import HealthChecker
from loadwise.integrations.redis import SharedHealth, SharedQuota

PORT, PREFIX = int(os.environ["VALKEY_PORT"]), os.environ["PREFIX"]
# With answers: a busy machine is no outage.
PATIENCE = 5.0

client = redis.Redis(port=PORT)
quota = SharedQuota(client, PREFIX, "leased", slice_share=0.001, timeout=PATIENCE)
quota.register("node", QuotaConfig([QuotaDimension("rpm", limit=100_000)]))
health = SharedHealth(
    client, PREFIX, ConsecutiveFailurePolicy(failure_threshold=1), timeout=PATIENCE
)
balancer = Balancer(["node"], quota=quota, health=health)
checker = HealthChecker(Balancer(["node"]), lambda _: True, interval=0.1)
if "CHECK" in os.environ:
    checker.start()


def use() -> dict[str, Any]:
    """Use one unit of the quota; say how it went, and in what state this process is."""
    retry_after = None
    try:
        balancer.acquire().success()
    except NoNodeAvailable as error:
        retry_after = error.retry_after
    return {
        "pid": os.getpid(),
        "granted": retry_after is None,
        "retry_after": retry_after,
        "connected": [quota.connected, health.connected],
        "checks": checker.running,
        "uwsgi threads": UWSGI_THREADS,
    }


def answer(path: str) -> bytes:
    """Answer a request for a path."""
    if path == "/fail":
        health.report_failure("down")
    return json.dumps(use()).encode()


def application(
    environ: Mapping[str, Any], start_response: Callable[..., object]
) -> Iterable[bytes]:
    """Serve WSGI."""
    start_response("200 OK", [("Content-Type", "application/json")])
    return [answer(environ["PATH_INFO"])]


async def serve(
    scope: Mapping[str, Any],
    receive: Callable[[], Awaitable[Mapping[str, Any]]],
    send: Callable[[Mapping[str, Any]], Awaitable[None]],
) -> None:
    """Serve ASGI, and close what is shared in the end."""
    if scope["type"] == "lifespan":
        while (event := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{event['type']}.complete"})
        quota.close()
        health.close()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = answer(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


try:
    import uwsgi  # type: ignore[import-untyped]  # a module that only uWSGI has
except ImportError:
    UWSGI_THREADS = None
else:
    UWSGI_THREADS = bool(uwsgi.has_threads)
    if "REPLACE" in os.environ:
        uwsgi.post_fork_hook = print

if "CELERY" in os.environ:
    from celery import Celery  # type: ignore[import-untyped]  # it has no types

    app = Celery(
        "deployed", broker=f"redis://localhost:{PORT}/1", backend=f"redis://localhost:{PORT}/1"
    )
    app.conf.task_default_queue = PREFIX

    @app.task  # type: ignore[untyped-decorator]  # as above
    def work(path: str) -> dict[str, Any]:
        """Do what a request for a path does."""
        return dict(json.loads(answer(path)))

    @app.task  # type: ignore[untyped-decorator]  # as above
    def take_too_long() -> None:
        """Hold a lease until the soft time limit strikes."""
        with balancer.acquire():
            time.sleep(60)
