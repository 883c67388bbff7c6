"""Prompts over two API keys: a quota of tokens for each, retries on the other, and a deadline.

What a prompt may use is reserved, and settled by what it did use. Needs pip install aiohttp.
"""

import asyncio
from collections import Counter

from aiohttp import ClientSession, web

from loadwise import Backoff, Balancer, Lease, QuotaConfig, QuotaDimension, QuotaTracker

LIMITS = QuotaConfig([QuotaDimension("tokens", limit=2_000, window=0.5, default_cost=0)])
seen = Counter[str]()  # requests, and tokens by key


async def provider(request: web.BaseRequest) -> web.Response:
    """Stand for the API: answer a prompt, with an error now and then."""
    seen["requests"] += 1
    if seen["requests"] in {5, 10}:
        return web.Response(status=500)
    seen[request.headers["Authorization"]] += 200
    return web.json_response({"text": await request.text(), "tokens": 200})


async def ask(keys: Balancer[str], session: ClientSession, prompt: str) -> str:
    """Send a prompt with a key that can afford it, once there is one; after an error, again."""

    async def send(key: str, lease: Lease[str]) -> str:
        async with session.post("/", headers={"Authorization": key}, data=prompt) as response:
            answer = await response.json()
        lease.settle({"tokens": answer["tokens"]})
        return str(answer["text"])

    return await keys.call_async(
        send, with_lease=True, cost={"tokens": 500}, timeout=None, backoff=Backoff(), deadline=9.0
    )


async def main() -> None:
    """Send 24 prompts at once."""
    await (runner := web.ServerRunner(web.Server(provider))).setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    quota = QuotaTracker()
    for key in ("key-a", "key-b"):
        quota.register(key, LIMITS)
    keys = Balancer(["key-a", "key-b"], quota=quota)
    url = "http://{}:{}".format(*runner.addresses[0])
    async with ClientSession(url, raise_for_status=True) as session:
        prompts = (ask(keys, session, f"prompt {number}") for number in range(24))
        print("answers:", len(await asyncio.gather(*prompts)), *sorted(seen.items()))
    await runner.cleanup()


asyncio.run(main())
