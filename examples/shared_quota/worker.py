"""One of the processes that share a quota: main.py starts two, and this runs by hand, too.

    python examples/shared_quota/worker.py 6379 100           # port of the server, limit per hour
    python examples/shared_quota/worker.py 6379 100 refuse    # sends nothing while it is down

Each line of its input is a number of requests to send at once. It answers how many of them the
quota granted, and how many are left of the limit as far as this process knows.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

import redis

from loadwise import QuotaConfig, QuotaDimension
from loadwise.integrations.redis import SharedQuota


def main() -> None:
    """Ask the quota before each request, as every process that uses the same API does."""
    port, limit, *options = sys.argv[1:]
    on_outage: Literal["local", "refuse"] = "refuse" if options == ["refuse"] else "local"
    logging.getLogger("loadwise").setLevel(logging.ERROR)  # an outage is logged as a warning
    client = redis.Redis(port=int(port))
    # The timeout is long, because a machine that is busy is no outage.
    with client, SharedQuota(client, "example", on_outage=on_outage, timeout=5.0) as quota:
        hourly = QuotaDimension("requests", limit=int(limit), window=3600.0)
        quota.register("api", QuotaConfig([hourly]))
        for line in sys.stdin:
            granted = sum(quota.try_acquire("api") is not None for _ in range(int(line)))
            print(granted, int(quota.remaining("api", "requests")), flush=True)


if __name__ == "__main__":
    main()
