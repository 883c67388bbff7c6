"""Records of a scenario: a fleet, its load, its callers and its faults, all frozen.

The records are what a scenario's TOML file holds, one table each, and all of it stands on this one
page, as long as it is. Bounds and units stand beside the fields; reading a file checks them.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from loadwise._tables.fields import (
    Count,
    Factor,
    PositiveSeconds,
    Priority,
    Rate,
    Seconds,
    Share,
    TableRecord,
    TokenCount,
    TokenRate,
)
from loadwise._tables.records import Health, LimitTable, Outliers, Quota, Retries, SlowStartTable

__all__ = [
    "Add",
    "Arrivals",
    "Bursty",
    "Callers",
    "Clients",
    "Constant",
    "Conversations",
    "Crash",
    "Deterministic",
    "Drain",
    "Exponential",
    "Fail",
    "Fault",
    "Flap",
    "Group",
    "Hang",
    "Health",
    "LimitTable",
    "LlmTable",
    "Lognormal",
    "Network",
    "Outliers",
    "Pair",
    "Pareto",
    "Poisson",
    "PromptTrace",
    "Quota",
    "Ramp",
    "RestartClients",
    "Scenario",
    "Servers",
    "Service",
    "Slow",
    "SlowStartTable",
    "Tokens",
    "Trace",
]

Moment = (
    Seconds
    | Annotated[
        str,
        Meta(pattern=r"^[0-9]+(\.[0-9]+)?%\Z", description='a share of the run such as "30%"'),
    ]
)
"""A point of the timeline or a length of it: seconds, or a share of the run such as ``"30%"``."""


class Group(TableRecord, frozen=True):
    """Servers that are alike. What is not said is as in ``[servers]``.

    Attributes:
        name: Their ids are this name and a number: ``slow-1``.
        count: How many there are.
        ids: Their ids, where those are others; then ``count`` is left out.
        parallelism: Requests that one works on at a time.
        speed: How fast it works; 1 is the speed that service times are given for.
        queue_limit: Requests that may wait at one; more are rejected.
        zone: Where they stand.
        weight: Their weight, for strategies that go by weight.
        priority: Their priority, for ``tiers``; those of the lowest are asked first.
        share: Their share of the requests, for ``split``; any unit, such as per cent.
    """

    name: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z][A-Za-z0-9_-]*\Z",
            description="a name of letters, digits, - and _ that begins with a letter",
        ),
    ]
    count: Count = 1
    ids: tuple[str, ...] = ()
    parallelism: Count | None = None
    speed: Factor | None = None
    queue_limit: Annotated[int, Meta(ge=0, description="a whole number")] | None = None
    zone: str | None = None
    weight: Annotated[float, Meta(ge=0, le=1e6, description="a weight")] | None = None
    priority: Priority | None = None
    share: Annotated[float, Meta(ge=0, le=1e6, description="a share, in any unit")] | None = None


class LlmTable(TableRecord, frozen=True):
    """Work of servers of kind ``llm``: prompts are computed in turn, and answers written together.

    The part of a prompt that is cached is not computed again. Times are at speed 1.

    Attributes:
        prefill: How prompts are computed: ``"whole"``, one at a time; ``"chunked"``, in steps that
            several may share; ``"coupled"``, the same, and each step also writes a token of every
            answer, so that both slow each other.
        prefill_rate: Prompt tokens computed per second.
        prefill_base: Seconds that each prompt takes besides.
        step_tokens: Tokens of a step at most, those of answers first; not with ``"whole"``.
        decode_base: Seconds that a token of an answer takes where no other is written.
        decode_each: Seconds that it takes more for each other answer that is written meanwhile.
        batch: Requests in work at a time; the others wait.
        blocks: Blocks of computed prompts that a server keeps, the least recently used given up
            first, and of a prompt its end before its beginning; 0 for none.
        block_tokens: Tokens of a block.
    """

    prefill: Annotated[
        str,
        Meta(pattern=r"^(whole|chunked|coupled)\Z", description='"whole", "chunked" or "coupled"'),
    ] = "whole"
    prefill_rate: TokenRate = 8000.0
    prefill_base: Seconds = 0.010
    step_tokens: Count = 2048
    decode_base: Seconds = 0.030
    decode_each: Seconds = 0.0003
    batch: Count = 128
    blocks: Annotated[int, Meta(ge=0, le=100_000_000, description="a whole number")] = 2000
    block_tokens: Annotated[int, Meta(ge=4, le=100_000, description="a whole number")] = 512


class Servers(TableRecord, frozen=True):
    """The fleet: ``count`` servers that are alike, or groups of them.

    Attributes:
        kind: ``"plain"``, or ``"llm"`` for servers of a language model, as ``llm`` describes them.
        count: How many, unless there are groups; they are called ``server-1`` and so on.
        parallelism: Requests that one works on at a time.
        speed: How fast it works; 1 is the speed that service times are given for.
        queue_limit: Requests that may wait at one; more are rejected. No limit by default.
        zone: Where they stand.
        weight: Their weight, for strategies that go by weight.
        priority: Their priority, for ``tiers``; those of the lowest are asked first.
        cache: Keys whose data one server keeps at hand, the least recently used given up first.
            0 for none.
        cached: Service time of a request whose key is at hand, as a share of the full one.
        groups: Servers that differ.
        llm: How those of kind ``llm`` work.
    """

    kind: Annotated[str, Meta(pattern=r"^(plain|llm)\Z", description='"plain" or "llm"')] = "plain"
    count: Count | None = None
    parallelism: Count = 1
    speed: Factor = 1.0
    queue_limit: Annotated[int, Meta(ge=0, description="a whole number")] | None = None
    zone: str | None = None
    weight: Annotated[float, Meta(ge=0, le=1e6, description="a weight")] = 1.0
    priority: Priority = 0
    cache: Annotated[int, Meta(ge=0, description="a whole number")] = 0
    cached: Share = 0.1
    groups: tuple[Group, ...] = ()
    llm: LlmTable = LlmTable()


class Poisson(TableRecord, frozen=True, tag="poisson", tag_field="kind"):
    """Requests that arrive independently of each other.

    Attributes:
        rate: Requests per second; by default what the scenario's ``load`` says.
    """

    rate: Rate | None = None


class Constant(TableRecord, frozen=True, tag="constant", tag_field="kind"):
    """Requests at even intervals.

    Attributes:
        rate: Requests per second; by default what the scenario's ``load`` says.
    """

    rate: Rate | None = None


class Bursty(TableRecord, frozen=True, tag="bursty", tag_field="kind"):
    """A Poisson process that switches between calm and burst (Markov-modulated, two states).

    Attributes:
        rate: Mean requests per second; by default what the scenario's ``load`` says.
        burst: How many times higher the rate is in a burst than in between.
        burst_seconds: Mean length of a burst.
        calm_seconds: Mean time between bursts.
    """

    rate: Rate | None = None
    burst: Annotated[float, Meta(ge=1, le=1e6, description="a factor")] = 5.0
    burst_seconds: PositiveSeconds = 1.0
    calm_seconds: PositiveSeconds = 9.0


class Ramp(TableRecord, frozen=True, tag="ramp", tag_field="kind"):
    """A Poisson process whose rate goes evenly from one value to another over the run.

    Attributes:
        rate: Mean requests per second; by default what the scenario's ``load`` says.
        begin: Rate at the beginning, as a share of the mean. It ends as far on the other side.
    """

    rate: Rate | None = None
    begin: Annotated[float, Meta(ge=0, le=1.9, description="a factor")] = 0.2


class Trace(TableRecord, frozen=True, tag="trace", tag_field="kind"):
    """Requests that arrive as recorded in a CSV file with a header.

    Attributes:
        file: The file; a relative path is relative to the scenario's own file.
        time: Column of the arrival times: numbers of seconds, or dates with times.
        cost: Columns of what a request costs, in the order in which ``service`` takes them.
        speed: How many times faster than recorded it is played.
    """

    file: str
    time: str
    cost: tuple[str, ...] = ()
    speed: Factor = 1.0


class PromptTrace(TableRecord, frozen=True, tag="prompts", tag_field="kind"):
    """Prompts that arrive as recorded in a JSONL file, in the format of Mooncake's traces.

    Each line is an object with ``timestamp`` in ms, ``input_length`` and ``output_length`` in
    tokens, and ``hash_ids``, the prompt's blocks of ``servers.llm.block_tokens`` tokens: equal ids
    mean equal prompts up to there. Requests of the same time are spread evenly over the step to the
    next time: the shortest in the file, at most 3 s, as it is in Mooncake's own traces.

    Attributes:
        file: The file; a relative path is relative to the scenario's own file.
        speed: How many times faster than recorded it is played.
    """

    file: str
    speed: Factor = 1.0


Arrivals = Poisson | Constant | Bursty | Ramp | Trace | PromptTrace


class Deterministic(TableRecord, frozen=True, tag="deterministic", tag_field="kind"):
    """Service times that are all the same.

    Attributes:
        mean: Seconds at speed 1.
    """

    mean: PositiveSeconds = 1.0


class Exponential(TableRecord, frozen=True, tag="exponential", tag_field="kind"):
    """Service times without memory.

    Attributes:
        mean: Mean seconds at speed 1.
    """

    mean: PositiveSeconds = 1.0


class Lognormal(TableRecord, frozen=True, tag="lognormal", tag_field="kind"):
    """Service times whose logarithm is normal, as those of many real services are, nearly.

    Attributes:
        mean: Mean seconds at speed 1.
        sigma: Standard deviation of the logarithm.
    """

    mean: PositiveSeconds = 1.0
    sigma: Annotated[float, Meta(gt=0, le=5, description="a standard deviation")] = 1.0


class Pareto(TableRecord, frozen=True, tag="pareto", tag_field="kind"):
    """Service times with a heavy tail that ends at a bound.

    Attributes:
        mean: Mean seconds at speed 1.
        alpha: Shape: the smaller, the heavier the tail.
        bound: The longest, as a multiple of the shortest.
    """

    mean: PositiveSeconds = 1.0
    alpha: Annotated[float, Meta(gt=0, le=20, description="a shape")] = 1.5
    bound: Annotated[float, Meta(gt=1, le=1e9, description="a factor")] = 1000.0


class Tokens(TableRecord, frozen=True, tag="tokens", tag_field="kind"):
    """Service times of a language model: tokens read and tokens written, each at its rate.

    With a trace the tokens are its two cost columns; without one they are drawn, lognormal.

    Attributes:
        prefill: Tokens read per second at speed 1.
        decode: Tokens written per second at speed 1.
        prompt: Mean tokens to read.
        output: Mean tokens to write.
        sigma: Standard deviation of the logarithm of either.
    """

    prefill: TokenRate = 5000.0
    decode: TokenRate = 50.0
    prompt: Annotated[float, Meta(gt=0, le=1e9, description="a number of tokens")] = 1155.0
    output: Annotated[float, Meta(gt=0, le=1e9, description="a number of tokens")] = 211.0
    sigma: Annotated[float, Meta(gt=0, le=5, description="a standard deviation")] = 1.0


class Conversations(TableRecord, frozen=True, tag="conversations", tag_field="kind"):
    """Prompts of conversations that share their beginnings, for servers of kind ``llm``.

    A request either goes on with a conversation whose next turn is due, or begins a new one. Its
    prompt is the system prompt, the conversation's documents, all turns before, and a message.

    Attributes:
        systems: System prompts; each conversation has one of them.
        skew: How unevenly: the k-th most frequent is k ** -skew times as frequent.
        system: Tokens of each.
        document: Mean tokens that a conversation begins with and shares with no other; 0 for none.
        message: Mean tokens of a message.
        output: Mean tokens of an answer.
        sigma: Standard deviation of the logarithm of the means above.
        turns: Mean turns of a conversation; their number is geometric.
        think: Mean seconds from a turn to the next.
        branches: Requests of each turn, one after another, each with a message of its own over the
            same beginning: agents that fan out. The conversation goes on with the first.
    """

    systems: Count = 20
    skew: Annotated[float, Meta(ge=0, le=5, description="an exponent")] = 1.0
    system: TokenCount = 1024
    document: Annotated[float, Meta(ge=0, le=1e6, description="a number of tokens")] = 4000.0
    message: Annotated[float, Meta(gt=0, le=1e6, description="a number of tokens")] = 300.0
    output: Annotated[float, Meta(gt=0, le=1e6, description="a number of tokens")] = 300.0
    sigma: Annotated[float, Meta(gt=0, le=5, description="a standard deviation")] = 1.0
    turns: Annotated[float, Meta(ge=1, le=1e6, description="a number of turns")] = 4.0
    think: Seconds = 60.0
    branches: Count = 1


Service = Deterministic | Exponential | Lognormal | Pareto | Tokens | Conversations


class Clients(TableRecord, frozen=True):
    """Independent balancers, each of which sees its own requests, or those of its host.

    Attributes:
        count: How many; a request comes to each with the same chance.
        per_host: How many share a host, and there what a `HostState` shares: requests in flight,
            costs, prompts, health, ejections and slow starts. It divides count; 1 has each see its
            own alone.
        stagger: Seconds over which they start, one after another; those that are up take the
            requests. 0 has them all start together.
        zones: Where they stand, in turn; those of one host stand together.
        keys: How many different hash keys the requests have; 0 for none.
        skew: How unevenly: the k-th most frequent key is k ** -skew times as frequent.
        subset: How each chooses the servers that it uses, ``"rendezvous"`` or ``"aperture"``; by
            default it uses all.
        subset_size: How many servers each uses, where it does not use all.
        believed_blocks: Blocks that they take the cache of a server of kind ``llm`` for; by default
            as many as it has.
    """

    count: Count = 1
    per_host: Annotated[int, Meta(ge=1, le=4096, description="a whole number")] = 1
    stagger: Seconds = 0.0
    zones: tuple[str, ...] = ()
    keys: Annotated[int, Meta(ge=0, le=10_000_000, description="a whole number")] = 0
    skew: Annotated[float, Meta(ge=0, le=5, description="an exponent")] = 0.0
    subset: (
        Annotated[
            str, Meta(pattern=r"^(rendezvous|aperture)\Z", description='"rendezvous" or "aperture"')
        ]
        | None
    ) = None
    subset_size: Count = 12
    believed_blocks: (
        Annotated[int, Meta(ge=1, le=100_000_000, description="a whole number")] | None
    ) = None


class Pair(TableRecord, frozen=True):
    """The way between two zones.

    Attributes:
        zones: The two.
        delay: Seconds that a message takes, either way.
    """

    zones: tuple[str, str]
    delay: Seconds


class Network(TableRecord, frozen=True):
    """Delays of messages.

    Attributes:
        delay: Seconds that a message takes, where no pair says otherwise.
        pairs: Ways that take longer, or shorter.
    """

    delay: Seconds = 0.0
    pairs: tuple[Pair, ...] = ()


class Callers(Retries, frozen=True):
    """Callers, and their ways of dealing with trouble.

    Attributes:
        timeout: Seconds after which an attempt is given up; the server works on.
        hedge: Seconds after which a request without an answer is sent to a second server; the
            first answer counts.
    """

    timeout: PositiveSeconds | None = None
    hedge: PositiveSeconds | None = None


class _OnServers(TableRecord, frozen=True):
    """A fault of some servers.

    Attributes:
        servers: Ids of servers, or names of groups.
    """

    servers: tuple[str, ...]


class Crash(_OnServers, frozen=True, tag="crash", tag_field="kind"):
    """Servers that die with all they have, and come back empty.

    Attributes:
        at: When.
        lasts: How long they are down; for good by default.
    """

    at: Moment
    lasts: Moment | None = None


class Slow(_OnServers, frozen=True, tag="slow", tag_field="kind"):
    """Servers that work slower for a while: service that begins then takes longer.

    Attributes:
        at: When.
        lasts: How long; for good by default.
        factor: How many times longer.
    """

    at: Moment
    lasts: Moment | None = None
    factor: Factor = 10.0


class Fail(_OnServers, frozen=True, tag="fail", tag_field="kind"):
    """Servers that answer at once, with an error: black holes that look idle.

    Attributes:
        at: When.
        lasts: How long; for good by default.
        probability: The chance that a request is answered so.
        after: Seconds that such an answer takes.
    """

    at: Moment
    lasts: Moment | None = None
    probability: Share = 1.0
    after: Seconds = 0.001


class Hang(_OnServers, frozen=True, tag="hang", tag_field="kind"):
    """Servers that stand still, and then go on where they were.

    Attributes:
        at: When.
        lasts: How long; for good by default.
    """

    at: Moment
    lasts: Moment | None = None


class Flap(_OnServers, frozen=True, tag="flap", tag_field="kind"):
    """Servers that crash and come back over and over.

    Attributes:
        at: When it begins.
        down: How long they are down each time.
        up: How long they are up in between.
        lasts: How long it goes on; for good by default.
    """

    at: Moment
    down: Moment
    up: Moment
    lasts: Moment | None = None


class Add(TableRecord, frozen=True, tag="add", tag_field="kind"):
    """Servers that join.

    Attributes:
        at: When.
        group: Who.
    """

    at: Moment
    group: Group


class Drain(_OnServers, frozen=True, tag="drain", tag_field="kind"):
    """Servers that finish what they have and leave.

    Attributes:
        at: When.
    """

    at: Moment


class RestartClients(TableRecord, frozen=True, tag="restart-clients", tag_field="kind"):
    """All clients restart at once and know nothing; their requests under way are lost.

    Attributes:
        at: When.
    """

    at: Moment


Fault = Crash | Slow | Fail | Hang | Flap | Add | Drain | RestartClients


class Scenario(TableRecord, frozen=True):
    """A fleet, its load, its callers and what goes wrong.

    Attributes:
        name: Its name.
        about: What it shows, in two lines.
        servers: The fleet.
        schema: Version of this layout; 1.
        strategies: Contenders to compare when none are named.
        requests: Requests that arrive in a run.
        load: Work that arrives, as a share of what the servers of the beginning can do; sets the
            arrival rate where ``arrivals`` names none.
        warmup: Share of the requests, the first ones, that do not enter the statistics.
        tau: Seconds in which peak EWMA forgets a peak; how soon a server that was slow is tried
            again.
        arrivals: When requests arrive.
        service: How long they take to serve.
        clients: Who balances.
        network: How long messages are under way.
        callers: How those who send requests deal with trouble.
        health: How clients track the health of servers.
        outliers: When servers that do worse than the rest are ejected, by the contenders whose name
            ends in ``/outliers``.
        slow_start: How the weight grows of servers that join or recover, by the contenders whose
            name ends in ``/slow-start``.
        limits: How much clients send to a server.
        quotas: LimitTable that servers enforce.
        faults: What goes wrong, and when.
    """

    name: str
    about: str
    servers: Servers
    schema: Annotated[int, Meta(ge=1, le=1, description="the version of the layout")] = 1
    strategies: tuple[str, ...] = ("round-robin", "random", "p2c", "p2c-peak-ewma", "least-load")
    requests: Annotated[
        int, Meta(ge=1, le=20_000_000, description="a whole number of requests")
    ] = 50_000
    load: Annotated[
        float,
        Meta(gt=0, le=10, description='a share of the fleet\'s capacity, such as 0.8 or "80%",'),
    ] = 0.7
    warmup: Annotated[float, Meta(ge=0, le=0.9, description="a share of the requests")] = 0.1
    tau: PositiveSeconds = 10.0
    arrivals: Arrivals = Poisson()
    service: Service = Exponential()
    clients: Clients = Clients()
    network: Network = Network()
    callers: Callers = Callers()
    health: Health = Health()
    outliers: Outliers = Outliers()
    slow_start: SlowStartTable = SlowStartTable()
    limits: LimitTable = LimitTable()
    quotas: tuple[Quota, ...] = ()
    faults: tuple[Fault, ...] = ()
