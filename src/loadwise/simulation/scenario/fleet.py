"""Servers of a scenario: their groups and ids, and how much they can do."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from msgspec.structs import replace

from loadwise.errors import nearest
from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.scenario.records import (
    Add,
    Conversations,
    Group,
    LlmTable,
    Moment,
    PromptTrace,
    Scenario,
    Servers,
    Service,
    Tokens,
    Trace,
)

__all__ = [
    "added_groups",
    "capacity",
    "ids_of",
    "mean_prompt",
    "mean_service",
    "run_seconds",
    "seconds_of",
    "server_groups",
    "targets",
]

_PLAIN = LlmTable()


def ids_of(group: Group) -> tuple[str, ...]:
    """Return the ids of a group's servers, O(count).

    Example:
        >>> ids_of(Group(name="slow", count=2))
        ('slow-1', 'slow-2')
        >>> ids_of(Group(name="main", ids=("10.0.0.1:80", "10.0.0.2:80")))
        ('10.0.0.1:80', '10.0.0.2:80')
    """
    return group.ids or tuple(f"{group.name}-{number}" for number in range(1, group.count + 1))


def server_groups(scenario: Scenario) -> tuple[Group, ...]:
    """Return the groups of the initial fleet, with what ``[servers]`` says for all filled in.

    Servers without groups are one group called ``server``. A queue limit or a zone that is still
    ``None`` is none.

    Raises:
        ScenarioError: The scenario names both a count and groups, or neither.

    Example:
        >>> from loadwise.simulation.scenario.records import Servers
        >>> [group] = server_groups(Scenario(name="", about="", servers=Servers(count=3)))
        >>> group.name, group.count, group.speed
        ('server', 3, 1.0)
    """
    servers = scenario.servers
    if servers.groups and servers.count is not None:
        raise ScenarioError(
            f"servers.count is {servers.count}, but there are groups, and each has a count of its "
            f"own: set servers.groups.0.count and so on instead"
        )
    if servers.groups:
        return tuple(_filled(group, servers) for group in servers.groups)
    if servers.count is None:
        raise ScenarioError("servers has neither a count nor groups: set servers.count")
    return (_filled(Group(name="server", count=servers.count), servers),)


def added_groups(scenario: Scenario) -> tuple[Group, ...]:
    """Return the groups that ``add`` faults bring, in their order, filled in as the others."""
    return tuple(
        _filled(fault.group, scenario.servers)
        for fault in scenario.faults
        if isinstance(fault, Add)
    )


def targets(scenario: Scenario, names: Iterable[str]) -> tuple[str, ...]:
    """Return the ids of the servers that are meant by ids or names of groups, each once.

    Groups that join later can be named, too. O(servers).

    Raises:
        ScenarioError: There is no such server and no such group.

    Example:
        >>> from loadwise.simulation.scenario.records import Servers
        >>> fleet = Scenario(name="", about="", servers=Servers(count=2))
        >>> targets(fleet, ["server-2", "server"])
        ('server-2', 'server-1')
    """
    members = {
        group.name: ids_of(group) for group in (*server_groups(scenario), *added_groups(scenario))
    }
    ids = {each for group in members.values() for each in group}
    found: dict[str, None] = {}
    for name in names:
        if name in members:
            found.update(dict.fromkeys(members[name]))
        elif name in ids:
            found[name] = None
        else:
            hint = nearest(name, [*members, *ids])
            raise ScenarioError(
                f"{name!r} is neither a server nor a group{hint} (the groups are "
                f"{', '.join(members)}; servers are called {next(iter(members.values()))[0]} and "
                f"so on)"
            )
    return tuple(found)


def mean_prompt(service: Conversations) -> float:
    """Return the mean tokens of the prompts of conversations.

    Of a number of turns that is geometric, the mean over requests of how many have come, this one
    included, is the mean number of turns.

    Example:
        >>> mean_prompt(Conversations(system=1000, document=500.0, message=50.0, output=150.0))
        2150.0
    """
    history = service.turns * service.message + (service.turns - 1) * service.output
    return service.system + service.document + history


def mean_service(service: Service, llm: LlmTable = _PLAIN) -> float:
    """Return the mean seconds that a request takes at speed 1; of a prompt, to compute it uncached.

    Args:
        service: What takes time.
        llm: How servers of kind ``llm`` work, for conversations.

    Example:
        >>> from loadwise.simulation.scenario.records import Tokens
        >>> mean_service(Tokens(prompt=1000, prefill=5000, output=100, decode=50))
        2.2
    """
    if isinstance(service, Conversations):
        return llm.prefill_base + mean_prompt(service) / llm.prefill_rate
    if isinstance(service, Tokens):
        return service.prompt / service.prefill + service.output / service.decode
    return service.mean


def capacity(scenario: Scenario) -> float:
    """Return how many requests per second the initial fleet can serve when all are busy.

    Caches do not count: a fleet that finds keys at hand does more. O(groups).

    Example:
        >>> from loadwise.simulation.scenario.records import Exponential, Servers
        >>> servers = Servers(count=4, parallelism=2, speed=0.5)
        >>> capacity(Scenario(name="", about="", servers=servers, service=Exponential(mean=0.01)))
        400.0
    """
    work = sum(
        group.count * (group.parallelism or 1) * (group.speed or 1.0)
        for group in server_groups(scenario)
    )
    return work / mean_service(scenario.service, scenario.servers.llm)


def run_seconds(scenario: Scenario) -> float | None:
    """Return for how many seconds requests arrive, nearly; ``None`` for a recorded trace.

    Example:
        >>> from loadwise.simulation.scenario.records import Poisson, Servers
        >>> arrivals = Poisson(rate=200.0)
        >>> fleet = Servers(count=3)
        >>> run_seconds(Scenario(name="", about="", servers=fleet, arrivals=arrivals, requests=500))
        2.5
    """
    arrivals = scenario.arrivals
    if isinstance(arrivals, Trace | PromptTrace):
        return None
    rate = arrivals.rate or scenario.load * capacity(scenario)
    return scenario.requests / rate if rate else inf


def seconds_of(moment: Moment, seconds: float) -> float:
    """Return a moment or a length in seconds.

    Args:
        moment: Seconds, or a share of the run such as ``"30%"``.
        seconds: How long the run is.

    Example:
        >>> seconds_of("30%", 50.0), seconds_of(7, 50.0)
        (15.0, 7.0)
    """
    if isinstance(moment, str):
        return float(moment.removesuffix("%")) / 100.0 * seconds
    return float(moment)


def _filled(group: Group, servers: Servers) -> Group:
    return replace(
        group,
        count=len(group.ids) or group.count,
        parallelism=group.parallelism or servers.parallelism,
        speed=group.speed or servers.speed,
        queue_limit=servers.queue_limit if group.queue_limit is None else group.queue_limit,
        zone=servers.zone if group.zone is None else group.zone,
        weight=servers.weight if group.weight is None else group.weight,
        priority=servers.priority if group.priority is None else group.priority,
    )
