"""loadwise for litellm: its Router asks a balancer which deployment is to serve a request.

router = litellm.Router(model_list=[...])
use_loadwise(router, PowerOfTwoChoices(load=InFlight()))
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from threading import Lock
from types import MappingProxyType
from typing import Any, Final, cast

from loadwise._callables import refuse_async
from loadwise._numbers import shown
from loadwise.balancer import Balancer, Lease
from loadwise.balancer.failure_rules import outcome_of
from loadwise.context import HashKey
from loadwise.errors import NoNodeAvailable, nearest
from loadwise.filters import Filter, by_id
from loadwise.integrations._llm.cooldowns import asked_wait, reset_wait
from loadwise.nodes import Endpoint
from loadwise.outcome import Outcome
from loadwise.strategies import Strategy

try:
    import litellm
    from litellm.integrations.custom_logger import CustomLogger
    from litellm.types.router import (  # pyright: ignore[reportMissingTypeStubs]
        CustomRoutingStrategyBase,
        RouterRateLimitErrorBasic,
    )
    from openai import OpenAIError
except ImportError as error:
    raise ImportError(
        "loadwise.integrations.litellm needs litellm: pip install 'loadwise[litellm]'"
    ) from error

__all__ = ["LoadwiseStrategy", "NoDeploymentError", "use_loadwise"]

_KEY: Final = "loadwise_lease"
_OPTIONS: Final = frozenset(signature(Balancer).parameters) - {"nodes", "strategy"}
_BUCKETS: Final = ("litellm_metadata", "metadata")
_MOST_FILTERS: Final = 256
_FAILURES: Final = frozenset({401, 402, 403, 408})
"""Statuses below 500 that are the deployment's: its key is refused, or no answer came in time."""
_TOO_MANY: Final = 429
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_SERVER_ERRORS: Final = 500


class NoDeploymentError(NoNodeAvailable, RouterRateLimitErrorBasic):  # type: ignore[misc, unused-ignore]  # where litellm is not read
    """No deployment could be given to a request, and why: an error of litellm's own family.

    Attributes:
        status_code: 429, as for all such errors of litellm.
        model: The model group that was asked for.
    """

    def __init__(
        self,
        balancer: str,
        total: int,
        reasons: Mapping[str, int],
        retry_after: float | None = None,
        filters: Iterable[str] = (),
        *,
        model: str = "",
    ) -> None:
        NoNodeAvailable.__init__(self, balancer, total, reasons, retry_after, filters)
        self.model = model


def use_loadwise(
    router: Any,  # noqa: ANN401 - litellm is not read for its types
    strategy: Strategy[Endpoint] | None = None,
    *,
    hash_key: Callable[[Mapping[str, Any]], HashKey] | None = None,
    **options: Any,  # noqa: ANN401 - those of Balancer
) -> Balancer[Endpoint]:
    """Have a balancer choose a router's deployments from now on.

    litellm's own filters hold: a request may go to the deployments that litellm lists for it, by
    model group, team, tags, context window and litellm's cooldowns. Among these the balancer
    chooses. A retry goes to a deployment that has not failed this request yet, if there is one.
    Deployments that are added to the router or leave it follow along.

    A lease ends when litellm tells of the call's success or failure, streamed or not, in threads or
    asyncio. One of a call that was cancelled, or of a stream that was left, ends as cancelled when
    litellm lets go of the request. 429 is a cooldown as long as its headers ask for. 5xx, 408, 401,
    402, 403, timeouts and lost connections are failures of the deployment; all else is not.

    Args:
        router: A ``litellm.Router``.
        strategy: Who chooses, among nodes that are `Endpoint`: their id is the deployment's, their
            weight its ``weight``, their priority its ``order``, and their tag ``"model_name"`` its
            model group. By default `PowerOfTwoChoices` over requests in flight.
        hash_key: A function of the request's arguments that returns what it belongs to, for
            strategies that keep a key on one deployment.
        options: Those of `Balancer`, but ``nodes``.

    Returns:
        The balancer, for `Balancer.status` and `Balancer.explain`.

    Raises:
        TypeError: ``router`` is no Router, or one that is too old; or an option is not known or of
            the wrong kind.
        ValueError: An option is out of range.

    Requests for which there is no deployment raise `NoDeploymentError`, or litellm's own error
    where its filters leave none.

    Thread-safety: full. Cost: that of litellm's list of candidates, and O(number of these).
    """
    for name in ("register_plugin", "registry", "select"):
        if not callable(getattr(router, name, None)):
            raise TypeError(
                f"router is {shown(router)}, which has no {name}(); give a litellm.Router, of "
                f"litellm 1.110 or newer"
            )
    if hash_key is not None and not callable(hash_key):
        raise TypeError(f"hash_key is {shown(hash_key)}; it must be a function of a request")
    refuse_async("hash_key", hash_key, "give a plain function")
    for name in options:
        if name not in _OPTIONS:
            raise TypeError(f"there is no option {name!r}{nearest(name, _OPTIONS)}")
    options.setdefault("name", "litellm")
    balancer: Balancer[Endpoint] = Balancer((), strategy, **options)
    router.register_plugin(LoadwiseStrategy(router, balancer, hash_key))
    return balancer


