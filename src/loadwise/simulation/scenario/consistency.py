"""Consistency of a scenario: its values go together, and its faults can happen."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from loadwise._numbers import number
from loadwise._tables.contenders import contender
from loadwise._tables.messages import explained, path_in
from loadwise.errors import nearest
from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.scenario.fleet import (
    added_groups,
    ids_of,
    run_seconds,
    seconds_of,
    server_groups,
    targets,
)
from loadwise.simulation.scenario.layout import SCENARIO
from loadwise.simulation.scenario.prompts import check_prompts
from loadwise.simulation.scenario.records import (
    Add,
    Clients,
    Conversations,
    Fault,
    Flap,
    Moment,
    Outliers,
    RestartClients,
    Scenario,
    SlowStartTable,
    Tokens,
    Trace,
)
from loadwise.strategies.catalogue import CATALOGUE

__all__ = ["check", "check_faults", "check_strategy", "validated"]

_LONGEST = 1e15
"""Seconds of a run; beyond, moments an eighth of a second apart would be the same."""
_MOST_SPELLS = 100_000
_BY_KEY = {name for entry in CATALOGUE if "hash_key" in entry.needs for name in entry.makers}
_BY_NUMBER = {name for entry in CATALOGUE if "numbered" in entry.needs for name in entry.makers}


def validated(scenario: object) -> Scenario:
    """Return a scenario that a program has made, its values checked as those of a file are.

    Numbers of other kinds (`decimal.Decimal`, those of NumPy) become ints and floats.

    Raises:
        TypeError: It is no `Scenario`.
        ScenarioError: A value is of the wrong kind or out of range, or values do not go together.

    Example:
        >>> from loadwise.simulation.scenario.records import Servers
        >>> made = Scenario(name="", about="", servers=Servers(count=3), load=Decimal("0.5"))
        >>> validated(made).load
        0.5
    """
    if not isinstance(scenario, Scenario):
        raise TypeError(
            f"scenario is {scenario!r}; it must be a Scenario, as load_scenario returns it"
        )
    raw = msgspec.to_builtins(scenario, builtin_types=(Decimal,), enc_hook=_as_number)
    try:
        plain = msgspec.convert(raw, Scenario)
    except msgspec.ValidationError as error:
        message = str(error)
        raise ScenarioError(explained(raw, SCENARIO, path_in(message), message)) from None
    check(plain)
    return plain


def _as_number(value: object) -> float:
    try:
        return number("a value", value)
    except (TypeError, ValueError) as error:
        raise ScenarioError(str(error)) from None


def check(scenario: Scenario) -> None:
    """Check that what a scenario says goes together. O(servers and faults).

    Raises:
        ScenarioError: It does not; the message names the place and the remedy.

    Example:
        >>> from loadwise.simulation.scenario.records import Crash, Servers
        >>> crash = Crash(at="50%", servers=("sever",))
        >>> check(Scenario(name="", about="", servers=Servers(count=3), faults=(crash,)))
        Traceback (most recent call last):
        ...
        loadwise.simulation.errors.ScenarioError: faults[0].servers: 'sever' is neither a server \
