"""What should be a number and is none is told by name, wherever it is given."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import count
from typing import Any

import numpy as np
import pytest
import redis
from tests.compiled import COMPILED, wrong_type

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    ConsistentHash,
    Endpoint,
    FallbackChain,
    Filtered,
    HealthTracker,
    JumpHash,
    LeastLoad,
    Maglev,
    MostAvailable,
    NodeSet,
    NoNodeAvailable,
    Outcome,
    PeakEwma,
    PowerOfTwoChoices,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    Random,
    RetryBudget,
    RoundRobin,
    SelectionContext,
    WeightedRandom,
    WeightedRoundRobin,
)
from loadwise._numbers import number
from loadwise.health_checks.settings import CheckSettings
from loadwise.integrations._base_collector import BaseCollector, as_bounds
from loadwise.integrations._http.settings import Options, Settings
from loadwise.integrations._http.verdict import Verdict
from loadwise.integrations.llm import TokenMeter
from loadwise.integrations.redis import RedisStore
from loadwise.integrations.redis._arguments import as_seconds
from loadwise.testing import ManualClock, ScriptedRandom


class Silent:
    """Counts, and records no times."""

    def counter(self, metric: str, *labels: str) -> Iterator[int]:
        return count()

    def observe(self, seconds: float) -> None:
        pass

    def after_fork(self) -> None:
        pass


class Quiet(BaseCollector[Silent]):
    """A collector that shows nothing."""

    def _make_recorder(self, balancer: str, label: str) -> Silent:
        return Silent()

    def _make_waits(self, balancer: str) -> Silent:
        return Silent()


def quota() -> QuotaTracker:
    """Return a tracker that knows of one node and one dimension."""
    tracker = QuotaTracker()
    tracker.register("a", QuotaConfig([QuotaDimension("rpm", limit=10)]))
    return tracker


class WithWeight:
    """A node of the user's own with a weight."""

    def __init__(self, weight: Any) -> None:
        self.id = "a"
        self.weight = weight


PLACES: list[tuple[Callable[[Any], object], str]] = [
    (lambda value: Balancer(["a"]).acquire().rate_limited(value), "retry_after"),
    (lambda value: Balancer(["a"], quota=quota()).acquire(cost={"rpm": value}), "rpm: the amount"),
    (lambda value: quota().mark_exhausted("a", value), "seconds"),
    (lambda value: quota().record_usage("a", {"rpm": value}), "rpm: the amount"),
    (lambda value: quota().try_acquire("a", {"rpm": value}), "rpm: the amount"),
    (lambda value: QuotaDimension("rpm", limit=value), "rpm: limit"),
    (lambda value: QuotaDimension("rpm", limit=5, window=value), "rpm: window"),
    (lambda value: QuotaDimension("rpm", limit=5, default_cost=value), "rpm: default_cost"),
    (lambda value: ConsecutiveFailurePolicy(probe_interval=value), "probe_interval"),
    (lambda value: PeakEwma(tau=value), "tau"),
    (lambda value: PeakEwma(failure_factor=value), "failure_factor"),
    (lambda value: MostAvailable(epsilon=value), "epsilon"),
    (lambda value: RetryBudget(ratio=value), "ratio"),
    (lambda value: RetryBudget(window=value), "window"),
    (lambda value: RetryBudget(floor=value), "floor"),
    (lambda value: Balancer(["a"]).report("a", Outcome.SUCCESS, latency=value), "latency"),
    (lambda value: Verdict(Outcome.RATE_LIMITED, retry_after=value), "retry_after"),
    (lambda value: Options(deadline=value), "the request's deadline"),
    (lambda value: Settings(Balancer(), deadline=value), "deadline"),
    (lambda value: Settings(Balancer(), max_cooldown=value), "max_cooldown"),
    (lambda value: CheckSettings(interval=value), "interval"),
    (lambda value: CheckSettings(timeout=value), "timeout"),
    (lambda value: CheckSettings(jitter=value), "jitter"),
    (lambda value: CheckSettings(unhealthy_interval=value), "unhealthy_interval"),
    (lambda value: TokenMeter(chars_per_token=value), "chars_per_token"),
    (lambda value: as_bounds([value]), "a bucket's upper bound"),
    (ManualClock, "start"),
    (lambda value: ManualClock().advance(value), "seconds"),
    (lambda value: ScriptedRandom([value]), "a draw of the script"),
    (lambda value: as_seconds("ttl", value), "ttl"),
]

