"""Nodes from DNS: a loop resolves a name, and the balancer takes over what has changed.

A node that stays keeps its health, its counts and its connections. An answer that is empty, or a
resolver that fails, changes nothing: old addresses are better than none.

The resolver is a function, `socket.getaddrinfo` in a program; here a table stands for it.

    python examples/dns_discovery.py
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable
from threading import Event, Thread
from typing import Self

from loadwise import Balancer

log = logging.getLogger("discovery")


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a name as host:port, each once."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [
        f"[{address[0]}]:{port}" if family == socket.AF_INET6 else f"{address[0]}:{port}"
        for family, _, _, _, address in dict.fromkeys(found)
    ]


class Discovery:
    """Keeps a balancer's nodes those that a function finds.

    Args:
        balancer: The balancer.
        find: Returns the nodes; it may block, and raise.
        interval: Seconds between two looks, > 0.
    """

    def __init__(
        self, balancer: Balancer[str], find: Callable[[], Iterable[str]], interval: float
    ) -> None:
        self.balancer = balancer
        self.find = find
        self.interval = interval
        self._stopped = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def refresh(self) -> None:
        """Look once."""
        try:
            nodes = sorted(self.find())
        except OSError as error:
            log.warning("the resolver failed, so the nodes stay as they are: %s", error)
            return
        if not nodes:
            log.warning("the resolver found nothing, so the nodes stay as they are")
        elif tuple(nodes) != self.balancer.nodes:
            self.balancer.replace(nodes)

    def _run(self) -> None:
        while not self._stopped.wait(self.interval):
            self.refresh()

    def __enter__(self) -> Self:
        self.refresh()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        self._thread.join()


def main() -> None:
    """Follow a name whose answers change; the last is localhost, from the real resolver."""
    logging.basicConfig(handlers=[Show()])
    answers: list[list[str] | OSError] = [
        ["10.0.0.1:80", "10.0.0.2:80"],
        ["10.0.0.2:80", "10.0.0.3:80"],  # a deployment: one pod goes, one comes
        [],
        socket.gaierror(socket.EAI_AGAIN, "try again"),
    ]

    def find() -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    balancer = Balancer[str]([], name="search")
    discovery = Discovery(balancer, find, interval=5.0)
    while answers:
        discovery.refresh()
        print("nodes:", *balancer.nodes)

    with Discovery(balancer, lambda: resolve("localhost", 8080), interval=5.0):
        print("nodes:", "127.0.0.1:8080" in balancer.nodes or "[::1]:8080" in balancer.nodes)


class Show(logging.Handler):
    """Prints what is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line."""
        print("  ", record.getMessage())


if __name__ == "__main__":
    main()
