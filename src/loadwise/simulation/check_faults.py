"""Whether the faults of a scenario can happen: to servers that are there, and within the run."""

from __future__ import annotations

from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.faults import seconds_of
from loadwise.simulation.fleet import ids_of, run_seconds, targets
from loadwise.simulation.scenario import Add, Fault, Flap, Moment, RestartClients, Scenario

__all__ = ["check_faults"]

_MOST_SPELLS = 100_000


def check_faults(scenario: Scenario, seconds: float | None = None) -> None:
    """Check that all faults can happen. O(servers and faults).

    Moments are held against how long requests arrive; with a recorded trace, that is not known
    before it has been read, and shares of the run are compared with each other only.

    Args:
        scenario: What is to happen.
        seconds: How long requests arrive, once it is known of a recorded trace.

    Raises:
        ScenarioError: A fault hits nobody, or at a moment that does not come.
    """
    seconds = run_seconds(scenario) if seconds is None else seconds
    joining = {
        identity: (place, fault.at)
        for place, fault in enumerate(scenario.faults)
        if isinstance(fault, Add)
        for identity in ids_of(fault.group)
    }
    for place, fault in enumerate(scenario.faults):
        where = f"faults[{place}]"
        _check_moments(where, fault, seconds)
        if isinstance(fault, Add | RestartClients):
            continue
        if not fault.servers:
            raise ScenarioError(f"{where}.servers is empty: name servers or groups")
        try:
            hit = targets(scenario, fault.servers)
        except ScenarioError as error:
            raise ScenarioError(f"{where}.servers: {error}") from None
        for identity in hit:
            if identity not in joining:
                continue
            other, joins = joining[identity]
            if _before(fault.at, joins, seconds) or (fault.at == joins and place < other):
                raise ScenarioError(
                    f"{where} hits {identity!r} before it joins by faults[{other}]: set a later "
                    f"{where}.at"
                )


def _check_moments(where: str, fault: Fault, seconds: float | None) -> None:
    for key in ("at", "lasts", "down", "up"):
        moment: Moment | None = getattr(fault, key, None)
        if isinstance(moment, str) and seconds_of(moment, 1.0) > 1.0:
            raise ScenarioError(f"{where}.{key} is {moment}; a run has no more than 100%")
    if seconds is not None and seconds_of(fault.at, seconds) > seconds:
        raise ScenarioError(
            f"{where}.at is {fault.at} s, but requests arrive for {seconds:.3g} s only: set an "
            f'earlier moment, or a share of the run such as "50%"'
        )
    if isinstance(fault, Flap):
        _check_flap(where, fault, seconds)


def _check_flap(where: str, fault: Flap, seconds: float | None) -> None:
    for key, moment in (("down", fault.down), ("up", fault.up)):
        if not seconds_of(moment, 1.0):
            raise ScenarioError(f"{where}.{key} is {moment}; it must be more than nothing")
    if seconds is None:
        return
    cycle = seconds_of(fault.down, seconds) + seconds_of(fault.up, seconds)
    if seconds > _MOST_SPELLS * cycle:
        raise ScenarioError(
            f"{where} goes down and up in {cycle:g} s, more than {_MOST_SPELLS:,} times in the "
            f"{seconds:.3g} s of the run: set a longer down or up"
        )


def _before(one: Moment, other: Moment, seconds: float | None) -> bool:
    """Whether one moment is before another, as far as that can be known."""
    if isinstance(one, str) is isinstance(other, str):
        return seconds_of(one, 1.0) < seconds_of(other, 1.0)
    return seconds is not None and seconds_of(one, seconds) < seconds_of(other, seconds)
