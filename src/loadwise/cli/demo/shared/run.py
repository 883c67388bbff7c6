"""One run with two client processes: who is started, and what they tell while it lasts."""

from __future__ import annotations

import time
from dataclasses import astuple, replace
from types import TracebackType
from typing import Self

from loadwise.cli.demo.child import Child, ChildError
from loadwise.cli.demo.fleet import Fleet
from loadwise.cli.demo.plan import Plan
from loadwise.cli.demo.play import DOOMED, MEANING, Counts, Event, Play
from loadwise.cli.demo.server import HOST
from loadwise.cli.demo.shared.peers import Client, News, Store
from loadwise.cli.demo.shared.settings import Settings
from loadwise.health import HealthStatus

__all__ = ["CLIENTS", "SharedRun"]

CLIENTS: tuple[str, ...] = ("A", "B")
_START_TIMEOUT = 20.0


class SharedRun(Play):
    """Servers, Valkey and two clients; they run inside a ``with`` block and are gone after it.

    Args:
        fleet: Running servers.
        choice: Name of the strategy.
        plan: What to run; its client threads are shared out.

    Attributes:
        store: The Valkey server.
        clients: The client processes.
    """

    def __init__(self, fleet: Fleet, choice: str, plan: Plan) -> None:
        super().__init__(fleet, plan)
        self.choice = choice
        self.store = Store()
        self.clients = [Client(name) for name in CLIENTS]
        self._told = dict.fromkeys(CLIENTS, 0)

    def __enter__(self) -> Self:
        try:
            self.store.start()
            _await(self.store)
            ports = {server.name: server.port for server in self.fleet}
            for place, client in enumerate(self.clients):
                threads = max(1, (self.plan.concurrency + 1 - place) // len(self.clients))
                plan = replace(self.plan, concurrency=threads)
                client.start(
                    Settings(place, len(CLIENTS), self.choice, plan, self.store.port, ports)
                )
            for client in self.clients:
                _await(client)
        except BaseException:
            self._end()
            raise
        self.began = time.monotonic()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        # The clients first: who loses Valkey would say so.
        for child in (*self.clients, self.store):
            child.stop()

    def others(self) -> list[tuple[str, str, int, str]]:
        """Return name, address, process id and role of all that are not servers of the fleet."""
        address = f"{HOST}:{self.store.port}"
        return [
            ("valkey", address, self.store.server_pid, "keeps quotas and health"),
            *((client.name, "", client.pid, "sends half of it") for client in self.clients),
        ]

    @property
    def news(self) -> list[News]:
        """All changes of health, as the clients told of them, in order."""
        return sorted((each for client in self.clients for each in client.news), key=_moment)

    @property
    def counts(self) -> Counts:
        """How far the requests of all clients are."""
        both = zip(*(astuple(client.counts) for client in self.clients), strict=True)
        return Counts(*map(sum, both))

    def start(self) -> None:
        """Have the clients start sending."""
        for client in self.clients:
            client.tell("start")

    def wait(self, timeout: float) -> bool:
        """Wait a while; return whether all clients are through.

        Raises:
            ChildError: A client ended before.
        """
        time.sleep(timeout)
        self._pass_on()
        for client in self.clients:
            if client.is_over and not client.is_through:
                raise ChildError(f"client {client.name} ended before its time; it {client.said()}")
        return all(client.is_over for client in self.clients)

    def stop(self) -> None:
        """End the clients."""
        for client in self.clients:
            client.stop()

    def open(self) -> None:
        """Let the last requests of all clients pass."""
        for client in self.clients:
            client.tell("open")

    def aim(self) -> str:
        """Nothing to wait for: what is in flight, only the clients know."""
        return ""

    def _pass_on(self) -> None:
        """Tell what the clients told of servers that go out of traffic or come back."""
        fresh: list[News] = []
        for client in self.clients:
            known = len(client.news)
            fresh += client.news[self._told[client.name] : known]
            self._told[client.name] = known
        for news in filter(_is_notable, sorted(fresh, key=_moment)):
            what = MEANING[news.new].format(interval=self.plan.probe_interval)
            how = "found out" if news.found else "was told"
            text = f"{news.client} {how}: {news.server} {what}"
            self.events.append(Event(news.at - self.began, text))


def _await(child: Child) -> None:
    if not child.is_ready(_START_TIMEOUT):
        raise ChildError(
            f"{child.name!r} was not ready within {_START_TIMEOUT:g} s; is the machine overloaded?"
        )


def _moment(news: News) -> float:
    return news.at


def _is_notable(news: News) -> bool:
    """Whether it is more than a failure now and then, or hearsay of flaky's many changes."""
    flapping = {HealthStatus.HEALTHY, HealthStatus.DEGRADED}
    return not {news.old, news.new} <= flapping and (news.found or news.server == DOOMED)
