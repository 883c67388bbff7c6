"""Nodes from DNS: a watcher looks a name up whenever its TTL is over.

A node that stays keeps its health, its counts and its connections. An answer that is empty, or a
resolver that fails, changes nothing: old addresses are better than none.

    python examples/dns_discovery.py
"""

from __future__ import annotations

import logging

from loadwise import Balancer, Endpoint
from loadwise.discovery import DnsSource, Watcher


def main() -> None:
    """Follow localhost, and ask its nodes three times."""
    logging.basicConfig(level=logging.WARNING)  # what is wrong with a source is logged
    balancer = Balancer[Endpoint]([], name="search")
    with Watcher(balancer, DnsSource("localhost", type="A", port=8080)) as watcher:
        print("nodes:", *[node.id for node in balancer.nodes])
        for number in range(3):
            with balancer.acquire() as lease:
                print(f"request {number} goes to {lease.node.id}")
        print("the source answers:", watcher.status().error is None)


if __name__ == "__main__":
    main()
