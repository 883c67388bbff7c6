"""Settings by which an HTTP integration chooses, retries and meters."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from types import EllipsisType
from typing import Any, Literal, TypedDict, cast

from loadwise._base_url import base_url_of, checked_base_url
from loadwise._callables import (
    is_awaitable,
    refuse_async,
    refuse_awaitable,
)
from loadwise._numbers import finite, shown, whole
from loadwise._prompt import Prompt
from loadwise.balancer import Balancer
from loadwise.balancer.acquiring import checked_timeout
from loadwise.balancer.failure_rules import outcome_of
from loadwise.context import HashKey
from loadwise.errors import nearest
from loadwise.filters import as_filter
from loadwise.integrations._http.mapping import Mapper
from loadwise.integrations._http.member_urls import Members
from loadwise.integrations._http.metering import Amounts, Meter, Metering, RequestAccount
from loadwise.integrations._http.no_node_response import NO_NODE
from loadwise.integrations._http.node_cookies import NodeCookies
from loadwise.integrations._http.verdict import Verdict, are_repeatable
from loadwise.integrations._llm.prompts import PromptAccount, prompt_in
from loadwise.nodes import node_id
from loadwise.outcome import Outcome
from loadwise.retry_budget import RetryBudget

__all__ = [
    "AsyncTransportOptions",
    "Options",
    "Settings",
    "TransportOptions",
    "awaited",
    "options_of",
]

_URL_REMEDY = "give a plain function of a node"
_REMEDY = "a synchronous client cannot wait for it: give a plain function, or use the async client"

Ruling = Verdict | Outcome | None
"""Values that ``classify`` may return for a response or an exception."""


class _CommonOptions(TypedDict, total=False):
    url: Callable[[Any], str]
    meter: Meter
    max_attempts: int
    deadline: float
    budget: RetryBudget
    map_responses: bool
    no_node: Literal["raise", "response"]
    max_cooldown: float
    max_pause: float
    node_cookies: bool
    timeout: float | None


class TransportOptions(_CommonOptions, total=False):
    """The keyword arguments that all HTTP transports take.

    Attributes:
        url: Returns the base URL of a node; by default its id, a URL or host:port.
        prepare: Called with the outgoing request and the node, to set what the node needs (an
            API key); it changes the request in place.
        classify: Judges a response or an exception, cancellations excepted: returns a `Verdict`,
            an `Outcome`, or ``None`` for the default rule.
        hash_key: Returns what a request belongs to; see `by_header` and `by_cookie`.
        meter: Knows what requests cost, where the balancer has quotas.
        max_attempts: Attempts per request, the first included, >= 1; 3 by default.
        deadline: Seconds for all attempts of a request, up to the response's headers and what is
            read ahead of its body.
        budget: Limits retries; by default 20 % of the requests and 10 per second.
        map_responses: Whether redirects and cookies are mapped back to what was asked for; ``True``
            by default.
        no_node: What is done with a request for which there is no node: ``"raise"`` an error, or
            answer by a ``"response"``, 429 or 503.
        max_cooldown: Seconds of the longest cooldown that a ``Retry-After`` is granted, above 0;
            120 by default. What ``classify`` says itself is not cut, unless it names a ceiling.
        max_pause: Old name of ``max_cooldown``, which goes with the next minor version.
        node_cookies: Whether cookies that a node sets are kept here, unseen by the client, and sent
            to that node alone; ``False`` by default.
        timeout: Seconds for which a request waits, all in all, for a node that time will free: if
            there is none at first, or none left to try after a failure or a rate limit; >= 0, 0 by
            default; ``None`` for any time.

    None of the functions may be a coroutine function; see `AsyncTransportOptions` for transports
    that can await them.
    """

    prepare: Callable[[Any, Any], None]
    classify: Callable[[Any], Ruling]
    hash_key: Callable[[Any], HashKey]


class AsyncTransportOptions(_CommonOptions, total=False):
    """The keyword arguments of the asynchronous transports: as `TransportOptions`.

    ``prepare``, ``classify`` and ``hash_key`` may be coroutine functions, too, and are awaited
    then. A deadline does not interrupt them.
    """

    prepare: Callable[[Any, Any], None] | Callable[[Any, Any], Awaitable[None]]
    classify: Callable[[Any], Ruling] | Callable[[Any], Awaitable[Ruling]]
    hash_key: Callable[[Any], HashKey] | Callable[[Any], Awaitable[HashKey]]


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of all requests of a client; see the transports for the meaning."""

    balancer: Balancer[Any]  # of whatever nodes
    url: Callable[[Any], str] | None = None
    # What these return may be to be awaited, where the transport can.
    prepare: Callable[[Any, Any], object] | None = None
    classify: Callable[[Any], object] | None = None
    hash_key: Callable[[Any], Any] | None = None
    meter: Meter | None = None
    max_attempts: int = 3
    deadline: float | None = None
    budget: RetryBudget = field(default_factory=RetryBudget)
    map_responses: bool = True
    no_node: str = NO_NODE[0]
    max_cooldown: float | None = None
    node_cookies: bool = False
    timeout: float | None = 0.0
    awaits: bool = False
    repeatable: bool = field(init=False, default=False)
    metering: Metering | None = field(default=None, init=False)
    reads_prompts: bool = field(default=False, init=False)
    reads_bodies: bool = field(default=False, init=False)

    @classmethod
    def of(
        cls,
        balancer: Balancer[Any],
        options: TransportOptions | AsyncTransportOptions,
        *,
        awaits: bool = False,
    ) -> Settings:
        """Return the settings that a transport's arguments say.

        Args:
            balancer: Who chooses.
            options: The arguments.
            awaits: Whether the transport can await what its functions return.
        """
        if "max_pause" in options:
            warnings.warn("max_pause is now max_cooldown", DeprecationWarning, stacklevel=3)
            options.setdefault("max_cooldown", options.pop("max_pause"))
        known = TransportOptions.__optional_keys__ - {"max_pause"}
        for name in options:
            if name not in known:
                raise TypeError(
                    f"there is no argument {name!r}{nearest(name, known)} "
                    f"(the arguments are {', '.join(sorted(known))})"
                )
        if not isinstance(balancer, Balancer):
            raise TypeError(f"balancer is {balancer!r}; it must be a Balancer")
        options.setdefault("budget", RetryBudget(clock=balancer.clock))
        # Each was written down by the caller as one of the two kinds of options.
        arguments = cast("dict[str, Any]", options)
        settings = cls(balancer, **arguments, awaits=awaits)
        if balancer.metrics is not None:
            balancer.metrics.watch_budget(settings.budget)
        return settings

    def __post_init__(self) -> None:
        for name in ("url", "prepare", "classify", "hash_key"):
            function = getattr(self, name)
            if function is not None and not callable(function):
                raise TypeError(f"{name} is {function!r}; it must be a function")
            if name == "url" or not self.awaits:
                refuse_async(name, function, _URL_REMEDY if name == "url" else _REMEDY)
        if self.meter is not None:
            object.__setattr__(self, "metering", Metering(self.meter))
        object.__setattr__(self, "reads_prompts", self.balancer.reads_prompts)
        reads = self.reads_prompts or self.metering is not None
        object.__setattr__(self, "reads_bodies", reads)
        if not isinstance(self.budget, RetryBudget):
            raise TypeError(
                f"budget is {self.budget!r}; it must be a RetryBudget (for no retries at all there "
                f"is max_attempts=1)"
            )
        _require_bool("map_responses", self.map_responses)
        _require_bool("node_cookies", self.node_cookies)
        if self.no_node not in NO_NODE:
            raise ValueError(f"no_node is {self.no_node!r}; it must be 'raise' or 'response'")
        object.__setattr__(self, "max_attempts", whole("max_attempts", self.max_attempts, 1))
        object.__setattr__(self, "deadline", _as_deadline("deadline", self.deadline))
        if self.max_cooldown is not None:
            longest = _as_seconds("max_cooldown", self.max_cooldown)
            object.__setattr__(self, "max_cooldown", longest)
        checked_timeout(self.timeout)
        object.__setattr__(self, "repeatable", are_repeatable(self.classify))
        for node in self.balancer.nodes:
            self.base_url(node, node_id(node))

    def base_url(self, node: object, identity: Hashable) -> str:
        """Return the base URL at which a node is reached."""
        if self.url is None:
            return base_url_of(identity)
        return checked_base_url(identity, self.url(node))

    def mapper(self) -> Mapper | None:
        """Return who maps responses back to what was asked for; ``None`` if nobody is to."""
        return Mapper(Members(self.balancer, self.base_url)) if self.map_responses else None

    def jars(self) -> NodeCookies | None:
        """Return who keeps the nodes' cookies; ``None`` if the client is to keep them."""
        return NodeCookies(self.balancer) if self.node_cookies else None

    def account(self, path: str, body: bytes | None, length: int | None) -> RequestAccount | None:
        """Return the account of a request; ``None`` if nobody meters it or goes by its prompt.

        Args:
            path: Where the request goes.
            body: Its body; ``None`` if that is not known before it is sent.
            length: The length of that, if it is known.
        """
        account = None if self.metering is None else self.metering.open(path, body, length)
        if self.reads_prompts and body:
            prompt = prompt_in(path, body)
            if prompt is not None:
                return PromptAccount(Prompt(prompt), account)
        return account

    def ask_key(self, request: object) -> Any:
        """Return what ``hash_key`` says of a request: a key, or what is to be awaited for one."""
        return None if self.hash_key is None else self._answer("hash_key", self.hash_key(request))

    def ask_prepare(self, outbound: object, node: object) -> Any:
        """Have ``prepare`` change a request; return what is to be awaited for that, if anything."""
        if self.prepare is None:
            return None
        answer = self._answer("prepare", self.prepare(outbound, node))
        return answer if is_awaitable(answer) else None

    def ask_ruling(self, result: object) -> Any:
        """Return what ``classify`` says of a response or an exception, or what is to be awaited."""
        if self.classify is None or (
            isinstance(result, BaseException) and outcome_of(type(result)) is Outcome.CANCELLED
        ):
            return None
        return self._answer("classify", self.classify(result))

    def verdict_of(self, ruling: object) -> Verdict | None:
        """Return what ``classify`` has said as a verdict; ``None`` where the default rule holds.

        Raises:
            TypeError: It is none.
        """
        if isinstance(ruling, Outcome):
            return Verdict(ruling)
        if ruling is None:
            return None
        if isinstance(ruling, Verdict):
            return ruling.cut(self.max_cooldown)
        raise TypeError(
            f"classify returned {shown(ruling)}; it must be a Verdict, an Outcome or None"
        )

    def _answer(self, name: str, answer: object) -> object:
        if answer is not None and not self.awaits:
            refuse_awaitable(name, answer, _REMEDY)
        return answer


