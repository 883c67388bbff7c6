"""Load measures that go by all processes of a host."""

from __future__ import annotations

from collections.abc import Hashable, Sized
from math import exp, inf, log
from typing import Final, Protocol

from loadwise.balancer.slot import Ageing, Further
from loadwise.load import MEASURED, UNMEASURED_PENALTY, Cell, EwmaCell, InFlight, PeakEwma
from loadwise.outcome import Outcome
from loadwise.shared_memory._cells import HostCell
from loadwise.shared_memory._layout import AGE_ORIGIN, SCORE_ORIGIN
from loadwise.shared_memory._tallies import AgeTally, CountTally, MixedTally

__all__ = ["CellSource", "HostInFlight", "HostPeakEwma"]

_MOST_REQUESTS: Final = 2**31
"""More than a sum of requests can be: a number in it was forged."""
_TABLED: Final = len(MEASURED)
_SLOWEST: Final = log(1e9)
"""Logarithm of more seconds than a request can take."""
_AHEAD: Final = 60.0
"""Seconds that a time may be ahead of what was the latest when it was last looked."""


class CellSource(Protocol):
    """Gives the entry of a node in the host's memory."""

    def cell(self, node_id: Hashable) -> HostCell:
        """Return the entry of one node, the same for as long as anyone holds it."""
        ...

    def forget(self, cell: HostCell) -> None:
        """Have all processes take a node for one never measured."""
        ...


class HostInFlight(InFlight):
    """Load as the number of requests that all processes of the host have in flight.

    Args:
        source: Where the entries are.

    Thread-safety: as `InFlight`.

    Cost: O(processes) to read.
    """

    def __init__(self, source: CellSource) -> None:
        super().__init__()
        self._source = source

    def cell(self, node_id: Hashable) -> HostCell:
        """Return the counter of one node."""
        return self._source.cell(node_id)

    def load(self, cell: Cell) -> float:
        """Return a node's requests in flight, of all processes."""
        return self.rank(cell)

    @staticmethod
    def rank(cell: Sized) -> int:
        """Return a node's requests in flight, of all processes."""
        shared: HostCell = cell  # type: ignore[assignment]  # as made by cell()
        return sum(shared.seen)

    @staticmethod
    def prefers(first: HostCell, second: HostCell) -> bool:
        """Return whether the load of the first is at most that of the second."""
        return sum(first.seen) <= sum(second.seen)

    @staticmethod
    def total_of(cell: Cell) -> int:
        """Return a node's requests in flight, of all processes."""
        shared: HostCell = cell  # type: ignore[assignment]  # as made by cell()
        return sum(shared.seen)

    @staticmethod
    def elsewhere_of(cell: Cell) -> int:
        """Return how many of them other processes have."""
        shared: HostCell = cell  # type: ignore[assignment]  # as made by cell()
        return shared.elsewhere

    @staticmethod
    def slot_tally(cell: Cell, others: tuple[list[None], ...], ageing: Ageing) -> Further:
        """Return what a slot is to tell of its requests."""
        shared: HostCell = cell  # type: ignore[assignment]  # as made by cell()
        tally = CountTally(shared)
        return MixedTally(tally, others, ageing) if others else tally