nor a group; did you mean 'server'? (the groups are server; servers are called server-1 and so on)
    """
    _check_fleet(scenario)
    _check_strategies(scenario)
    _check_zones(scenario)
    check_prompts(scenario)
    _check_costs(scenario)
    _check_options(scenario)
    _check_hosts(scenario.clients)
    _check_length(scenario)
    check_faults(scenario)
    callers, servers = scenario.callers, scenario.servers
    if callers.hedge and callers.timeout and callers.hedge >= callers.timeout:
        raise ScenarioError(
            f"callers.hedge is {callers.hedge:g} s, but an attempt is given up after "
            f"{callers.timeout:g} s: set it below callers.timeout"
        )
    if servers.cache and not scenario.clients.keys:
        raise ScenarioError(
            f"servers.cache is {servers.cache}, but requests have no keys: set clients.keys"
        )


def check_strategy(scenario: Scenario, name: str) -> None:
    """Check that a contender is known, and has what it needs.

    Raises:
        ScenarioError: It is not, or has not.
    """
    try:
        known = contender(name).name
    except ValueError as error:
        raise ScenarioError(str(error)) from None
    plain = known.partition("/")[0]
    if plain in _BY_KEY and not scenario.clients.keys:
        raise ScenarioError(f"{known!r} needs requests with keys: set clients.keys")
    if plain in _BY_NUMBER:
        _check_numbers(scenario, known)
    if plain == "zones":
        _check_local_zones(scenario, known)
    if plain == "split":
        _check_shares(scenario, known)


def _check_local_zones(scenario: Scenario, known: str) -> None:
    groups = server_groups(scenario)
    for group in (*groups, *added_groups(scenario)):
        if group.zone is None:
            raise ScenarioError(f"{known!r} needs servers with zones: {group.name!r} has none")
    zones = {group.zone for group in groups if group.zone}
    if not scenario.clients.zones:
        raise ScenarioError(f"{known!r} needs clients with zones: set clients.zones")
    for zone in scenario.clients.zones:
        if zone not in zones:
            raise ScenarioError(
                f"{known!r} needs a server in each client's zone, and there is none in "
                f"{zone!r}{nearest(zone, zones)} (the servers' zones are "
                f"{', '.join(sorted(zones))})"
            )


def _check_shares(scenario: Scenario, known: str) -> None:
    groups = (*server_groups(scenario), *added_groups(scenario))
    for group in groups:
        if group.share is None:
            raise ScenarioError(
                f"{known!r} needs a share for each group, and {group.name!r} has none: set share "
                f"in its table, 0 for none"
            )
    if not any(group.share for group in groups):
        raise ScenarioError(f"{known!r} needs a group with a share above 0")


def _check_numbers(scenario: Scenario, strategy: str) -> None:
    everybody = (*server_groups(scenario), *added_groups(scenario))
    if len(everybody) > 1:
        raise ScenarioError(
            f"{strategy!r} needs servers of different numbers, but those of each group begin at 1: "
            f"have one group, and add none"
        )


def _check_options(scenario: Scenario) -> None:
    """Check what only contenders with an option use, and that there are some."""
    outliers = scenario.outliers
    if outliers.max_ejection < outliers.base_ejection:
        raise ScenarioError(
            f"outliers.max_ejection is {outliers.max_ejection:g} s, below outliers.base_ejection, "
            f"which is {outliers.base_ejection:g} s"
        )
    known = [contender(name) for name in scenario.strategies]
    if outliers != Outliers() and not any(each.outliers for each in known):
        raise ScenarioError(_unused("outliers", known[0].name, "outliers"))
    if scenario.slow_start != SlowStartTable() and not any(each.slow_start for each in known):
        raise ScenarioError(_unused("slow_start", known[0].name, "slow-start"))


def _unused(table: str, name: str, option: str) -> str:
    return (
        f"{table} is set, but no strategy is run with it: name one with the option /{option} "
        f"behind it, such as {name}/{option}"
    )


def _check_fleet(scenario: Scenario) -> None:
    groups = server_groups(scenario)
    everybody = (*groups, *added_groups(scenario))
    _check_unique("a group", (group.name for group in everybody))
    for group in (*scenario.servers.groups, *(each.group for each in _adds(scenario))):
        if group.ids and group.count not in (1, len(group.ids)):
            raise ScenarioError(
                f"group {group.name!r} has a count of {group.count} and {len(group.ids)} ids: "
                f"leave out its count"
            )
    _check_unique("a server", (identity for group in everybody for identity in ids_of(group)))
    ids = {identity: group.name for group in everybody for identity in ids_of(group)}
    for group in everybody:
        if group.name in ids:
            raise ScenarioError(
                f"group {group.name!r} has the name of a server of group {ids[group.name]!r}: "
                f"call one of them something else"
            )
    if not any(group.weight for group in groups):
        raise ScenarioError("all servers have weight 0, so that none may be picked: set a weight")


def _check_hosts(clients: Clients) -> None:
    if clients.count % clients.per_host:
        raise ScenarioError(
            f"clients.per_host is {clients.per_host}, which does not divide clients.count, "
            f"{clients.count}: set clients.count to a multiple of it, such as "
            f"{-(-clients.count // clients.per_host) * clients.per_host}"
        )


def _adds(scenario: Scenario) -> Iterable[Add]:
    return (fault for fault in scenario.faults if isinstance(fault, Add))


def _check_strategies(scenario: Scenario) -> None:
    if not scenario.strategies:
        raise ScenarioError("strategies is empty: name one, such as p2c")
    for place, name in enumerate(scenario.strategies):
        try:
            check_strategy(scenario, name)
        except ScenarioError as error:
            raise ScenarioError(f"strategies[{place}]: {error}") from None
    _check_unique("a strategy", (contender(name).name for name in scenario.strategies))


def _check_zones(scenario: Scenario) -> None:
    everybody = (*server_groups(scenario), *added_groups(scenario))
    zones = {*scenario.clients.zones, *(group.zone for group in everybody if group.zone)}
    seen: set[frozenset[str]] = set()
    for place, pair in enumerate(scenario.network.pairs):
        where = f"network.pairs[{place}].zones"
        for zone in pair.zones:
            if zone not in zones:
                raise ScenarioError(
                    f"{where}: nobody is in {zone!r}{nearest(zone, zones)} (the zones are "
                    f"{', '.join(sorted(zones)) or 'none; set servers.zone and clients.zones'})"
                )
        if frozenset(pair.zones) in seen:
            raise ScenarioError(f"{where}: these two have been given a delay before")
        seen.add(frozenset(pair.zones))


def _check_costs(scenario: Scenario) -> None:
    tokens = isinstance(scenario.service, Tokens)
    counted = isinstance(scenario.service, Tokens | Conversations)
    kind = scenario.service.__struct_config__.tag
    _check_unique("a quota", (quota.name for quota in scenario.quotas))
    for place, quota in enumerate(scenario.quotas):
        if quota.counts == "tokens" and not counted:
            raise ScenarioError(
                f"quotas[{place}].counts is 'tokens', but service of kind {kind!r} has none: "
                f"set service.kind to tokens, or count requests"
            )
    if not isinstance(scenario.arrivals, Trace):
        return
    columns = len(scenario.arrivals.cost)
    if tokens and columns != 2:  # noqa: PLR2004 - as the message says
        raise ScenarioError(
            f"arrivals.cost names {columns} columns; service of kind 'tokens' takes two: tokens "
            f"read and tokens written"
        )
    if not tokens and columns > 1:
        raise ScenarioError(
            f"arrivals.cost names {columns} columns; service of kind {kind!r} takes one, of "
            f"seconds at speed 1, or none; for two columns of tokens set service.kind to tokens"
        )


def _check_length(scenario: Scenario) -> None:
    seconds = run_seconds(scenario)
    if seconds is not None and seconds > _LONGEST:
        raise ScenarioError(
            f"requests arrive for {seconds:.3g} s, and a run has no more than {_LONGEST:g} s: set "
            f"a higher load or arrivals.rate, or fewer requests"
        )


def _check_unique(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ScenarioError(f"{what} called {name!r} is there twice: names are unique")
        seen.add(name)


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
    """Tell whether one moment is before another, as far as that can be known."""
    if isinstance(one, str) is isinstance(other, str):
        return seconds_of(one, 1.0) < seconds_of(other, 1.0)
    return seconds is not None and seconds_of(one, seconds) < seconds_of(other, seconds)