async def awaited(answer: Any) -> Any:
    """Return an answer, awaited if it is to be."""
    return await answer if is_awaitable(answer) else answer


def _require_bool(what: str, given: object) -> None:
    if not isinstance(given, bool):
        raise TypeError(f"{what} is {given!r}; it must be True or False")


def _as_deadline(what: str, given: object) -> float | None:
    return None if given is None else _as_seconds(what, given)


def _as_seconds(what: str, given: object) -> float:
    seconds = finite(what, given)
    if not seconds > 0:
        raise ValueError(f"{what} is {given!r}; it must be a finite number of seconds above 0")
    return seconds


@dataclass(frozen=True, slots=True)
class Options:
    """Options that one request gives for itself.

    Args:
        retry: Whether it may be sent again although a server may have acted on it.
        hash_key: What it belongs to.
        cost: What it is expected to use, by quota dimension.
        deadline: Seconds for all its attempts together, finite and > 0.
        where: A filter, or a function of a node, that its nodes have to pass.
        timeout: Seconds to wait for a node if there is none now, >= 0; ``None`` for any time;
            by default as long as the client waits.

    Raises:
        TypeError: An option is of the wrong type.
        ValueError: The deadline or the timeout is out of range.
    """

    retry: bool = False
    hash_key: HashKey = None
    cost: Amounts | None = None
    deadline: float | None = None
    where: Callable[[Any], bool] | None = None
    timeout: float | EllipsisType | None = ...

    def __post_init__(self) -> None:
        # Whatever is not empty counts as true, and "no" would send an order twice.
        _require_bool("the request's retry", self.retry)
        if self.cost is not None and not isinstance(self.cost, Mapping):
            raise TypeError(
                f"the request's cost is {self.cost!r}; it must be a mapping of quota dimensions to "
                f'amounts, such as {{"tpm": 700}}'
            )
        deadline = _as_deadline("the request's deadline", self.deadline)
        object.__setattr__(self, "deadline", deadline)
        if self.where is not None:
            as_filter(self.where)
        if not isinstance(self.timeout, EllipsisType):
            checked_timeout(self.timeout)

    def patience(self, settings: Settings) -> float:
        """Return the seconds for which a node is waited for, all in all; 0.0 for none."""
        timeout = settings.timeout if isinstance(self.timeout, EllipsisType) else self.timeout
        return checked_timeout(timeout) if timeout != 0 else 0.0  # the usual, at no cost

    def time(self, settings: Settings) -> float | None:
        """Return the seconds for all attempts; ``None`` for any time."""
        return settings.deadline if self.deadline is None else self.deadline


_NO_OPTIONS = Options()


def options_of(given: Mapping[str, Any] | None) -> Options:
    """Return the options in a request's extension.

    Raises:
        TypeError: They are not a mapping, or one is of the wrong type.
        ValueError: One is not known or out of range.
    """
    if given is None:
        return _NO_OPTIONS
    if not isinstance(given, Mapping):
        raise TypeError(f'extensions["loadwise"] is {given!r}; it must be a mapping')
    known = Options.__slots__
    for name in given:
        if name not in known:
            raise ValueError(
                f'extensions["loadwise"] has no option {name!r}{nearest(name, known)} '
                f"(the options are {', '.join(known)})"
            )
    return Options(**given)