class LoadwiseStrategy(CustomRoutingStrategyBase):  # type: ignore[misc, unused-ignore]  # as above
    """Routing strategy of litellm that asks a balancer. Made by `use_loadwise`.

    Args:
        router: Whose deployments it chooses.
        balancer: Who chooses; its nodes are kept as the router's deployments.
        hash_key: As for `use_loadwise`.

    Thread-safety: full.
    """

    def __init__(
        self,
        router: Any,  # noqa: ANN401 - litellm is not read for its types
        balancer: Balancer[Endpoint],
        hash_key: Callable[[Mapping[str, Any]], HashKey] | None = None,
    ) -> None:
        self._router = router
        self._balancer = balancer
        self._hash_key = hash_key
        self._lock = Lock()
        self._version: object = None
        self._filters: dict[tuple[str, ...], Filter[Endpoint]] = {}
        self._follow()

    async def async_get_available_deployment(
        self,
        model: str,
        messages: Any = None,  # noqa: ANN401 - as litellm calls it
        input: Any = None,  # noqa: A002, ANN401 - as litellm calls it
        specific_deployment: bool | None = False,  # noqa: FBT001, FBT002 - as litellm calls it
        request_kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - a deployment, as litellm has it
        """Return the deployment for a request."""
        asked = self._asked(model, messages, input, specific_deployment, request_kwargs)
        return self._choose(model, await asked(), request_kwargs)

    def get_available_deployment(
        self,
        model: str,
        messages: Any = None,  # noqa: ANN401 - as litellm calls it
        input: Any = None,  # noqa: A002, ANN401 - as litellm calls it
        specific_deployment: bool | None = False,  # noqa: FBT001, FBT002 - as litellm calls it
        request_kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - a deployment, as litellm has it
        """Return the deployment for a request."""
        asked = self._asked(model, messages, input, specific_deployment, request_kwargs)
        return self._choose(model, _run(asked), request_kwargs)

    def _asked(
        self,
        model: str,
        messages: Any,  # noqa: ANN401 - as litellm calls it
        given: Any,  # noqa: ANN401 - as litellm calls it
        specific: bool | None,  # noqa: FBT001 - as litellm calls it
        request: dict[str, Any] | None,
    ) -> Callable[[], Coroutine[Any, Any, Any]]:
        """Return a function that asks litellm who may serve a request."""

        def ask() -> Coroutine[Any, Any, Any]:
            coroutine: Coroutine[Any, Any, Any] = self._router.select(
                model,
                request,
                kind="healthy",
                messages=messages,
                input=given,
                specific_deployment=specific,
            )
            return coroutine

        return ask

    def _choose(self, model: str, found: Any, request: dict[str, Any] | None) -> Any:  # noqa: ANN401 - as litellm has it
        """Return one of the candidates, and have the request hold a lease on it."""
        # A deployment that was asked for by its id comes alone.
        candidates: list[Any] = [found] if isinstance(found, Mapping) else list(found)
        by_deployment = {_id_of(each): each for each in candidates}
        self._follow()
        known = tuple(each for each in by_deployment if each in self._balancer)
        if not known:
            # Made for this request alone, as from a wildcard: there is nothing to be learnt of it.
            return candidates[0]
        lease = self._acquire(model, known, request or {})
        if request is None:
            lease.call_off()  # nobody would tell how it ends
        else:
            _hold(lease, request)
        return by_deployment[cast("str", lease.node_id)]

    def _acquire(
        self, model: str, known: tuple[str, ...], request: Mapping[str, Any]
    ) -> Lease[Endpoint]:
        key = None if self._hash_key is None else self._hash_key(request)
        where = self._filter(known)
        failed = _failed_before(request)
        try:
            if failed and not failed.issuperset(known):
                try:
                    return self._balancer.acquire(hash_key=key, where=where, exclude=failed)
                except NoNodeAvailable:
                    pass  # rather one that has failed before than none
            return self._balancer.acquire(hash_key=key, where=where)
        except NoNodeAvailable as error:
            raise NoDeploymentError(*error.args, model=model) from None

    def _filter(self, ids: tuple[str, ...]) -> Filter[Endpoint]:
        """Return the filter for some deployments: the same each time, so that it is asked once."""
        found = self._filters.get(ids)
        if found is None:
            if len(self._filters) >= _MOST_FILTERS:
                self._filters = {}
            found = self._filters[ids] = by_id(*ids)
        return found

    def _follow(self) -> None:
        """Have the balancer's nodes be the router's deployments."""
        registry = self._router.registry()
        if registry.version == self._version:
            return
        with self._lock:
            version = registry.version
            if version != self._version:
                self._balancer.replace(
                    {_id_of(each): _node_of(each) for each in registry.all()}.values()
                )
                self._filters = {}
                self._version = version


class _Token(str):
    """Name of a lease that travels with a request through litellm, in its metadata."""

    __slots__ = ("__weakref__", "lease")

    lease: Lease[Endpoint]

    def __copy__(self) -> _Token:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> _Token:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (str, (str(self),))

    def __del__(self) -> None:
        # litellm tells nobody of a call that is cancelled, nor of a stream that is left.
        self.lease.cancel()


class _Logger(CustomLogger):  # type: ignore[misc, unused-ignore]  # as above
    """Ends leases as litellm tells of calls; one for all routers."""

    def log_success_event(self, kwargs: Any, *_: Any, **__: Any) -> None:  # noqa: ANN401 - as litellm calls it
        """End the lease of a call that went well."""
        lease = _lease_of(kwargs)
        if lease is not None:
            lease.success()

    def log_failure_event(self, kwargs: Any, *_: Any, **__: Any) -> None:  # noqa: ANN401 - as litellm calls it
        """End the lease of a call that failed, as its error says."""
        lease = _lease_of(kwargs)
        if lease is not None:
            _judge(lease, kwargs.get("exception"))

    async def async_log_success_event(self, kwargs: Any, *_: Any, **__: Any) -> None:  # noqa: ANN401 - as litellm calls it
        """Do the same for a call of asyncio."""
        self.log_success_event(kwargs)

    async def async_log_failure_event(self, kwargs: Any, *_: Any, **__: Any) -> None:  # noqa: ANN401 - as litellm calls it
        """Do the same for a call of asyncio."""
        self.log_failure_event(kwargs)


_LOGGER: Final = _Logger()


def _hold(lease: Lease[Endpoint], request: dict[str, Any]) -> None:
    """Have a request carry a lease to where litellm tells how it ended."""
    name = next((each for each in _BUCKETS if isinstance(request.get(each), dict)), "metadata")
    bucket = _member(request, name)
    token = _Token(f"lease on {lease.node_id}")
    token.lease = lease
    # A dictionary of the request's own: the caller may give the same to several.
    request[name] = {**bucket, _KEY: token}
    if not any(each is _LOGGER for each in litellm.callbacks):
        litellm.logging_callback_manager.add_litellm_callback(_LOGGER)


def _lease_of(told: Any) -> Lease[Endpoint] | None:  # noqa: ANN401 - as litellm has it
    parameters = _member(told, "litellm_params")
    for name in _BUCKETS:
        token = _member(parameters, name).get(_KEY)
        if isinstance(token, _Token):
            return token.lease
    return None


def _member(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a mapping that is a member of another; an empty one where it is missing."""
    found: Mapping[str, Any] | None = told.get(name)
    return found or _NOTHING


def _judge(lease: Lease[Endpoint], error: object) -> None:
    """End a lease as an error of litellm says."""
    if not isinstance(error, Exception) or outcome_of(type(error)) is Outcome.CANCELLED:
        lease.cancel()
        return
    status = getattr(error, "status_code", None)
    if status == _TOO_MANY:
        headers: Any = getattr(getattr(error, "response", None), "headers", None) or _NOTHING
        lease.rate_limited(asked_wait(headers) or reset_wait(headers), reason=type(error).__name__)
    elif isinstance(error, OSError) or (
        isinstance(error, OpenAIError)
        and (not isinstance(status, int) or status >= _SERVER_ERRORS or status in _FAILURES)
    ):
        # Not its text, which may have the prompt.
        lease.failure(type(error).__name__ + (f" {status}" if status else ""))
    elif isinstance(error, OpenAIError):
        lease.success()  # an answer, though not the one hoped for
    else:
        lease.call_off()  # litellm's own, such as a budget that is spent


def _failed_before(request: Mapping[str, Any]) -> frozenset[str]:
    """Return the ids of the deployments that have failed this request."""
    for name in _BUCKETS:
        told: Any = _member(request, name).get("previous_models")
        if told:
            return frozenset(str(each["deployment_id"]) for each in told if "deployment_id" in each)
    return frozenset()


def _run(ask: Callable[[], Coroutine[Any, Any, Any]]) -> Any:  # noqa: ANN401 - what the coroutine returns
    """Return what a coroutine returns, where no event loop may run one."""
    coroutine = ask()
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    except RuntimeError:
        pass  # it asks for the loop; anything else it raises is the answer
    coroutine.close()
    # It waits for something, such as Redis.
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(lambda: asyncio.run(ask())).result()


def _id_of(deployment: Mapping[str, Any]) -> str:
    return str(deployment["model_info"]["id"])


def _node_of(deployment: Mapping[str, Any]) -> Endpoint:
    """Return the node that stands for a deployment."""
    told = deployment["litellm_params"]
    weight, order = told.get("weight"), told.get("order")
    return Endpoint(
        _id_of(deployment),
        weight=1 if weight is None else weight,
        priority=0 if order is None else order,
        tags={"model_name": str(deployment["model_name"])},
    )
