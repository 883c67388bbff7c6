"""The figures of a run, as frozen records that also make its JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from loadwise.cli.demo.run import DemoRun, Transition
from loadwise.cli.demo.server import RestartingServer
from loadwise.health import HealthStatus

__all__ = ["Figures", "LatencyFigures", "ServerFigures", "figures_of"]


@dataclass(frozen=True, slots=True)
class LatencyFigures:
    """Seconds from sending to a good answer, retries included; ``None`` without answers."""

    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None

    @classmethod
    def of(cls, seconds: Iterable[float]) -> LatencyFigures:
        """Work out the mean and, by the nearest rank, the percentiles."""
        ordered = sorted(seconds)
        if not ordered:
            return cls(None, None, None, None)
        count = len(ordered)
        p50, p90, p99 = (ordered[math.ceil(count * share) - 1] for share in (0.5, 0.9, 0.99))
        return cls(sum(ordered) / count, p50, p90, p99)


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """One server's part.

    Attributes:
        name: Its name.
        answered: Good answers that the clients received from it.
        own_count: Good answers by its own log.
        share: Its share of all answers.
        latency: Of the requests it answered.
        failed_attempts: Attempts on it that failed.
        health: Its state at the end.
        out_at: When it first became UNHEALTHY, in seconds of the run.
        back_at: When it last became HEALTHY after that, and stayed so.
        probes_answered: How often a probe was answered, and it was put on trial.
        answered_since_back: Good answers from it since then.
    """

    name: str
    answered: int
    own_count: int
    share: float
    latency: LatencyFigures
    failed_attempts: int
    health: str
    out_at: float | None
    back_at: float | None
    probes_answered: int
    answered_since_back: int


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a run.

    Attributes:
        strategy: Name of the strategy.
        seconds: How long it took.
        sent: Requests sent.
        answered: Requests with a good answer.
        retried: Requests answered at a later attempt than the first.
        retries: Attempts that followed a failed one.
        lost: Requests without an answer.
        why_lost: The error that the first of the lost ended with.
        caught: Requests in flight on the server that was killed, when it was.
        unaccounted: Answers that their server's log does not have; 0 unless something is wrong.
        died_on_the_way: Answers that their server logged and nobody received.
        latency: Of all answered requests.
        servers: The servers' parts.
        health_changes: All changes of health, in order: seconds, server, old and new state.
    """

    strategy: str
    seconds: float
    sent: int
    answered: int
    retried: int
    retries: int
    lost: int
    why_lost: str | None
    caught: int
    unaccounted: int
    died_on_the_way: int
    latency: LatencyFigures
    servers: tuple[ServerFigures, ...]
    health_changes: tuple[tuple[float, str, str, str], ...]


def figures_of(run: DemoRun) -> Figures:
    """Work out the figures of a run that is over, its servers stopped."""
    answers = run.traffic.answers
    servers = tuple(_server_figures(run, server) for server in run.fleet)
    received = {(answer.server, answer.number) for answer in answers}
    logged = {(server.name, number) for server in run.fleet for number in server.answered}
    return Figures(
        strategy=run.choice,
        seconds=run.seconds,
        sent=len(answers) + run.lost,
        answered=len(answers),
        retried=run.traffic.retried,
        retries=sum(answer.attempt - 1 for answer in answers),
        lost=run.lost,
        why_lost=next(iter(run.traffic.lost.values()), None),
        caught=run.caught,
        unaccounted=len(received - logged),
        died_on_the_way=len(logged - received),
        latency=LatencyFigures.of(answer.seconds for answer in answers),
        servers=servers,
        health_changes=tuple(
            (change.seconds, change.server, _name(change.old), _name(change.new))
            for change in run.transitions
        ),
    )


def _server_figures(run: DemoRun, server: RestartingServer) -> ServerFigures:
    own = [answer for answer in run.traffic.answers if answer.server == server.name]
    changes = [each for each in run.transitions if each.server == server.name]
    out_at, back_at = _outage(changes)
    since = math.inf if back_at is None else back_at
    return ServerFigures(
        name=server.name,
        answered=len(own),
        own_count=len(server.answered),
        share=len(own) / max(1, len(run.traffic.answers)),
        latency=LatencyFigures.of(answer.seconds for answer in own),
        failed_attempts=sum(name == server.name for name in run.failures),
        health=_name(run.status()[server.name].health),
        out_at=out_at,
        back_at=back_at,
        probes_answered=sum(each.new is HealthStatus.RECOVERING for each in changes),
        answered_since_back=sum(answer.at - run.began >= since for answer in own),
    )


def _outage(changes: list[Transition]) -> tuple[float | None, float | None]:
    """Return when a server first went out of traffic, and when it came back to stay."""
    out = [each.seconds for each in changes if each.new is HealthStatus.UNHEALTHY]
    back = [each.seconds for each in changes if each.new is HealthStatus.HEALTHY]
    if not out:
        return None, None
    return out[0], back[-1] if back and back[-1] > out[-1] else None


def _name(status: HealthStatus) -> str:
    return str(status.name)
