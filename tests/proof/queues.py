"""Rows about queues of one kind of server: M/M/1, M/G/1, M/M/c, joining the shortest queue."""

from __future__ import annotations

import math
from functools import partial

from tests.proof import theory
from tests.proof.chain import few_servers
from tests.proof.row import Measured, Row, of_runs
from tests.proof.runs import Case, latencies, mean

from loadwise.simulation.scenario import Deterministic, Lognormal, Pareto, Service

__all__ = ["ROWS"]

SINGLE = "One queue, or many that do not see each other: M/M/1"
GENERAL = "Service times of any distribution: M/G/1"
SHARED = "One queue for many: M/M/c, the bound for all who balance"


def _mm1(what: str, case: Case) -> Row:
    expected = partial(theory.mm1, case.load)
    return Row(SINGLE, what, expected, partial(mean, case), 0.03, "", ("Kleinrock 1975",))


def _p99(case: Case) -> Measured:
    return of_runs([each.p99 for each in latencies(case)])


ONE = Case(0.7, requests=10_000, warm=370.0)
MANY = Case(0.7, servers=100, seeds=8, requests=55_000, warm=370.0)

SINGLE_ROWS = (
    _mm1("Mean time, 1 server, load 0.5", Case(0.5, requests=4_000)),
    _mm1("Mean time, 1 server, load 0.7", ONE),
    Row(
        SINGLE,
        "99th percentile of the time, 1 server, load 0.7",
        partial(theory.mm1_quantile, 0.7, 0.99),
        partial(_p99, ONE),
        0.06,
        "",
        ("Kleinrock 1975",),
    ),
    _mm1("Mean time, `Random` over 10 servers, load 0.5", Case(0.5, servers=10, requests=4_000)),
    _mm1("Mean time, `Random` over 100 servers, load 0.7", MANY),
)


def _mg1(name: str, service: Service, second_moment: float, tolerance: float, requests: int) -> Row:
    return Row(
        GENERAL,
        f"Mean time, 1 server, load 0.7, {name} service",
        partial(theory.mg1, 0.7, second_moment),
        partial(mean, Case(0.7, requests=requests, warm=500.0, service=service)),
        tolerance,
        "",
        ("Pollaczek 1930", "Khinchine 1932"),
    )


GENERAL_ROWS = (
    _mg1("deterministic", Deterministic(), 1.0, 0.03, 6_000),
    _mg1("lognormal (sigma 1)", Lognormal(sigma=1.0), math.e, 0.06, 14_000),
    _mg1(
        "bounded Pareto (alpha 2.5, bound 100)",
        Pareto(alpha=2.5, bound=100.0),
        theory.bounded_pareto_moment(2.5, 100.0, 2)
        / theory.bounded_pareto_moment(2.5, 100.0, 1) ** 2,
        0.05,
        10_000,
    ),
)


def _warm(load: float, servers: int) -> float:
    """Return seven relaxation times of M/M/c."""
    return 7.0 * theory.relaxation(load, 1) / servers


def _mmc(parallelism: int, load: float, requests: int) -> Row:
    warm = _warm(load, parallelism)
    return Row(
        SHARED,
        f"Mean time, 1 server that works on {parallelism} at a time, load {load}",
        partial(theory.mmc, parallelism, load),
        partial(mean, Case(load, parallelism=parallelism, requests=requests, warm=warm)),
        0.03,
        "",
        ("Erlang 1917",),
    )


def _shortest(servers: int, longest: int, requests: int, tolerance: float = 0.03) -> Row:
    bound = theory.mmc(servers, 0.8)
    return Row(
        SHARED,
        f"Mean time, `LeastLoad` over {servers} servers, load 0.8 (Erlang C: {bound:.3f})",
        partial(few_servers, 0.8, servers, servers, longest),
        partial(
            mean, Case(0.8, servers, "least-load", requests=requests, warm=_warm(0.8, servers))
        ),
        tolerance,
        "",
        ("Haight 1958", "Markov chain"),
    )


POLICIES = ("least-load", "p2c", "three choices", "round-robin", "random")


def _faster_than_shared() -> Measured:
    """Count the runs, over policies and seeds, that were faster than one queue for all."""
    shared = latencies(Case(0.8, parallelism=10, seeds=10, requests=2000))
    several = Case(0.8, servers=10, seeds=10, requests=2000)
    pairs = [
        (alone, together)
        for policy in POLICIES
        for alone, together in zip(latencies(several.by(policy)), shared, strict=True)
    ]
    return Measured(sum(alone.mean < together.mean for alone, together in pairs))


SHARED_ROWS = (
    _mmc(4, 0.8, 15_000),
    _mmc(10, 0.8, 7_000),
    _mmc(30, 0.9, 11_000),
    _shortest(2, 30, 12_000, 0.04),
    _shortest(10, 6, 7_000),
    _shortest(50, 2, 2_500),
    Row(
        SHARED,
        "Runs, of 50, in which `LeastLoad`, `PowerOfTwoChoices`, three choices, `RoundRobin` or "
        "`Random` over 10 servers had a lower mean time than one queue for all of them, given "
        "the same requests",
        float,
        _faster_than_shared,
        0.0,
        "none may be",
        ("Wolff 1977",),
    ),
)

ROWS = (*SINGLE_ROWS, *GENERAL_ROWS, *SHARED_ROWS)
