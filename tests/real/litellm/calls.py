"""Calls of a litellm Router that asks a balancer, and what came of them, as JSON.

A process of its own, because litellm takes long to import. Run as a script with the port of a
provider (see ``tests/real/llm/provider.py``); it prints one object with an entry for each function
below that begins with ``case_``.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # before it is imported: no download

import litellm
from litellm import Router
from litellm.router_api import ChangeSet
from litellm.types.router import Deployment
from tests.ports import free_port

from loadwise import (
    Balancer,
    ConsistentHash,
    NoopCollector,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RoundRobin,
)
from loadwise.integrations.litellm import NoDeploymentError, use_loadwise

PROVIDER = f"http://127.0.0.1:{sys.argv[1]}"
PROMPT: Any = [{"role": "user", "content": "Say hi."}]
PATIENCE = 20.0
NAMES = (f"n{number}" for number in count())


class Outcomes(NoopCollector):
    """Remembers how requests ended, and of whom."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_outcome(self, node_id: object, outcome: Any, latency: float) -> None:
        self.seen.append(f"{str(node_id).partition('-')[2]} {outcome.name}")


class Fleet:
    """A router over nodes of the provider, and its balancer.

    Args:
        scripts: How each node answers, by its name.
        strategy: Who chooses; else they take turns.
        router: Arguments of the router, beyond.
        balancer: Arguments of the balancer, beyond.
    """

    def __init__(
        self,
        scripts: dict[str, dict[str, Any]],
        strategy: Any = None,
        router: dict[str, Any] | None = None,
        **balancer: Any,
    ) -> None:
        self.place = next(NAMES)
        for name, script in scripts.items():
            self.tell(name, **script)
        self.outcomes = Outcomes()
        told = {"num_retries": 2, "retry_after": 0, "disable_cooldowns": True} | (router or {})
        models = told.pop("model_list", None) or [self.deployment(name) for name in scripts]
        self.router: Any = Router(model_list=models, **told)
        self.balancer: Balancer[Any] = use_loadwise(
            self.router, strategy or RoundRobin(start=0), metrics=self.outcomes, **balancer
        )

    def deployment(self, name: str, group: str = "chat", **extra: Any) -> dict[str, Any]:
        """Return a deployment, as a router takes it."""
        told = {"model": "openai/m", "api_key": "k", "api_base": f"{PROVIDER}/{self.id(name)}/v1"}
        return {
            "model_name": group,
            "litellm_params": told | extra,
            "model_info": {"id": self.id(name)},
        }

    def id(self, name: str) -> str:
        """Return the id of a node, which is its place at the provider, too."""
        return f"{self.place}-{name}"

    def tell(self, name: str, **script: Any) -> None:
        """Have a node answer so from now on."""
        ask(f"/{self.id(name)}", json.dumps({"finish": "stop", **script}).encode(), "PUT")

    def asked(self, *names: str) -> list[int]:
        """Return how many prompts the nodes have been asked."""
        return [int(ask(f"/{self.id(name)}")) for name in names]

    def call(self, **more: Any) -> Any:
        """Send a prompt."""
        return self.router.completion(model="chat", messages=PROMPT, **more)

    async def acall(self, **more: Any) -> Any:
        """Send a prompt, in asyncio."""
        return await self.router.acompletion(model="chat", messages=PROMPT, **more)

    def ended(self, number: int) -> list[str]:
        """Return how requests ended, once so many have, and none is in flight."""
        until(lambda: len(self.outcomes.seen) >= number and not self.in_flight)
        return self.outcomes.seen

    async def ended_async(self, number: int) -> list[str]:
        """Do the same and let the loop go on."""
        return await asyncio.to_thread(self.ended, number)

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return sum(status.in_flight for status in self.balancer.status())


def ask(path: str, body: bytes | None = None, method: str = "GET") -> bytes:
    """Ask the provider."""
    request = urllib.request.Request(PROVIDER + path, body, method=method)  # noqa: S310 - ours
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - as above
        told: bytes = answer.read()
        return told


def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds, for no longer than some patience."""
    end = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < end:
        gc.collect()  # as the collector does in the end
        time.sleep(0.01)


def error_of(call: Callable[[], Any]) -> Any:
    """Return the error that a call raises."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - it is told
        return error
    return None


FAILING = {"status": 500, "body": {"error": {"message": "no"}}}


def case_retries_go_to_others() -> Any:
    """Two of three fail: each is asked once."""
    fleet = Fleet({"a": FAILING, "b": FAILING, "c": {}})
    content = fleet.call().choices[0].message.content
    return [content, fleet.asked("a", "b", "c"), fleet.ended(3)]