WHOLE: list[tuple[Callable[[Any], object], str]] = [
    (lambda value: ConsecutiveFailurePolicy(failure_threshold=value), "failure_threshold"),
    (lambda value: ConsecutiveFailurePolicy(recovery_successes=value), "recovery_successes"),
    (lambda value: QuotaDimension("rpm", limit=5, resolution=value), "rpm: resolution"),
    (lambda value: Balancer(["a"]).attempts(value), "n"),
    (lambda value: ConsistentHash(virtual_nodes=value), "virtual_nodes"),
    (lambda value: Maglev(table_size=value), "table_size"),
    (lambda value: JumpHash(first=value), "first"),
    (lambda value: RoundRobin(start=value), "start"),
    (lambda value: Settings(Balancer(), max_attempts=value), "max_attempts"),
    (lambda value: CheckSettings(concurrency=value), "concurrency"),
    (lambda value: CheckSettings(healthy_threshold=value), "healthy_threshold"),
    (lambda value: TokenMeter(max_buffer=value), "max_buffer"),
    (lambda value: TokenMeter(default_output_tokens=value), "default_output_tokens"),
    (lambda value: RedisStore[int](redis.Redis(), max_bytes=value), "max_bytes"),
    (Quiet, "max_nodes"),
]


@pytest.mark.filterwarnings("ignore:a lease on node:ResourceWarning")
@pytest.mark.parametrize(("use", "named"), PLACES)
@pytest.mark.parametrize(
    ("value", "error", "remedy"),
    [
        ("5", TypeError, "is '5'; it must be a number"),
        ([5], TypeError, r"is \[5\]; it must be a number"),
        (True, TypeError, "is True; it must be a number"),
        (1j, TypeError, "is 1j; it must be a number"),
        (10**400, ValueError, "is 1000.*it must be"),
    ],
    ids=["str", "list", "bool", "complex", "beyond-floats"],
)
def test_what_is_no_number_is_named(
    use: Callable[[Any], object], named: str, value: object, error: type[Exception], remedy: str
) -> None:
    """A text, such as that of a header, or an int beyond all floats, is refused by name."""
    if COMPILED and value is True:
        pytest.skip("compiled functions take a bool for a float")
    # Compiled functions refuse an int beyond floats as they do a text: it is no float to them.
    errors = (error, TypeError) if COMPILED else error
    with pytest.raises(errors, match=wrong_type(f"{named} {remedy}")):
        use(value)


def test_a_weight_beyond_floats_is_named() -> None:
    """Shares are worked out in floats, so an endpoint's weight must be one."""
    with pytest.raises(ValueError, match=r"node 'a' has the weight 1000.*it must be finite"):
        Endpoint("a", weight=10**400)


# Real numbers of kinds that Python's floats do not get on with, or that bring their own arithmetic.
KINDS: list[Callable[[str], Any]] = [
    Decimal,
    Fraction,
    np.float64,
    np.float32,
    lambda text: np.int64(float(text)) if float(text).is_integer() else Fraction(text),
]


