"""Settings by which a channel chooses nodes, reaches them and retries."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypedDict, cast
from urllib.parse import urlsplit

from grpc import CallCredentials, ChannelCredentials, Compression

from loadwise._base_url import base_url_of
from loadwise._callables import refuse_async
from loadwise._numbers import finite, shown, whole
from loadwise.balancer import Balancer
from loadwise.balancer.acquiring import checked_timeout
from loadwise.context import HashKey
from loadwise.errors import nearest
from loadwise.health_checks.address import host_and_port
from loadwise.integrations._http.retry_after import LONGEST_COOLDOWN
from loadwise.integrations.grpc._load_reports import LoadReport
from loadwise.nodes import node_id
from loadwise.retry_budget import RetryBudget

__all__ = ["CallDetails", "ChannelOptions", "GrpcSettings", "by_metadata", "target_of"]

_METHOD: Final = re.compile(r"/[^/\s]+/[^/\s]+")
# Schemes of gRPC's own names, which it resolves itself.
_OWN_NAME: Final = re.compile(r"(?:dns|ipv4|ipv6|unix|unix-abstract|vsock):\S+")
_PAIR: Final = 2
_DEFAULTS: Final[dict[str, Any]] = {
    # Seconds that a connection attempt may take; gRPC's own 20 are too many for a failover.
    "grpc.min_reconnect_backoff_ms": 5_000,
    # A channel that is made anew must not inherit the pause of the one before it.
    "grpc.use_local_subchannel_pool": 1,
}


class CallDetails(NamedTuple):
    """Details of a call, for whoever tells its hash key.

    Attributes:
        method: Its full name, such as ``"/pkg.Service/Method"``.
        request: The request message; ``None`` where there is a stream of them.
        metadata: The metadata that the caller gave, as pairs.
    """

    method: str
    request: Any
    metadata: Sequence[tuple[str, str | bytes]]


class ChannelOptions(TypedDict, total=False):
    """The further keyword arguments of both channels.

    Attributes:
        target: Returns the address of a node, as gRPC has them; by default its id, which is
            host:port, a URL, or one of gRPC's own names such as ``unix:/run/app.sock``.
        compression: How messages are compressed, if a call does not say otherwise.
        attempt_timeout: Seconds for one attempt of a call with a single response, above 0;
            by default as long as the call has.
        deadline: Seconds for all attempts of a call that has no ``timeout``, above 0.
        timeout: Seconds for which a call waits, all in all, for a node that time will free; >= 0,
            0 by default; ``None`` for any time.
        budget: Limits retries; by default 20 % of the calls and 10 per second.
        hash_key: Returns what a call belongs to, of its `CallDetails`; see `by_metadata`.
        max_cooldown: Seconds of the longest cooldown that a server is granted, above 0; 120 by
            default.
        on_load_report: Called with the node and its `LoadReport` for each answer that has one; see
            `ReportedLoad`.

    None of the functions may be a coroutine function.
    """

    target: Callable[[Any], str]
    compression: Compression
    attempt_timeout: float
    deadline: float
    timeout: float | None
    budget: RetryBudget
    hash_key: Callable[[CallDetails], HashKey]
    max_cooldown: float
    on_load_report: Callable[[Any, LoadReport], object]


_NAMED = ("balancer", "credentials", "options", "max_attempts", "idempotent")


@dataclass(frozen=True, slots=True)
class GrpcSettings:
    """Settings of all calls of a channel; see the channels for the meaning."""

    balancer: Balancer[Any]  # of whatever nodes
    credentials: ChannelCredentials | None = None
    options: Sequence[tuple[str, Any]] | None = None
    max_attempts: int = 3
    idempotent: Collection[str] = ()
    target: Callable[[Any], str] | None = None
    compression: Compression | None = None
    attempt_timeout: float | None = None
    deadline: float | None = None
    timeout: float | None = 0.0
    budget: RetryBudget = field(default_factory=RetryBudget)
    hash_key: Callable[[CallDetails], HashKey] | None = None
    max_cooldown: float = LONGEST_COOLDOWN
    on_load_report: Callable[[Any, LoadReport], object] | None = None

    @classmethod
    def of(
        cls,
        balancer: Balancer[Any],
        credentials: ChannelCredentials | None,
        options: Sequence[tuple[str, Any]] | None,
        max_attempts: int,
        idempotent: Collection[str],
        more: ChannelOptions,
    ) -> GrpcSettings:
        """Return the settings that a channel's arguments say."""
        known = ChannelOptions.__optional_keys__
        for name in more:
            if name not in known:
                raise TypeError(
                    f"there is no argument {name!r}{nearest(name, {*known, *_NAMED})} "
                    f"(the further arguments are {', '.join(sorted(known))})"
                )
        if not isinstance(balancer, Balancer):
            raise TypeError(f"balancer is {shown(balancer)}; it must be a Balancer")
        more.setdefault("budget", RetryBudget(clock=balancer.clock))
        arguments = cast("dict[str, Any]", more)
        settings = cls(balancer, credentials, options, max_attempts, idempotent, **arguments)
        if balancer.metrics is not None:
            balancer.metrics.watch_budget(settings.budget)
        return settings

    def __post_init__(self) -> None:
        if not isinstance(self.credentials, ChannelCredentials | None):
            remedy = (
                "call credentials go with each call, or into grpc.composite_channel_credentials"
                if isinstance(self.credentials, CallCredentials)
                else "make them by grpc.ssl_channel_credentials(), or leave them out for a channel "
                "without encryption"
            )
            raise TypeError(
                f"credentials is {shown(self.credentials)}; it must be ChannelCredentials: {remedy}"
            )
        if not isinstance(self.compression, Compression | None):
            raise TypeError(
                f"compression is {shown(self.compression)}; it must be a grpc.Compression, such as "
                f"grpc.Compression.Gzip"
            )
        if not isinstance(self.budget, RetryBudget):
            raise TypeError(
                f"budget is {shown(self.budget)}; it must be a RetryBudget (for no retries at all "
                f"there is max_attempts=1)"
            )
        for name in ("target", "hash_key", "on_load_report"):
            function = getattr(self, name)
            if function is not None and not callable(function):
                raise TypeError(f"{name} is {shown(function)}; it must be a function")
            refuse_async(name, function, "give a plain function")
        for name in ("attempt_timeout", "deadline", "max_cooldown"):
            self._set(name, _as_seconds(name, getattr(self, name)))
        checked_timeout(self.timeout)
        self._set("max_attempts", whole("max_attempts", self.max_attempts, 1))
        self._set("idempotent", _as_methods(self.idempotent))
        self._set("options", _as_options(self.options))
        for node in self.balancer.nodes:
            target_of(node, self.target)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def target_of(node: object, target: Callable[[Any], str] | None) -> str:
    """Return the address at which a node is reached, as gRPC has them.

    Raises:
        ValueError: It cannot be told.

    Example:
        >>> target_of("10.0.0.1:50051", None), target_of("https://eu.example.com", None)
        ('10.0.0.1:50051', 'eu.example.com:443')
    """
    identity = node_id(node)
    given: object = identity if target is None else target(node)
    if isinstance(given, str) and _OWN_NAME.fullmatch(given):
        return given
    remedy = (
        "tell where nodes are reached with target=, a function of a node, such as "
        "target=lambda node: node.address"
    )
    try:
        parts = urlsplit(base_url_of(cast("str", given)))
    except (TypeError, ValueError):
        whose = "the id" if target is None else "the target"
        raise ValueError(
            f"{whose} of node {identity!r} is {shown(given)}; it must be host:port, or a name of "
            f"gRPC's such as 'unix:/run/app.sock'" + ("" if target else f"; {remedy}")
        ) from None
    if parts.path.rstrip("/"):
        raise ValueError(
            f"the URL of node {identity!r} is {given!r}, which has a path; the path of a call is "
            f"its method's, so {remedy if target is None else 'give host:port'}"
        )
    host, port = host_and_port(parts)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def by_metadata(name: str) -> Callable[[CallDetails], str | bytes | None]:
    """Return a ``hash_key`` that is the value of a metadata key; ``None`` for calls without it.

    Raises:
        TypeError: ``name`` is no str.

    Example:
        >>> by_metadata("user-id")(CallDetails("/pkg.Service/Get", None, [("user-id", "42")]))
        '42'
    """
    if not isinstance(name, str):
        raise TypeError(f"name is {shown(name)}; it must be the str of a metadata key")
    key = name.lower()  # as gRPC sends them
    return lambda call: next((value for known, value in call.metadata if known == key), None)


