"""Addressing of a pool's requests: the keys that are good for each, and what each key needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import quote

from loadwise.filters import Filter, as_filter
from loadwise.integrations._http.httpx_twins import give_body
from loadwise.integrations._llm.keys import LlmKey
from loadwise.integrations._llm.requested_model import RequestedModel, asked_in

__all__ = ["address", "prepare"]

# Requests are Any: they are those of httpx2 or httpx.

_NOTE = "loadwise.asked"
_CREDENTIALS = ("authorization", "x-api-key", "api-key")
# What Azure has below a deployment; all else is asked without one.
_DEPLOYED = frozenset(
    {
        "/chat/completions",
        "/completions",
        "/embeddings",
        "/audio/transcriptions",
        "/audio/translations",
        "/audio/speech",
        "/images/generations",
        "/images/edits",
    }
)
# Azure's own client names the deployment by itself, as it was asked for.
_BY_DEPLOYMENT = re.compile(r"^/openai/deployments/[^/]+/")
_LONGEST_SHOWN = 100


class _Serves(Filter[LlmKey]):
    """Accepts the keys that are good for a model."""

    def __init__(self, model: str) -> None:
        self._model = model
        self.ready_key = ("serves", model)

    def __call__(self, node: LlmKey) -> bool:
        """Tell whether the key is good for the model."""
        return node.serves(self._model)

    def sources(self) -> tuple[()]:
        """Nothing: it depends on the key alone."""
        return ()

    def __repr__(self) -> str:
        return f"model {self._model[:_LONGEST_SHOWN]!r}"


def address(request: Any, timeout: float | None) -> None:
    """Have a request, whose body has been read, reach only keys that are good for it.

    What its ``extensions["loadwise"]`` say for themselves holds; their ``where`` holds, too.

    Args:
        request: The request.
        timeout: Seconds for which it would wait for a key; ``None`` for any time. A request that
            would wait less for a connection waits less for a key, too.
    """
    asked = asked_in(request.url.path, request.content)
    said: object = request.extensions.get("loadwise", {})
    if not isinstance(said, Mapping):
        return  # it is refused where options are read
    given = cast("Mapping[str, Any]", said)
    waits: float | None = request.extensions.get("timeout", {}).get("pool")
    shorter = waits is not None and (timeout is None or waits < timeout)
    options: dict[str, Any] = {
        "retry": asked.is_prompt,
        "timeout": waits if shorter else timeout,
        **given,
    }
    if asked.model is not None:
        serves: Callable[[Any], bool] = _Serves(asked.model)
        where = given.get("where")
        options["where"] = serves if where is None else as_filter(where) & serves
    request.extensions = {**request.extensions, "loadwise": options, _NOTE: asked}


def prepare(request: Any, key: LlmKey) -> None:
    """Give a request what its key needs: the secret, its name for the model, and Azure's path."""
    asked: RequestedModel = request.extensions.pop(_NOTE)
    model = asked.model
    if model is not None and key.models is not None:
        model = key.models[model]
        if model != asked.model:
            give_body(request, asked.renamed(request.content, model))
    base, path, query = _split(request.url, key)
    if key.api_version is not None:
        target = _azures_path(base, path, model)
        request.url = request.url.copy_with(raw_path=(target + query).encode("ascii"))
        request.url = request.url.copy_set_param("api-version", key.api_version)
    else:
        both = base.endswith("/v1") and path.startswith("/v1/")  # both tell the version
        target = (base.removesuffix("/v1") if both else base) + path + query
        if target.encode("ascii") != request.url.raw_path:
            request.url = request.url.copy_with(raw_path=target.encode("ascii"))
    _give_credentials(request, key, path)


def _split(url: Any, key: LlmKey) -> tuple[str, str, str]:
    """Return the path of a key's base URL, the rest of a request's path, and its query."""
    base = key.base_url.partition("://")[2].partition("/")[2]
    base = f"/{base}" if base else ""
    path, question, query = url.raw_path.decode("ascii").partition("?")
    return base, _BY_DEPLOYMENT.sub("/", path.removeprefix(base)), question + query


def _azures_path(base: str, path: str, model: str | None) -> str:
    path = "/" + path.removeprefix("/openai/").removeprefix("/v1/").removeprefix("/")
    if not base.endswith("/openai") and "/openai/" not in base:
        base += "/openai"
    names = model is not None and model.strip(".") != ""  # dots alone would lead elsewhere
    if model is not None and names and path in _DEPLOYED and "/deployments/" not in base:
        base += f"/deployments/{quote(model, safe='')}"
    return base + path


def _give_credentials(request: Any, key: LlmKey, path: str) -> None:
    headers = request.headers
    is_anthropics = "x-api-key" in headers or path.startswith(("/messages", "/v1/messages"))
    for name in _CREDENTIALS:
        if name in headers:
            del headers[name]
    if key.api_version is not None:
        headers["api-key"] = key.credentials
    elif is_anthropics:
        headers["x-api-key"] = key.credentials
    else:
        headers["authorization"] = f"Bearer {key.credentials}"