async def case_many_at_once() -> Any:
    """One of three fails; nobody notices, though all share one dictionary of metadata."""
    fleet = Fleet({"a": {}, "b": FAILING, "c": {}})
    shared = {"user": "ada"}
    answers = await asyncio.gather(*(fleet.acall(metadata=shared) for _ in range(30)))
    seen = await fleet.ended_async(31)
    return [
        len(answers),
        seen.count("a SUCCESS") + seen.count("c SUCCESS"),
        seen.count("b FAILURE") == len(seen) - 30,
        [status.health.name for status in fleet.balancer.status()],
        shared,
    ]


def case_threads() -> Any:
    """Many threads, one router."""
    fleet = Fleet({"a": {}, "b": FAILING})
    threads = [threading.Thread(target=fleet.call) for _ in range(10)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    seen = fleet.ended(11)
    return [seen.count("a SUCCESS"), set(seen) == {"a SUCCESS", "b FAILURE"}]


def case_stream() -> Any:
    """The lease is held until the stream has been read."""
    fleet = Fleet({"a": {}})
    held = [fleet.in_flight for _ in fleet.call(stream=True)]
    return [held[0], fleet.ended(1)]


async def case_stream_async() -> Any:
    """The same, in asyncio."""
    fleet = Fleet({"a": {}})
    held = [fleet.in_flight async for _ in await fleet.acall(stream=True)]
    return [held[0], await fleet.ended_async(1)]


async def case_stream_breaks() -> Any:
    """A stream that ends with an error is a failure."""
    fleet = Fleet({"a": {"stream": "error"}}, router={"num_retries": 0})
    with suppress(Exception):
        async for _ in await fleet.acall(stream=True):
            pass
    return await fleet.ended_async(1)


async def case_stream_is_left() -> Any:
    """Who leaves it says nothing of the deployment."""
    fleet = Fleet({"a": {}})
    async for _ in await fleet.acall(stream=True):
        break
    return await fleet.ended_async(1)


async def case_cancelled() -> Any:
    """Nobody tells of it, and yet the lease ends."""
    fleet = Fleet({"a": {"hold": 1_000}})
    task = asyncio.create_task(fleet.acall())
    await asyncio.to_thread(until, lambda: fleet.asked("a") == [1])
    held = fleet.in_flight
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    del task
    return [held, await fleet.ended_async(1)]


def case_rate_limited() -> Any:
    """A cooldown as long as was asked for; others are asked meanwhile."""
    limited = {"status": 429, "headers": {"Retry-After": "30"}, "body": {"error": {}}}
    fleet = Fleet({"a": limited, "b": {}})
    for _ in range(5):
        fleet.call()
    fleet.ended(6)
    cooldown: Any = fleet.balancer.status()[0].cooldown
    health = fleet.balancer.status()[0].health.name
    return [fleet.asked("a", "b"), 20 < cooldown.seconds_left <= 30, health]


def case_wrong_prompt() -> Any:
    """A 400 is an answer."""
    wrong = {"status": 400, "body": {"error": {"message": "no such thing"}}}
    fleet = Fleet({"a": wrong}, router={"num_retries": 0})
    error = error_of(fleet.call)
    return [type(error).__name__, fleet.ended(1)]


def case_refused_key() -> Any:
    """A 401 is the deployment's."""
    fleet = Fleet({"a": {"status": 401, "body": {"error": {"message": "no"}}}, "b": {}})
    fleet.call()
    return fleet.ended(2)


async def case_timeout() -> Any:
    """No answer in time: its failure, and another is asked."""
    fleet = Fleet({"a": {"hold": 1_000}, "b": {}})
    await fleet.acall(timeout=0.5)
    return await fleet.ended_async(2)


def case_nobody_listens() -> Any:
    """A connection that is refused."""
    fleet = Fleet({"a": {}, "b": {}})
    dead = fleet.deployment("dead", api_base=f"http://127.0.0.1:{free_port()}/v1")
    fleet = Fleet({"b": {}}, router={"model_list": [dead, fleet.deployment("b")]})
    fleet.call()
    return fleet.ended(2)


async def case_fallback() -> Any:
    """Another group of models: it is chosen by the balancer, too."""
    fleet = Fleet({"a": FAILING, "spare": {}})
    models = [fleet.deployment("a"), fleet.deployment("spare", "spare")]
    more = {"model_list": models, "fallbacks": [{"chat": ["spare"]}], "num_retries": 1}
    place, fleet = fleet.place, Fleet({}, router=more)
    fleet.place = place
    await fleet.acall()
    return await fleet.ended_async(3)


def case_members_follow() -> Any:
    """Deployments come and go while the router is used."""
    fleet = Fleet({"a": {}, "b": {}, "c": {}}, router=None)
    names = []
    fleet.router.apply(ChangeSet(delete=[fleet.id("a")]))
    fleet.call()
    names.append(sorted(str(node.id)[-1] for node in fleet.balancer.nodes))
    fleet.tell("d")
    fleet.router.apply(ChangeSet(upsert=[Deployment(**fleet.deployment("d", weight=3))]))
    for _ in range(6):
        fleet.call()
    names.append(sorted(str(node.id)[-1] for node in fleet.balancer.nodes))
    weights = {str(node.id)[-1]: node.weight for node in fleet.balancer.nodes}
    return [names, weights["d"], fleet.asked("a")[0], min(fleet.asked("b", "c", "d")) >= 2]


async def case_filters_hold() -> Any:
    """What litellm does not list for a request is not chosen."""
    fleet = Fleet({"a": {}, "b": {}})
    models = [fleet.deployment("a", tags=["free"]), fleet.deployment("b", tags=["paid"])]
    more = {"model_list": models, "enable_tag_filtering": True}
    place, fleet = fleet.place, Fleet({}, router=more)
    fleet.place = place
    for _ in range(4):
        await fleet.acall(metadata={"tags": ["paid"]})
        await asyncio.to_thread(fleet.call, metadata={"tags": ["paid"]})
    return fleet.asked("a", "b")


def case_no_deployment() -> Any:
    """All are on cooldown: an error of litellm's family that says for how long."""
    limited = {"status": 429, "headers": {"Retry-After": "30"}, "body": {"error": {}}}
    fleet = Fleet({"a": limited}, router={"num_retries": 0})
    first = error_of(fleet.call)
    fleet.ended(1)
    error = error_of(fleet.call)
    cause = error
    while cause is not None and not isinstance(cause, NoDeploymentError):
        cause = cause.__cause__ or cause.__context__
    return [
        type(first).__name__,
        type(error).__name__,
        getattr(error, "status_code", None),
        cause is not None and dict(cause.reasons),
        cause is not None and 20 < (cause.retry_after or 0) <= 30,
    ]


def case_limits_per_minute() -> Any:
    """What the guide says on requests per minute: a quota by the deployments' ids keeps to them."""
    quota = QuotaTracker()
    fleet = Fleet({"a": {}, "b": {}}, quota=quota, router={"num_retries": 0})
    for name in ("a", "b"):
        limit = QuotaConfig([QuotaDimension("rpm", limit=2, window=60.0)])
        quota.register(fleet.id(name), limit)
    for _ in range(4):
        fleet.call()
    error: Any = error_of(fleet.call)
    return [fleet.asked("a", "b"), error.status_code]


def case_keys_stay() -> Any:
    """A key is served by one deployment."""
    scripts: dict[str, dict[str, Any]] = {"a": {}, "b": {}, "c": {}}
    fleet = Fleet(scripts, ConsistentHash(), hash_key=lambda request: request.get("user"))
    for _ in range(6):
        fleet.call(user="ada")
    return sorted(fleet.asked("a", "b", "c"))


async def case_other_endpoints() -> Any:
    """Responses have their metadata elsewhere."""
    fleet = Fleet({"a": {}})
    await fleet.router.aresponses(model="chat", input="Say hi.")
    return await fleet.ended_async(1)


def case_callbacks_were_replaced() -> Any:
    """A program that sets litellm's callbacks anew loses none of it."""
    fleet = Fleet({"a": {}})
    fleet.call()
    fleet.ended(1)
    litellm.callbacks = []
    litellm.success_callback = []
    fleet.call()
    return fleet.ended(2)


def case_mistakes() -> Any:
    """Wrong arguments are refused when they are given."""
    router = Fleet({"a": {}}).router
    return [
        str(error_of(lambda: use_loadwise(["a"]))),
        str(error_of(lambda: use_loadwise(router, hash_key="user"))),  # type: ignore[arg-type]
        str(error_of(lambda: use_loadwise(router, nmae="x"))),
    ]


def main() -> None:
    """Run all cases."""
    told = {}
    wanted = sys.argv[2:]
    for name, case in list(globals().items()):
        if name.startswith("case_") and (not wanted or name[5:] in wanted):
            try:
                found = case()
                told[name[5:]] = asyncio.run(found) if inspect.iscoroutine(found) else found
            except Exception as error:  # noqa: BLE001 - told to whoever asserts
                told[name[5:]] = repr(error)
    print(json.dumps(told, default=repr))  # noqa: T201 - this is how it tells


if __name__ == "__main__":
    main()
