"""How news of a server's health got from one client process to the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from loadwise.cli.demo.play import DOOMED
from loadwise.cli.demo.shared.peers import Client, News
from loadwise.cli.demo.shared.run import SharedRun
from loadwise.health import HealthStatus

__all__ = ["Message", "Outage", "messages_in", "outage_in"]

# Who finds something out tells it, and then takes the time; so it may seem told before it is found.
_SLACK = 0.05


@dataclass(frozen=True, slots=True)
class Message:
    """A change of health that one client found out and another was told of.

    Attributes:
        server: Whose health.
        state: What it has become.
        found_by: Who found out.
        found_at: When, in seconds of the run.
        told: Who was told.
        after: How many seconds later.
    """

    server: str
    state: str
    found_by: str
    found_at: float
    told: str
    after: float


@dataclass(frozen=True, slots=True)
class Outage:
    """How it got around that a server was killed.

    Attributes:
        server: Its name.
        found_by: Who found out first.
        found_after: How many seconds after the kill.
        failures: Attempts on it that failed from the kill until then, by client.
        down: How the others were told that it is down; empty when they found out themselves.
        back: How they were told that it answers again.
        uninformed: Clients that neither found out nor were told that it is down.
    """

    server: str
    found_by: str
    found_after: float
    failures: dict[str, int]
    down: tuple[Message, ...]
    back: tuple[Message, ...]
    uninformed: tuple[str, ...]


def messages_in(run: SharedRun) -> Iterator[Message]:
    """Yield what one client told another, in order."""
    news = run.news
    for told in news:
        if told.found:
            continue
        sources = [each for each in news if _may_be_source(each, told)]
        if sources:
            source = min(sources, key=lambda each: abs(told.at - each.at))
            yield Message(
                server=told.server,
                state=str(told.new.name),
                found_by=source.client,
                found_at=source.at - run.began,
                told=told.client,
                after=max(0.0, told.at - source.at),
            )


def _may_be_source(found: News, told: News) -> bool:
    return (
        found.found
        and found.client != told.client
        and (found.server, found.new) == (told.server, told.new)
        and found.at <= told.at + _SLACK
    )


def outage_in(run: SharedRun) -> Outage | None:
    """Return how it got around that a server was killed; ``None`` when nobody found out."""
    down = [
        each
        for each in run.news
        if each.server == DOOMED and each.new is HealthStatus.UNHEALTHY and each.at > run.killed_at
    ]
    first = next((each for each in down if each.found), None)
    if first is None:
        return None
    firsts = {each.client: each for each in reversed(down)}
    since = first.at - run.began
    of_doomed = [each for each in messages_in(run) if each.server == DOOMED]
    told = {each.client for each in firsts.values() if not each.found}
    return Outage(
        server=DOOMED,
        found_by=first.client,
        found_after=first.at - run.killed_at,
        failures={client.name: _failures(client, run, firsts) for client in run.clients},
        down=tuple(
            each
            for each in of_doomed
            if each.state == HealthStatus.UNHEALTHY.name
            and each.found_at == since
            and each.told in told
        ),
        back=tuple(
            each
            for each in of_doomed
            if each.state in (HealthStatus.RECOVERING.name, HealthStatus.HEALTHY.name)
            and each.found_at > since
        ),
        uninformed=tuple(client.name for client in run.clients if client.name not in firsts),
    )


def _failures(client: Client, run: SharedRun, firsts: dict[str, News]) -> int:
    """Count a client's failures between the kill and its knowing of it."""
    until = firsts[client.name].at if client.name in firsts else run.killed_at + run.elapsed
    return sum(server == DOOMED and run.killed_at <= at <= until for at, server in client.failures)
