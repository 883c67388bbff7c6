"""A queue for GPUs: each takes two jobs at a time, and the others wait in order of arrival.

Threads that compute stand for the GPUs. One user gives up, and one job too many is refused.
"""

import asyncio
from collections import Counter
from hashlib import pbkdf2_hmac

from loadwise import Balancer, NoNodeAvailable

began: list[int] = []
now, most = Counter[str](), Counter[str]()  # jobs by GPU


async def job(queue: Balancer[str], number: int) -> None:
    """Wait for a GPU, however long it takes, and compute something on it."""
    async with queue.acquire_async(timeout=None) as lease:
        began.append(number)
        now[lease.node] += 1
        most[lease.node] = max(most[lease.node], now[lease.node])
        await asyncio.to_thread(pbkdf2_hmac, "sha256", b"%d" % number, b"salt", 50_000)
        now[lease.node] -= 1


async def main() -> None:
    """Send 15 jobs at once to two GPUs: 4 begin, 10 wait, and there is no room for the last."""
    queue = Balancer(["gpu-0", "gpu-1"], max_in_flight=2, max_waiting=10)
    jobs = [asyncio.create_task(job(queue, number)) for number in range(15)]
    await asyncio.sleep(0)
    print("running:", len(began), "- waiting:", queue.waiting)
    jobs[7].cancel()  # its place goes to the next
    ends = await asyncio.gather(*jobs, return_exceptions=True)
    print("begun in this order:", *began)
    for number, end in enumerate(ends):
        if isinstance(end, NoNodeAvailable):
            print(f"refused: job {number}, for {end.reason!r}")
    print("most at a time:", *(f"{gpu} {most[gpu]}" for gpu in queue.nodes))


asyncio.run(main())