@pytest.mark.skipif(COMPILED, reason="compiled functions take floats alone, and say so")
@pytest.mark.filterwarnings("ignore:a lease on node:ResourceWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_real_number_of_any_kind_will_do(kind: Callable[[str], Any]) -> None:
    """What is kept of it is an int or a float, which adds up with all others."""
    half, one, ten = kind("0.5"), kind("1"), kind("10")
    kept: list[object] = [
        ConsecutiveFailurePolicy(probe_interval=ten).probe_interval,
        QuotaDimension("rpm", limit=ten).limit,
        QuotaDimension("rpm", limit=10, window=ten).window,
        QuotaDimension("rpm", limit=10, default_cost=one).default_cost,
        Endpoint("a", weight=half).weight,
        NodeSet([WithWeight(ten)]).weights[0],
        Verdict(Outcome.RATE_LIMITED, retry_after=half).retry_after,
        Options(deadline=half).deadline,
        CheckSettings(interval=half).interval,
        as_bounds([half])[0],
        as_seconds("ttl", half),
        number("x", ten),
    ]
    assert kept == [10, 10, 10, 1, 0.5, 10, 0.5, 0.5, 0.5, 0.5, 0.5, 10]
    assert {type(each) for each in kept} <= {int, float}


@pytest.mark.skipif(COMPILED, reason="compiled functions take floats alone, and say so")
@pytest.mark.parametrize("kind", KINDS)
def test_a_real_number_of_any_kind_works_later(kind: Callable[[str], Any]) -> None:
    """Nothing that was accepted breaks when it is used: probes, peaks, quotas, costs, cooldowns."""
    clock = ManualClock(kind("1"))
    clock.advance(kind("0.5"))
    policy = ConsecutiveFailurePolicy(1, 1, kind("10"))
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", kind("10"), kind("60"))]))
    load = PeakEwma(kind("10"), failure_factor=kind("2"))
    balancer: Balancer[str] = Balancer(
        ["a"],
        LeastLoad(load),
        health=HealthTracker(policy, clock),
        quota=quota,
        panic_threshold=None,
    )
    for _ in range(2):
        with balancer.acquire(cost={"rpm": kind("1")}) as lease:
            clock.advance(kind("0.5"))
        lease.settle({"rpm": kind("0.5")})
    assert quota.remaining("a", "rpm") == 9
    assert quota.record_usage("a", {"rpm": kind("1")})
    assert quota.available_at("a", {"rpm": kind("2")}) == clock()
    assert balancer.acquire().rate_limited(kind("0.5"))
    with pytest.raises(NoNodeAvailable, match=r"retry after 0\.5 s"):
        balancer.pick()
    quota.mark_exhausted("a", kind("1"))
    clock.advance(kind("1"))
    assert balancer.acquire().failure()
    with pytest.raises(NoNodeAvailable, match="retry after 10 s"):
        balancer.pick()
    budget = RetryBudget(kind("0.5"), kind("0.5"), kind("10"), clock)
    budget.deposit()
    assert budget.balance() == 5.5


@pytest.mark.skipif(COMPILED, reason="compiled functions take ints and bools alike, and no others")
@pytest.mark.filterwarnings("ignore:a lease on node:ResourceWarning")
@pytest.mark.parametrize(("use", "named"), WHOLE)
def test_what_is_no_whole_number_is_named(use: Callable[[Any], object], named: str) -> None:
    """NumPy's ints will do; floats, bools and texts will not, nor what is too low."""
    use(np.int64(3))
    for value in (True, 2.0, "3", Decimal(3), None if named != "start" else "x"):
        pattern = rf"{named} is {re.escape(repr(value))}; it must be an int"
        with pytest.raises(TypeError, match=pattern):
            use(value)
    with pytest.raises(ValueError, match=rf"{named} is -1; it must be at least [01]"):
        use(-1)


def test_a_policy_tells_its_interval_in_floats() -> None:
    """It is asked for it again and again, so what it says must add up with times as it is."""

    class Policy(ConsecutiveFailurePolicy):
        interval: Any = 10.0

        def __init__(self) -> None:
            pass

        @property
        def probe_interval(self) -> Any:
            return self.interval

    for wrong in (Decimal(10), Fraction(10), "10", True, None):
        Policy.interval = wrong
        with pytest.raises(TypeError, match=r"probe_interval is .*; it must be an int or a float"):
            HealthTracker(Policy())
    Policy.interval = math.inf
    HealthTracker(Policy())


RING: ConsistentHash[str] = ConsistentHash()


@pytest.mark.parametrize("key", [True, 1.5, bytearray(b"k"), Decimal(5), np.bool_(True)])
def test_what_is_no_hash_key(key: Any) -> None:
    """A bool is none, though Python takes it for an int; nor is what may change."""
    message = wrong_type(r"hash_key is .*; it must be a str, bytes, int")
    with pytest.raises(TypeError, match=message):
        SelectionContext(key)
    with pytest.raises(TypeError, match=message):
        Balancer(["a"], RING).pick(hash_key=key)
    with pytest.raises(TypeError, match=message):
        RING.owner(["a"], key)


@pytest.mark.skipif(COMPILED, reason="compiled functions take Python's ints alone, and say so")
def test_an_int_of_numpys_is_a_hash_key() -> None:
    """It is the hash itself, as the int that it stands for."""
    five: Any = np.int64(5)
    wanted = RING.select(["a", "b", "c"], SelectionContext(5))
    context = SelectionContext(five)
    assert type(context.hash_key) is int
    assert RING.select(["a", "b", "c"], context) == wanted
    assert RING.owner(["a", "b", "c"], five) == wanted
    picked = Balancer(["a", "b", "c"], RING).pick(hash_key=five)
    assert ["a", "b", "c"].index(picked) == wanted


@pytest.mark.parametrize("key", ["\ud800", "user-\udfff"])
def test_half_a_character_is_no_hash_key(key: str) -> None:
    """A lone surrogate cannot be written in UTF-8, and the error says what to do about it."""
    nodes = ["a", "b"]
    message = r"hash_key is '.*ud.*', which has a lone surrogate .*; give bytes"
    asked: list[Callable[[], object]] = [
        lambda: RING.select(nodes, SelectionContext(key)),
        lambda: RING.peek(nodes, SelectionContext(key)),
        lambda: RING.owner(nodes, key),
        lambda: Balancer(nodes, RING).pick(hash_key=key),
        lambda: Balancer(nodes, RING).acquire(hash_key=key, exclude=["a"]),
        lambda: Balancer(nodes, RING).explain(hash_key=key),
    ]
    for each in asked:
        with pytest.raises(ValueError, match=message):
            each()
    given = key.encode("utf-8", "surrogatepass")
    assert RING.owner(nodes, given) is not None


@pytest.mark.parametrize("clock", [5, 123.4, "now", None])
def test_a_clock_can_be_called(clock: Any) -> None:
    """A reading in the place of a clock is refused, wherever a clock is taken."""
    takers: list[Callable[[Any], object]] = [
        lambda clock: HealthTracker(clock=clock),
        QuotaTracker,
        lambda clock: RetryBudget(clock=clock),
        lambda clock: CheckSettings(clock=clock),
    ]
    if clock is not None:  # which means another's
        takers += [lambda clock: Balancer(clock=clock), lambda clock: PeakEwma(clock=clock)]
    for take in takers:
        with pytest.raises(TypeError, match=r"clock is .*; it must be a function that returns sec"):
            take(clock)


@pytest.mark.parametrize("text", ["ab", "a", "", b"ab", bytearray(b"ab"), memoryview(b"ab")])
def test_a_text_is_no_collection_of_nodes(text: Any) -> None:
    """Its letters would be nodes, silently; whoever is given one refuses it."""
    context = SelectionContext("user-42")
    balancer: Balancer[Any] = Balancer(["a"])
    asked: list[Callable[[], object]] = [
        lambda: NodeSet(text),
        lambda: Balancer(text),
        lambda: balancer.replace(text),
        lambda: Filtered(RoundRobin(), lambda _: True).select(text),
        lambda: ConsistentHash().owner(text, "user-42"),
    ]
    strategies: list[Any] = [
        RoundRobin(),
        WeightedRoundRobin(),
        Random(),
        WeightedRandom(),
        LeastLoad(lambda _: 1.0),
        PowerOfTwoChoices(lambda _: 1.0),
        ConsistentHash(),
        MostAvailable(),
        FallbackChain([RoundRobin()]),
    ]
    for strategy in strategies:
        asked += [
            functools.partial(strategy.select, text, context),
            functools.partial(strategy.peek, text, context),
        ]
    for each in asked:
        with pytest.raises(TypeError, match=r"the nodes are .* character or byte .*; give a list"):
            each()
    assert balancer.nodes == ("a",)


def test_a_mappings_keys_are_nodes() -> None:
    """As everywhere in Python, to go through a mapping is to go through its keys."""
    addresses = {"a": "http://10.0.0.1", "b": "http://10.0.0.2"}
    assert Balancer(addresses).nodes == ("a", "b")