def _as_seconds(name: str, given: object) -> float | None:
    if given is None and name != "max_cooldown":
        return None
    seconds = finite(name, given)
    if not seconds > 0:
        raise ValueError(f"{name} is {given!r}; it must be a finite number of seconds above 0")
    return seconds


def _as_methods(given: object) -> frozenset[str]:
    """Return the names of methods; refuse what can be none, for a typing error costs a retry."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Collection):
        raise TypeError(
            f"idempotent is {shown(given)}; it must be a set of methods, such as "
            f'{{"/pkg.Service/Method"}}'
        )
    methods = cast("Collection[object]", given)
    for method in methods:
        if not isinstance(method, str):
            raise TypeError(f"idempotent has {shown(method)}; each method must be a str")
        if not _METHOD.fullmatch(method):
            raise ValueError(
                f"idempotent has {method!r}, which is no full name of a method; write it as "
                f"'/pkg.Service/Method'"
            )
    return frozenset(cast("Collection[str]", methods))


def _as_options(given: object) -> tuple[tuple[str, Any], ...]:
    """Return the options of a node's channel; what is given goes before the defaults here."""
    if given is None:
        return tuple(_DEFAULTS.items())
    remedy = 'give pairs of name and value, such as [("grpc.keepalive_time_ms", 30_000)]'
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise TypeError(f"options is {shown(given)}; {remedy}")
    pairs: list[tuple[str, Any]] = []
    for each in cast("Sequence[object]", given):
        pair = _as_pair(each)
        if pair is None:
            raise TypeError(f"options has {shown(each)}; {remedy}")
        pairs.append(pair)
    named = {name for name, _ in pairs}
    return (*(each for each in _DEFAULTS.items() if each[0] not in named), *pairs)


def _as_pair(given: object) -> tuple[str, Any] | None:
    """Return a name and a value, if that is what is given."""
    if not isinstance(given, tuple | list):
        return None
    pair = cast("Sequence[Any]", given)
    return (pair[0], pair[1]) if len(pair) == _PAIR and isinstance(pair[0], str) else None
