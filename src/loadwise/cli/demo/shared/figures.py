"""The figures of a run with two client processes, checked against the servers' own logs."""

from __future__ import annotations

from dataclasses import dataclass

from loadwise.cli.demo.figures import Latency
from loadwise.cli.demo.process import Server
from loadwise.cli.demo.shared.news import Message, Outage, messages_in, outage_in
from loadwise.cli.demo.shared.peers import Client
from loadwise.cli.demo.shared.quota import WINDOW, limits_of, most_in_any_window
from loadwise.cli.demo.shared.run import SharedRun

__all__ = ["ClientFigures", "QuotaFigures", "SharedFigures", "figures_of"]


@dataclass(frozen=True, slots=True)
class ClientFigures:
    """One client process's part.

    Attributes:
        name: Its name.
        answered: Its requests with a good answer.
        retried: Those answered at a later attempt than the first.
        lost: Its requests without an answer.
        failed_attempts: Its attempts that failed.
        latency: Of its answered requests.
        found: Changes of health that it found out.
        told: Changes of health that it was told of.
        outages: How often it could not reach Valkey.
    """

    name: str
    answered: int
    retried: int
    lost: int
    failed_attempts: int
    latency: Latency
    found: int
    told: int
    outages: int


@dataclass(frozen=True, slots=True)
class QuotaFigures:
    """One server's quota, by its own log.

    Attributes:
        server: Its name.
        limit: Requests that it allows in any window.
        requests: Requests that it answered, well or not.
        most: The most of them that any window held.
        most_by_client: The same of the requests of each client alone.
    """

    server: str
    limit: int
    requests: int
    most: int
    most_by_client: dict[str, int]


@dataclass(frozen=True, slots=True)
class SharedFigures:
    """What came of a run.

    Attributes:
        strategy: Name of the strategy.
        seconds: How long it took.
        sent: Requests sent.
        answered: Requests with a good answer.
        retried: Requests answered at a later attempt than the first.
        lost: Requests without an answer.
        why_lost: The error that the first of the lost ended with.
        unaccounted: Answers that their server's log does not have; 0 unless something is wrong.
        died_on_the_way: Answers that their server logged and nobody received.
        window: Seconds of the quotas' windows.
        clients: The client processes' parts.
        quotas: The servers' quotas.
        outage: How the clients learnt that a server was killed, if any did.
        messages: All changes of health that one client found out and another was told of.
    """

    strategy: str
    seconds: float
    sent: int
    answered: int
    retried: int
    lost: int
    why_lost: str | None
    unaccounted: int
    died_on_the_way: int
    window: float
    clients: tuple[ClientFigures, ...]
    quotas: tuple[QuotaFigures, ...]
    outage: Outage | None
    messages: tuple[Message, ...]

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, every quota was kept, and nobody was left in the dark."""
        kept = all(quota.most <= quota.limit for quota in self.quotas)
        informed = self.outage is None or not self.outage.uninformed
        return not self.lost and not self.unaccounted and kept and informed


def figures_of(run: SharedRun) -> SharedFigures:
    """Work out the figures of a run that is over, its servers stopped."""
    limits = limits_of(run.plan)
    clients = tuple(_client_figures(client) for client in run.clients)
    received = {(each.server, each.number) for client in run.clients for each in client.answers}
    logged = {(server.name, number) for server in run.fleet for number in server.answered}
    answered = sum(client.answered for client in clients)
    reasons = (why for client in run.clients for why in client.lost.values())
    return SharedFigures(
        strategy=run.choice,
        seconds=run.seconds,
        sent=run.plan.requests,
        answered=answered,
        retried=sum(client.retried for client in clients),
        lost=run.plan.requests - answered,
        why_lost=next(reasons, None),
        unaccounted=len(received - logged),
        died_on_the_way=len(logged - received),
        window=WINDOW,
        clients=clients,
        quotas=tuple(_quota_figures(run, server, limits[server.name]) for server in run.fleet),
        outage=outage_in(run),
        messages=tuple(messages_in(run)),
    )


def _client_figures(client: Client) -> ClientFigures:
    answers = client.answers
    found = sum(news.found for news in client.news)
    return ClientFigures(
        name=client.name,
        answered=len(answers),
        retried=sum(answer.attempt > 1 for answer in answers),
        lost=len(client.lost),
        failed_attempts=len(client.failures),
        latency=Latency.of(answer.seconds for answer in answers),
        found=found,
        told=len(client.news) - found,
        outages=client.outages,
    )


def _quota_figures(run: SharedRun, server: Server, limit: int) -> QuotaFigures:
    count = len(run.clients)
    by_client = {
        client.name: most_in_any_window(
            [at for at, number in server.arrivals if number % count == place]
        )
        for place, client in enumerate(run.clients)
    }
    times = [at for at, _ in server.arrivals]
    return QuotaFigures(server.name, limit, len(times), most_in_any_window(times), by_client)
