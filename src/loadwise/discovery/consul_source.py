"""Source that is a service of Consul, followed by blocking queries."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from loadwise._numbers import finite, shown
from loadwise.discovery.consul_entries import endpoints
from loadwise.discovery.source import Feed, Found, SourceError
from loadwise.node_list import text_fault
from loadwise.nodes import Endpoint

__all__ = ["ConsulSource"]

_HERE: Final = "http://127.0.0.1:8500"
_LONGEST_WAIT: Final = 600.0
_GRACE: Final = 10.0
"""Seconds that an answer may take besides the time that it is to wait for a change."""
_MOST_DIGITS: Final = 20
_GAP: Final = 0.2
"""Seconds between two queries at least: an index may move though nothing of the service has."""


class ConsulSource:
    """Nodes that Consul lists for a service, and whose checks all pass.

    Args:
        service: The service's name.
        url: Of an agent; by default what ``CONSUL_HTTP_ADDR`` says, or ``http://127.0.0.1:8500``.
        token: For its ACL; by default what ``CONSUL_HTTP_TOKEN`` says, or the file that
            ``CONSUL_HTTP_TOKEN_FILE`` names, which is read again for each query.
        tag: Only instances with this tag.
        datacenter: Whose; the agent's own by default.
        wait: Seconds that a query waits for a change, above 0, at most 600.

    Raises:
        ImportError: httpx2 is missing.
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range.

    A node's id is ``address:port``. Its weight is the instance's ``Weights.Passing``, or ``weight``
    of its metadata; its zone that of its locality, or ``zone`` of its metadata or the host's. Its
    tags are the metadata, and those of Consul: ``name=value``, or a name alone, with an empty
    value. An instance without a port is left out, and the log says so.

    Needs httpx2: ``pip install 'loadwise[consul]'``.

    Thread-safety: immutable.

    Source: Consul's HTTP API, "Blocking Queries": the index begins anew when it goes back, and is
    at least 1.

    Example:
        >>> ConsulSource("search", tag="green")
        ConsulSource('search', tag='green')
    """

    def __init__(
        self,
        service: str,
        *,
        url: str | None = None,
        token: str | None = None,
        tag: str | None = None,
        datacenter: str | None = None,
        wait: float = 60.0,
    ) -> None:
        if find_spec("httpx2") is None:
            raise ImportError("ConsulSource needs httpx2: pip install 'loadwise[consul]'")
        from loadwise.discovery.http_client import base_url  # noqa: PLC0415 - needs an extra

        named = {"service": service, "tag": tag, "datacenter": datacenter, "token": token}
        for name, given in named.items():
            _check(name, given, is_needed=name == "service")
        address = os.environ.get("CONSUL_HTTP_ADDR") or _HERE
        if "://" not in address:
            is_tls = os.environ.get("CONSUL_HTTP_SSL", "").lower() in {"1", "true"}
            address = f"{'https' if is_tls else 'http'}://{address}"
        self._url = base_url(address, "CONSUL_HTTP_ADDR") if url is None else base_url(url, "url")
        seconds = finite("wait", wait)
        if not 0 < seconds <= _LONGEST_WAIT:
            raise ValueError(f"wait is {wait!r}; it must be seconds above 0, at most 600")
        self._service = service
        self._token = token
        self._wait = seconds
        self._shown = {"tag": tag, "datacenter": datacenter}
        chosen = {"passing": "1", "tag": tag, "dc": datacenter}
        self._params = {name: value for name, value in chosen.items() if value is not None}

    def open(self) -> Feed[Endpoint]:
        """Return a new feed."""
        from loadwise.discovery.http_client import HttpClient  # noqa: PLC0415 - needs an extra

        path = f"/v1/health/service/{quote(self._service, safe='')}"
        client = HttpClient(self._url, None)
        return _ConsulFeed(client, path, self._params, self._token, self._wait)

    def __repr__(self) -> str:
        given = "".join(f", {name}={value!r}" for name, value in self._shown.items() if value)
        return f"ConsulSource({self._service!r}{given})"


class _ConsulFeed:
    """Feed of one service."""

    def __init__(
        self,
        client: Any,
        path: str,
        params: Mapping[str, str],
        token: str | None,
        wait: float,
    ) -> None:
        self._client = client
        self._path = path
        self._params = params
        self._token = token
        self._wait = wait
        self._index = 0
        self._is_asking = False

    def fetch(self) -> Found[Endpoint]:
        """Return the instances, once they are others than before or the time is over.

        Raises:
            SourceError: Consul does not answer as it must.
        """
        params = dict(self._params)
        seconds = _GRACE
        if self._index:
            params |= {"index": str(self._index), "wait": f"{max(1, round(self._wait * 1000))}ms"}
            # Consul adds up to a sixteenth of its own accord.
            seconds += self._wait * 17 / 16
        token = _token(self._token)
        headers = {"X-Consul-Token": token} if token else {}
        # Whatever goes wrong, the next query is not to wait: another server may answer it.
        before, self._index, self._is_asking = self._index, 0, True
        try:
            answer, told = self._client.get(self._path, params, headers, seconds)
        finally:
            self._is_asking = False
        nodes, complaints = endpoints(answer)
        index = _index(told.get("X-Consul-Index"))
        self._index = 0 if index < before else index
        return Found(nodes, again=_GAP, complaints=complaints)

    def close(self) -> None:
        """End a query under way, or let go of the connection."""
        self._client.interrupt()
        if not self._is_asking:
            self._client.close()


def _index(told: str | None) -> int:
    if told is None or not told.isdecimal() or len(told) > _MOST_DIGITS:
        raise SourceError(
            f"the answer has the X-Consul-Index {shown(told)}; it must be a number: is this Consul?"
        )
    return max(1, int(told))


def _token(given: str | None) -> str:
    if given is not None:
        return given
    path = os.environ.get("CONSUL_HTTP_TOKEN_FILE")
    if os.environ.get("CONSUL_HTTP_TOKEN") or not path:
        return os.environ.get("CONSUL_HTTP_TOKEN", "")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"CONSUL_HTTP_TOKEN_FILE {path!r} cannot be read: {error}") from None


def _check(name: str, given: object, *, is_needed: bool) -> None:
    if given is None and not is_needed:
        return
    if not isinstance(given, str):
        told = "str" if is_needed else "str or None"
        raise TypeError(f"{name} is {shown(given)}; it must be a {told}")
    fault = text_fault(given)
    if fault is not None:
        told = "not one" if name == "token" else shown(given)  # a secret is not for logs
        raise ValueError(f"{name} is {told}: it {fault}")