class HostPeakEwma(PeakEwma):
    """Load as `PeakEwma`, by what all processes of the host know.

    A node's requests are the sum of all. Of costs, each faded since it was measured, the highest
    counts, and of ages that of the oldest request.

    Args:
        source: Where the entries are.
        tau: As for `PeakEwma`.
        failure_factor: As for `PeakEwma`.

    Thread-safety: as `PeakEwma`.

    Cost: O(processes) to read.
    """

    def __init__(self, source: CellSource, tau: float, failure_factor: float) -> None:
        super().__init__(tau, failure_factor=failure_factor)
        self._source = source
        self.tau = tau
        self.factor = failure_factor
        self._mixed = False
        self._highest = inf
        # What is written as the highest score of all is taken for it where it is below this.
        self._trusted = inf

    def expect(self, now: float) -> None:
        """Take what is beyond any score that there can be now for forged."""
        self._highest = SCORE_ORIGIN + _SLOWEST + (now + _AHEAD) / self.tau
        self._trusted = 0.0 if self._mixed else self._highest

    def mix(self, *, mixed: bool) -> None:
        """Say whether other processes have another ``tau``, so that scores do not compare."""
        self._mixed = mixed
        self._trusted = 0.0 if mixed else self._highest

    def cell(self, node_id: Hashable) -> HostCell:
        """Return the entry of one node."""
        return self._source.cell(node_id)

    def own_time(self, moment: float) -> float:
        """Return a reading of the clock in the measure's own time."""
        if moment >= self._bound:
            self._bound = moment
            return moment
        return self._placed(moment)

    def begin(self, cell: EwmaCell, token: int, started: float) -> None:
        """Let a request age, and tell all."""
        super().begin(cell, token, started)
        shared: HostCell = cell  # type: ignore[assignment]  # as made by cell()
        shared.publish_age()

    def slot_tally(self, cell: Cell, others: tuple[list[None], ...], ageing: Ageing) -> Further:
        """Return what a slot is to tell of its requests."""
        shared: HostCell = cell  # type: ignore[assignment]  # as made by cell()
        tally = AgeTally(shared, self)
        rest = tuple((measure, each) for measure, each in ageing if each is not cell)
        return MixedTally(tally, others, rest) if others else tally

    def observe(self, cell: Cell, latency: float, outcome: Outcome, now: float) -> None:
        """Take a sample, and tell all."""
        PeakEwma.observe(self, cell, latency, outcome, now)
        # As HostCell.publish_cost does it, without looking at each row where that can be known.
        shared: HostCell = cell  # type: ignore[assignment]  # as made by cell()
        gauge = shared.gauge
        score = gauge.score
        if gauge.weights is MEASURED and -SCORE_ORIGIN < score < inf:
            own, peak = shared.my_score, shared.peak
            before, told = own[0], score + SCORE_ORIGIN
            own[0] = told
            highest = peak[0]
            if told >= highest:
                peak[0] = told
            elif before >= highest:
                shared.publish_peak()
            if gauge.score == score:
                return
        shared.publish_cost()

    def forget(self, cell: Cell) -> None:
        """Have all processes take a node for never measured."""
        shared: HostCell = cell  # type: ignore[assignment]  # as made by cell()
        self.forget_here(shared)
        self._source.forget(shared)

    def forget_here(self, cell: HostCell) -> None:
        """Take a node for never measured, in this process."""
        super().forget(cell)
        cell.publish_cost()

    def _peak(self, cell: HostCell) -> float:
        """Return the highest score of all processes, above 0; or 0, if none has one."""
        peak = cell.peak[0]
        return peak if 0.0 <= peak < self._trusted else self._sound_peak(cell)

    def _sound_peak(self, cell: HostCell) -> float:
        """Return the same where not all fade alike, and leave out what cannot be."""
        found, now = 0.0, self._now()
        for row, score in enumerate(cell.scores):
            tau = cell.memory.tau(row)
            if 0.0 < score < inf and 0.0 < tau < inf:
                # As it would be now by the other's time constant, and since then by this one's.
                own = score - now / tau + now / self.tau
                if found < own < self._highest:
                    found = own
        return found

    def rank(self, cell: EwmaCell) -> float:  # type: ignore[override]  # a method, where it was static
        """Return a number that orders cells as their `load` does, as `PeakEwma.rank`."""
        shared: HostCell = cell  # type: ignore[assignment]  # as made by cell()
        pending, peak = sum(shared.seen), shared.peak[0]
        if not 0.0 <= peak < self._trusted:
            peak = self._sound_peak(shared)
        try:
            if peak:
                return peak - SCORE_ORIGIN + MEASURED[pending]
            score, weights = cell.gauge.score, cell.gauge.weights
            return score + weights[pending]
        except IndexError:
            score, weights = cell.gauge.score, cell.gauge.weights
            if peak:
                score, weights = peak - SCORE_ORIGIN, MEASURED
            pending = min(pending, _MOST_REQUESTS)
            if weights[1] < UNMEASURED_PENALTY:
                return score + log(pending + 1)
            return score + UNMEASURED_PENALTY * pending

    def aged_rank(self, cell: EwmaCell, rank: float) -> float:
        """Return the rank with regard to the age of requests, from that without."""
        shared: HostCell = cell  # type: ignore[assignment]  # as made by cell()
        return self._aged(shared, rank, self._clock())  # the host's: it does not go back

    def _aged(self, cell: HostCell, rank: float, now: float) -> float:
        """Return the same, as of ``now``."""
        since = cell.since
        if not since < now:
            return rank
        aged = log(now - since) + now / self.tau
        if aged <= rank:
            return rank
        if cell.ages[cell.eldest] != AGE_ORIGIN - since:
            ages = cell.ages.tolist()
            age = max(ages)
            oldest = AGE_ORIGIN - age if 0.0 <= age <= AGE_ORIGIN else self._sound_oldest(cell)
            if not oldest < now:
                cell.since = now
                return rank
            cell.eldest, cell.since = ages.index(age), oldest
            aged = log(now - oldest) + now / self.tau
        return aged if aged > rank else rank  # noqa: FURB136 - a rank that is no number stays

    @staticmethod
    def _sound_oldest(cell: HostCell) -> float:
        """Return when the oldest request began, leaving out what cannot be."""
        return min((AGE_ORIGIN - age for age in cell.ages if 0.0 < age <= AGE_ORIGIN), default=inf)

    def prefers(self, first: EwmaCell, second: EwmaCell) -> bool:
        """Return whether the load of the first is at most that of the second.

        An age can but raise a load, and nothing that waits began before `HostCell.since`. So rows
        are looked at for ages only where that leaves it open which is the lower.
        """
        shared: HostCell = first  # type: ignore[assignment]  # as made by cell()
        rival: HostCell = second  # type: ignore[assignment]  # as above
        one, other, trusted = shared.peak[0], rival.peak[0], self._trusted
        mine, theirs = sum(shared.seen), sum(rival.seen)
        if 0.0 < one < trusted and 0.0 < other < trusted and mine < _TABLED > theirs:
            one += MEASURED[mine]
            other += MEASURED[theirs]
            if one <= other:
                if not mine:
                    return True
                since, higher = shared.since, other
            else:
                if not theirs:
                    return False
                since, higher = rival.since, one
            now = self._clock()  # the host's: it does not go back
            if not since < now or log(now - since) + now / self.tau + SCORE_ORIGIN < higher:
                return one <= other
            return self._prefers_aged(shared, rival, one - SCORE_ORIGIN, other - SCORE_ORIGIN)
        return self._prefers_aged(shared, rival, self.rank(first), self.rank(second))

    def _prefers_aged(self, first: HostCell, second: HostCell, one: float, other: float) -> bool:
        """Return the same, from the ranks without the age of requests."""
        now = self._clock()
        if one <= other:
            one = self._aged(first, one, now)
            if one > other:
                other = self._aged(second, other, now)
        else:
            other = self._aged(second, other, now)
            if other > one:
                one = self._aged(first, one, now)
        return one <= other or other != other  # noqa: PLR0124 - only NaN differs from itself

    def load(self, cell: Cell) -> float:
        """Return ``cost * (in flight + 1)`` or the age of the oldest request, in seconds."""
        shared: HostCell = cell  # type: ignore[assignment]  # as made by cell()
        pending, peak, now = sum(shared.seen), self._peak(shared), self._now()
        if peak:
            load = self._seconds(peak, now) * (pending + 1)
        else:
            gauge = shared.gauge
            idle = gauge.weights[min(pending, 1)]
            if gauge.weights[1] >= UNMEASURED_PENALTY and (pending or idle == -inf):
                load = UNMEASURED_PENALTY * pending
            else:
                load = 0.0 if idle == -inf else self._faded(gauge, now) * (pending + 1)
        age = now - self._sound_oldest(shared)
        return age if age > load else load  # noqa: FURB136 - a load that is no number stays

    def _seconds(self, peak: float, now: float) -> float:
        return exp(min(peak - SCORE_ORIGIN - now / self.tau, _SLOWEST))

    def cost(self, cell: Cell) -> float | None:
        """Return the present cost in seconds, or ``None`` for a node never measured."""
        shared: HostCell = cell  # type: ignore[assignment]  # as made by cell()
        peak = self._peak(shared)
        return self._seconds(peak, self._now()) if peak else super().cost(cell)

    def pending(self, cell: Cell) -> int:
        """Return a node's requests in flight, of all processes."""
        shared: HostCell = cell  # type: ignore[assignment]  # as made by cell()
        return sum(shared.seen)

    def total_of(self, cell: Cell) -> int:
        """Return a node's requests in flight, of all processes."""
        return self.pending(cell)

    @staticmethod
    def elsewhere_of(cell: Cell) -> int:
        """Return how many of them other processes have."""
        shared: HostCell = cell  # type: ignore[assignment]  # as made by cell()
        return shared.elsewhere

    def has_waiting(self, cell: EwmaCell) -> bool:
        """Tell whether any request has no first byte yet."""
        shared: HostCell = cell  # type: ignore[assignment]  # as made by cell()
        return max(shared.ages) > 0.0
