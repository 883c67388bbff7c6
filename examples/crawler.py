"""A crawler: two requests at a time to each site, and one that asks for a cooldown gets it.

Each page is a task of its own. Three real servers stand for the sites.
Needs pip install 'loadwise[aiohttp]'.
"""

import asyncio
from collections import Counter

from aiohttp import ClientSession, web

from loadwise import Backoff, Balancer, by_id

asked, now, most = Counter[str](), Counter[str](), Counter[str]()  # by site


async def serve(request: web.BaseRequest) -> web.Response:
    """Link page n to pages 2n and 2n + 1, but refuse the tenth request."""
    site, page = request.host, int(request.path[1:])
    asked[site] += 1
    if asked[site] == 10:
        return web.json_response([], status=429, headers={"Retry-After": "1"})
    now[site] += 1
    most[site] = max(most[site], now[site])
    await asyncio.sleep(0.01)
    now[site] -= 1
    return web.json_response([2 * page, 2 * page + 1] if page < 16 else [])


async def crawl(balancer: Balancer[str], session: ClientSession, site: str, page: int) -> int:
    """Fetch a page and all that follow from it; return how many they are."""
    for attempt in balancer.attempts(3, where=by_id(site), timeout=None, backoff=Backoff()):
        async with attempt as lease, session.get(f"http://{site}/{page}") as answer:
            if answer.status == 429:
                lease.rate_limited(float(answer.headers["Retry-After"]))
            links = await answer.json()
    return 1 + sum(await asyncio.gather(*(crawl(balancer, session, site, n) for n in links)))


async def main() -> None:
    """Start three sites and crawl them, side by side."""
    await (runner := web.ServerRunner(web.Server(serve))).setup()
    for _ in range(3):
        await web.TCPSite(runner, "127.0.0.1", 0).start()
    balancer = Balancer([f"{host}:{port}" for host, port in runner.addresses], max_in_flight=2)
    async with ClientSession() as session:
        sites = (crawl(balancer, session, site, page=1) for site in balancer.nodes)
        print("pages:", *await asyncio.gather(*sites))
    print("requests:", *asked.values(), "- most at a time:", *most.values())
    await runner.cleanup()


asyncio.run(main())
