"""The pool of keys: balancer, quotas, verdict, meter and transports from one list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from loadwise.balancer import Balancer
from loadwise.clock import Clock
from loadwise.context import HashKey
from loadwise.errors import nearest
from loadwise.integrations._llm.addressing import prepare
from loadwise.integrations._llm.clients import client_of, transport_of
from loadwise.integrations._llm.keys import LIMITS, LlmKey, keys_of
from loadwise.integrations._llm.meters import TokenMeter
from loadwise.integrations._llm.verdict import classify_llm
from loadwise.metrics import MetricsCollector
from loadwise.quota import QuotaSource, QuotaTracker
from loadwise.retry_budget import RetryBudget
from loadwise.strategies import Strategy

if TYPE_CHECKING:
    from typing import Unpack

    import httpx2
    from anthropic import Anthropic, AsyncAnthropic
    from openai import AsyncOpenAI, OpenAI

__all__ = ["KeyPool", "KeyPoolOptions"]

_PATIENCE = 60.0


class KeyPoolOptions(TypedDict, total=False):
    """The keyword arguments of a `KeyPool` that its transports take.

    Attributes:
        timeout: Seconds that a prompt waits for a key where none has room, >= 0; 60 by default, a
            window of the limits. ``None`` for any time. It waits no longer than the client, or the
            call, would wait for a connection: the ``timeout`` of those holds, too.
        deadline: Seconds for all attempts of a prompt, up to the answer's headers.
        max_attempts: Attempts per prompt, rate limits not counted, >= 1; 3 by default.
        budget: Limits retries; by default 20 % of the prompts and 10 per second.
        classify: Judges answers; `classify_llm` by default.
        hash_key: Returns what a prompt belongs to, for strategies that keep it on one key.
        no_node: What is done where no key has room in time: ``"raise"`` an error, or answer by a
            ``"response"``, 429 or 503.
        max_cooldown: Seconds of the longest cooldown that an answer is granted.
        max_pause: Old name of ``max_cooldown``, which goes with the next minor version.
    """

    timeout: float | None
    deadline: float
    max_attempts: int
    budget: RetryBudget
    classify: Callable[[Any], Any]
    hash_key: Callable[[Any], HashKey]
    no_node: Literal["raise", "response"]
    max_cooldown: float
    max_pause: float


class KeyPool:
    """Keys of language models' APIs, of one provider or several, each with its limits.

    A prompt goes to a key that is good for its model and has room for it. What a key refuses goes
    to the next. An entry is a node of its own, with limits, health and cooldowns of its own: one
    key with limits by model is an entry for each of them.

    The fields of an entry:

    - ``key``: the secret. It is shown nowhere.
    - ``base_url``: as the SDK would have it, with or without ``/v1`` for Anthropic.
    - ``models``: names of models, or a mapping from those that are asked for to the provider's own.
      Without it the key gets prompts for any model.
    - ``rpm``, ``tpm``, ``itpm``, ``otpm``: requests, tokens, tokens of prompts and of answers per
      minute. What is left out is not limited.
    - ``weight``: its share of the prompts in relation to the others', 1 by default.
    - ``api_version``: of Azure. With it the path gets the deployment, which is the provider's own
      name of the model, and the secret goes in Azure's header.
    - ``name``: its id in logs, metrics and status; by default the host and its place in the list.

    Args:
        keys: The entries.
        strategy: Chooses among the keys that are good and have room; the balancer's default, which
            goes by prompts in flight, if ``None``.
        name: The name of the balancer, in logs and metrics.
        metrics: Told what happens.
        quota: Keeps the limits, which are registered in it: a `QuotaTracker` of its own by default;
            a ``SharedQuota`` of `loadwise.integrations.redis` for processes with the same keys,
            which it tells apart by their names.
        clock: Source of monotonic seconds.
        options: See `KeyPoolOptions`.

    Attributes:
        balancer: The balancer; its nodes are the keys.
        quota: Where their limits are kept.

    Raises:
        TypeError: A field or an argument is of the wrong type, or not known.
        ValueError: A field is missing, not known or out of range, or a key is there twice.

    Prompts may be sent again: the worst of it is paying twice. Requests that make something, such
    as batches and files, are not.

    Thread-safety: full. Clients and transports made of it share its limits.

    Cost: what a request costs beside a transport's is O(length) of its body.

    Example:
        >>> pool = KeyPool([
        ...     {"key": "sk-1", "base_url": "https://api.openai.com/v1", "rpm": 500},
        ...     {"key": "sk-2", "base_url": "https://api.openai.com/v1", "rpm": 500},
        ... ])
        >>> pool
        <KeyPool 'llm': 2 keys>
        >>> [node.id for node in pool.balancer.nodes]
        ['api.openai.com#0', 'api.openai.com#1']
    """

    def __init__(
        self,
        keys: Iterable[Mapping[str, object]],
        strategy: Strategy[LlmKey] | None = None,
        *,
        name: str = "llm",
        metrics: MetricsCollector | Sequence[MetricsCollector] | None = None,
        quota: QuotaSource | None = None,
        clock: Clock | None = None,
        **options: Unpack[KeyPoolOptions],
    ) -> None:
        for option in options:
            if option not in KeyPoolOptions.__optional_keys__:
                known = sorted(KeyPoolOptions.__optional_keys__ - {"max_pause"})
                raise TypeError(
                    f"there is no argument {option!r}{nearest(option, known)} "
                    f"(the arguments are {', '.join(known)})"
                )
        members = keys_of(keys)
        if quota is None:
            quota = QuotaTracker() if clock is None else QuotaTracker(clock)
        self.quota = quota
        # It refuses a quota that is none, before anything is registered there.
        self.balancer: Balancer[LlmKey] = Balancer(
            members, strategy, quota=quota, metrics=metrics, clock=clock, name=name
        )
        for member in members:
            config = member.quota()
            if config is not None:
                quota.register(member.id, config)
        self._options: dict[str, Any] = {
            "budget": RetryBudget(clock=self.balancer.clock),
            "timeout": _PATIENCE,
            "classify": classify_llm,
            **options,
            "url": attrgetter("base_url"),
            "prepare": prepare,
        }
        self._options["classify"] = _judging(self._options["classify"])
        limited = {each for member in members for each in member.limits}
        if limited:
            named = [each if each in limited else None for each in LIMITS]
            self._options["meter"] = TokenMeter(*named[:2], input=named[2], output=named[3])

    def openai(self, **options: Any) -> OpenAI:
        """Return a client of OpenAI's SDK.

        Args:
            options: Arguments of ``openai.OpenAI``; ``transport`` is who sends, if not connections
                of its own. The SDK's own retries are off, because the pool's make them.

        Raises:
            ImportError: The SDK is missing.
        """
        client: OpenAI = self._client("openai", options)
        return client

    def async_openai(self, **options: Any) -> AsyncOpenAI:
        """Return an asynchronous client of OpenAI's SDK; see `openai`."""
        client: AsyncOpenAI = self._client("openai", options, awaits=True)
        return client

    def anthropic(self, **options: Any) -> Anthropic:
        """Return a client of Anthropic's SDK; see `openai`."""
        client: Anthropic = self._client("anthropic", options)
        return client

    def async_anthropic(self, **options: Any) -> AsyncAnthropic:
        """Return an asynchronous client of Anthropic's SDK; see `openai`."""
        client: AsyncAnthropic = self._client("anthropic", options, awaits=True)
        return client

    def transport(self, inner: Any = None) -> httpx2.BaseTransport:
        """Return a transport for a client of httpx2, or of httpx.

        Args:
            inner: Who sends, such as ``httpx2.HTTPTransport(proxy=...)``; by default each key has
                connections of its own. It tells which of the two packages the client is of; by
                default it is httpx2, or httpx where that is missing.
        """
        made: httpx2.BaseTransport = transport_of(
            self.balancer, dict(self._options), inner, awaits=False
        )
        return made

    def async_transport(self, inner: Any = None) -> httpx2.AsyncBaseTransport:
        """Return a transport for an asynchronous client; see `transport`."""
        made: httpx2.AsyncBaseTransport = transport_of(
            self.balancer, dict(self._options), inner, awaits=True
        )
        return made

    def _client(self, sdk: str, given: dict[str, Any], *, awaits: bool = False) -> Any:
        return client_of(sdk, self.balancer, dict(self._options), given, awaits=awaits)

    def __repr__(self) -> str:
        return f"<KeyPool {self.balancer.name!r}: {len(self.balancer.nodes)} keys>"


def _judging(classify: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a judge that says nothing of what may be repeated: that is told by each request."""

    def judge(result: Any) -> Any:
        return classify(result)

    return judge
