"""Outlier detection: what makes an outlier, and for how long it is ejected."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import TypeVar

from loadwise._numbers import finite, shown, whole
from loadwise.health import HealthTracker
from loadwise.outliers.ejection import Ejection, EjectionTimes
from loadwise.outliers.ejector import Ejector, Rules, Share
from loadwise.outliers.rules import FailureShare, SlowShare, SuccessRate
from loadwise.outliers.watched import EjectorMember

__all__ = ["OutlierDetection"]

R = TypeVar("R")


class OutlierDetection:
    """Takes out nodes for a while that do worse than the rest of their fleet.

    It finds what no single result tells: a gray failure, such as a node that fails one request in
    five. Give it to a balancer as ``outliers=``. In intervals, whoever asks for a node or reports a
    failure sweeps: results since the last sweep are compared. An ejected node is UNHEALTHY, with
    the reason.

    Args:
        interval: Seconds from sweep to sweep, finite and > 0, counted from the balancer's
            construction.
        base_ejection: Seconds that the first ejection lasts, finite and > 0; the second in a row
            lasts twice as long, and so on. Each interval spent in the fleet takes one off.
        max_ejection: Seconds that no ejection exceeds, finite and >= ``base_ejection``.
        jitter: Seconds, finite and >= 0, by which each ejection is lengthened at random, at most.
        max_ejected: Share of the members, from 0 to 1. The first ejection is always allowed, more
            only while the share that is out is below this.
        consecutive_failures: Failures in a row that eject a node at once, >= 1; ``None`` for no
            such rule.
        success_rate: Rule for nodes far below the others' success rate; ``None`` for none.
        failure_share: Rule for nodes that fail most of their requests; ``None`` for none.
        significance: Chance, above 0 and below 1, that a rule may eject any node in a sweep though
            all nodes are alike: what differs from the rest by less than chance explains is left
            alone. Below a rule's ``min_nodes``, from two nodes on, it stands in for what needs that
            many. ``None``: as Envoy, without such a test.
        probe: Whether, when an ejection is over, one probe decides, by the health policy; else the
            node is HEALTHY at once, as in Envoy.
        slow_share: Rule for nodes that are slow without failing; ``None`` for none. It is not in
            force by default: where nodes are of different speed on purpose, it would eject the
            slower ones, and a strategy that goes by latency has the better answer.
        rng: Source of the jitter, and of whom to ask in large fleets; ``None`` for one of its own.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range.

    What counts as a failure is what counts for health: see ``failures`` of `Balancer`. Rate limits
    and cancellations count for nothing, nor do results of an ejected node. Active health checks
    are no requests: a passing one does not end an ejection, for a gray failure passes most of them.

    It belongs to one balancer: give each its own. With ``host`` of `Balancer`, the processes of a
    host share ejections, ``max_ejected`` and results, as of each one's last sweep. Runs of failures
    are those of one process. With health that is shared by Redis, ejections are not shared.

    Thread-safety: that of the balancer. A forked child keeps the ejections and counts afresh.

    Cost: O(1) per request, O(members) per sweep.

    Source: Envoy's outlier detection, of which the rules and times are; the test of significance is
    Fisher's exact test, corrected for the number of nodes (Bonferroni).

    Example:
        >>> from loadwise import Balancer, Outcome
        >>> from loadwise.testing import ManualClock
        >>> clock, detection = ManualClock(), OutlierDetection()
        >>> balancer = Balancer(list("abcde"), health=False, outliers=detection, clock=clock)
        >>> for number in range(1000):
        ...     node = "abcde"[number % 5]
        ...     bad = node == "e" and number % 2
        ...     balancer.report(node, Outcome.FAILURE if bad else Outcome.SUCCESS)
        >>> clock.advance(10.0)
        >>> print(detection.ejections["e"].reason)
        ejected: success rate 50 % is below 52 % (mean 90 %, 5 nodes)
    """

    def __init__(  # noqa: PLR0913 - one keyword for each thing that it decides
        self,
        *,
        interval: float = 10.0,
        base_ejection: float = 30.0,
        max_ejection: float = 300.0,
        jitter: float = 0.0,
        max_ejected: float = 0.1,
        consecutive_failures: int | None = 5,
        success_rate: SuccessRate | None = SuccessRate(),  # noqa: B008 - immutable
        failure_share: FailureShare | None = FailureShare(),  # noqa: B008 - immutable
        significance: float | None = 0.001,
        probe: bool = True,
        slow_share: SlowShare | None = None,
        rng: Random | None = None,
    ) -> None:
        self.interval = _above_zero("interval", interval)
        self.base_ejection = _above_zero("base_ejection", base_ejection)
        self.max_ejection = finite("max_ejection", max_ejection)
        if not self.max_ejection >= self.base_ejection:
            raise ValueError(
                f"max_ejection is {max_ejection!r}; it must be a finite number of seconds, at "
                f"least base_ejection, which is {base_ejection!r}"
            )
        self.jitter = finite("jitter", jitter)
        if not self.jitter >= 0:
            raise ValueError(
                f"jitter is {jitter!r}; it must be a finite number of seconds, at least 0"
            )
        self.max_ejected = finite("max_ejected", max_ejected)
        if not 0 <= self.max_ejected <= 1:
            raise ValueError(
                f"max_ejected is {max_ejected!r}; it must be a share of the members, from 0 to 1"
            )
        self.consecutive_failures = (
            None
            if consecutive_failures is None
            else whole("consecutive_failures", consecutive_failures, 1)
        )
        self.success_rate = _rule("success_rate", success_rate, SuccessRate)
        self.failure_share = _rule("failure_share", failure_share, FailureShare)
        self.slow_share = _rule("slow_share", slow_share, SlowShare)
        self.significance = None if significance is None else finite("significance", significance)
        if self.significance is not None and not 0 < self.significance < 1:
            raise ValueError(
                f"significance is {significance!r}; it must be a chance above 0 and below 1, such "
                f"as 0.001, or None for no test of it"
            )
        if not isinstance(probe, bool):
            raise TypeError(f"probe is {shown(probe)}; it must be True or False")
        self.probe = probe
        if not isinstance(rng, Random | None):
            raise TypeError(f"rng is {shown(rng)}; it must be a random.Random")
        self._rng = Random() if rng is None else rng
        self._ejector: Ejector | None = None

    @property
    def ejections(self) -> Mapping[Hashable, Ejection]:
        """The ejections that last, by the node's id; none before it belongs to a balancer."""
        return MappingProxyType({} if self._ejector is None else self._ejector.ejections)

    def check_free(self) -> None:
        """Raise ``ValueError`` if it belongs to a balancer."""
        if self._ejector is not None:
            raise ValueError(
                "outliers is an OutlierDetection that belongs to another balancer; its counts are "
                "of one fleet, so give each balancer its own"
            )

    def begin(
        self,
        name: str,
        members: Callable[[], Sequence[EjectorMember]],
        health: HealthTracker,
        on_ejection: Callable[[Hashable, Ejection], None] | None,
        *,
        share: Share | None = None,
    ) -> Ejector:
        """Begin to watch the members of a balancer, to which it belongs from now on.

        Args: as for `Ejector`.
        """
        self.check_free()
        times = EjectionTimes(self.base_ejection, self.max_ejection, self.jitter, self._rng)
        rules = Rules(
            self.interval,
            self.max_ejected,
            self.consecutive_failures,
            self.success_rate,
            self.failure_share,
            self.slow_share,
            self.significance,
            self.probe,
        )
        self._ejector = Ejector(
            name, rules, times, members, health, self._rng, on_ejection, share=share
        )
        return self._ejector


def _above_zero(name: str, value: float) -> float:
    seconds = finite(name, value)
    if not seconds > 0:
        raise ValueError(f"{name} is {value!r}; it must be a finite number of seconds above 0")
    return seconds


def _rule(name: str, value: R | None, kind: type[R]) -> R | None:
    if isinstance(value, type):
        raise TypeError(f"{name} is the class {value.__name__}; give an instance")
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} is {shown(value)}; it must be a {kind.__name__}, or None")
    return value
