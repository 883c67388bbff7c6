"""Transports and SDK clients of a pool, for whichever HTTP library there is."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from loadwise.balancer import Balancer
from loadwise.integrations._llm.addressing import address

__all__ = ["client_of", "transport_of"]

_PACKAGES = ("httpx2", "httpx")
_MOST_CONNECTIONS = 1_000
_KEPT = 100
# The pool says these itself.
_OWN = ("api_key", "base_url", "http_client")
_PLACE = "http://llm"

# Transports and clients are Any throughout: they are those of either package and either SDK.


class _Addressed:
    """Has the requests of a synchronous client reach keys that are good for them."""

    def handle_request(self, request: Any) -> Any:
        request.read()
        address(request, self._settings.timeout)  # type: ignore[attr-defined]  # as below
        return super().handle_request(request)  # type: ignore[misc]  # of the transport beside it


class _AsyncAddressed:
    """Has the requests of an asynchronous client reach keys that are good for them."""

    async def handle_async_request(self, request: Any) -> Any:
        await request.aread()
        address(request, self._settings.timeout)  # type: ignore[attr-defined]  # as below
        return await super().handle_async_request(request)  # type: ignore[misc]  # as above


def transport_of(
    balancer: Balancer[Any], options: dict[str, Any], inner: Any, *, awaits: bool
) -> Any:
    """Return a transport that sends each request to a key that is good for it.

    Args:
        balancer: Who chooses.
        options: Those of the transport.
        inner: Who sends; ``None`` for connections of its own.
        awaits: Whether it is for an asynchronous client.
    """
    package = _package_of(inner) or next(filter(find_spec, _PACKAGES), None)
    if package is None:
        raise ImportError("a KeyPool needs an HTTP client: pip install 'loadwise[httpx2]'")
    return _transport(package, balancer, options, inner, awaits=awaits)


def client_of(
    sdk: str,
    balancer: Balancer[Any],
    options: dict[str, Any],
    given: dict[str, Any],
    *,
    awaits: bool,
) -> Any:
    """Return a client of an SDK.

    Args:
        sdk: ``"openai"`` or ``"anthropic"``.
        balancer: Who chooses.
        options: Those of the transport.
        given: The arguments of the client that the caller has given.
        awaits: Whether it is to be asynchronous.
    """
    for name in _OWN:
        if name in given:
            raise TypeError(f"{name} is what the pool gives to the client; leave it out")
    try:
        module = import_module(sdk)
    except ImportError as error:
        raise ImportError(f"this needs the SDK: pip install {sdk}") from error
    name = "OpenAI" if sdk == "openai" else "Anthropic"
    http = module.DefaultAsyncHttpxClient if awaits else module.DefaultHttpxClient
    inner = given.pop("transport", None)
    package = _package_of(http)
    if package is None or (inner is not None and _package_of(inner) != package):
        raise TypeError(f"transport is {inner!r}; {sdk} needs one of {package}")
    transport = _transport(package, balancer, options, inner, awaits=awaits)
    make = getattr(module, f"Async{name}" if awaits else name)
    arguments = {"max_retries": 0, "api_key": "loadwise", "base_url": _PLACE, **given}
    return make(http_client=http(transport=transport), **arguments)


def _transport(
    package: str, balancer: Balancer[Any], options: dict[str, Any], inner: Any, *, awaits: bool
) -> Any:
    integration = import_module(f"loadwise.integrations.{package}")
    base = integration.AsyncLoadwiseTransport if awaits else integration.LoadwiseTransport
    addressed = _AsyncAddressed if awaits else _Addressed
    limits = None
    if inner is None:
        # As the SDKs would have them: many prompts take long.
        limits = import_module(package).Limits(
            max_connections=_MOST_CONNECTIONS, max_keepalive_connections=_KEPT
        )
    made = type(base.__name__, (addressed, base), {"__doc__": base.__doc__})
    return made(balancer, inner, limits=limits, **options)


def _package_of(kind: Any) -> str | None:
    """Return the HTTP package that a class, or what is made of one, is of or derived from."""
    kinds: tuple[type[object], ...] = (kind if isinstance(kind, type) else kind.__class__).__mro__
    origins = (each.__module__.partition(".")[0] for each in kinds)
    return next((origin for origin in origins if origin in _PACKAGES), None)
