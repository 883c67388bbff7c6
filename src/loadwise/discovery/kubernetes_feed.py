"""Feed of one service of Kubernetes: a list, and a watch from there on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, cast
from urllib.parse import quote

from loadwise._numbers import shown
from loadwise.discovery.endpoint_slices import Port, joined
from loadwise.discovery.http_client import BodyStream, HttpClient, HttpStatusError
from loadwise.discovery.source import MOST_NODES, Found, SourceError
from loadwise.nodes import Endpoint

__all__ = ["KubernetesFeed"]

_Table = dict[str, Any]

_GONE: Final = 410
_PAGE: Final = "50"
"""Slices, of 100 endpoints each as a rule: what is read of one page holds up other threads."""
_PATIENCE: Final = 15.0
"""Seconds that the server may say nothing where it need not wait."""
_WATCH: Final = 240
"""Seconds after which a watch ends of its own accord, and the next begins."""
_AFTER_END: Final = 1.0
"""Seconds from the end of a watch to the next; that one misses nothing of what happens between."""
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 10.0
_MOST_DOUBLINGS: Final = 6
"""Seconds from a list that a lost watch made necessary to the next watch, and how they grow."""
_MOST_PAGES: Final = 1_000
_LONGEST_EVENT: Final = 16 * 1024 * 1024


class _WatchLostError(Exception):
    """A watch cannot go on from where it was; never told to others."""


class KubernetesFeed:
    """Feed of the EndpointSlices of a service.

    Args:
        client: Of the API server.
        namespace: The service's namespace.
        service: Its name.
        port: The wanted port.
        token: Returns the token to show; nothing for none.
    """

    def __init__(
        self,
        client: HttpClient,
        namespace: str,
        service: str,
        port: Port,
        token: Callable[[], str],
    ) -> None:
        self._client = client
        self._path = (
            f"/apis/discovery.k8s.io/v1/namespaces/{quote(namespace, safe='')}/endpointslices"
        )
        self._selector = {"labelSelector": f"kubernetes.io/service-name={service}"}
        self._service = service
        self._port = port
        self._token = token
        self._slices: dict[str, _Table] = {}
        # What they come to; ``None`` until that has been found out.
        self._found: Found[Endpoint] | None = None
        # What the slices are the state at; ``None`` if they are to be listed.
        self._version: str | None = None
        # Whether the server has held to that version, be it by one event.
        self._is_proven = False
        # How many watches could not go on since one was well, and what is to be said of it.
        self._losses = 0
        self._complaints: dict[str, str] = {}
        self._stream: BodyStream | None = None
        self._has_heard = False  # anything in the watch that there is, or was last
        self._rest = bytearray()
        self._is_asking = False

    def fetch(self) -> Found[Endpoint]:
        """Return the endpoints: at first as they are listed, later when something has happened.

        A bookmark changes nothing, so after one that is the same `Found` as before. Where watches
        are of no use, which is complained about once, there are lists at growing intervals.

        Raises:
            SourceError: The server does not answer as it must. The watch goes on from where it was.
        """
        self._is_asking = True
        try:
            again = 0.0
            if self._version is None:
                self._list()
            else:
                again = self._follow()
            if self._found is None:
                found = joined(self._slices.values(), self._port, self._service)
                self._found = replace(found, complaints={**found.complaints, **self._complaints})
            return replace(self._found, again=again) if again else self._found
        except BaseException:
            self._hang_up()
            raise
        finally:
            self._is_asking = False

    def close(self) -> None:
        """End a request under way, or let go of the connection."""
        self._client.interrupt()
        if not self._is_asking:
            self._hang_up()
            self._client.close()

    def _follow(self) -> float:
        """Read until something has happened, and return for how long the next watch is to wait."""
        try:
            if not self._watch():
                return 0.0
            if not self._has_heard:
                # Not even a bookmark, as of a server that was set back and counts from lower on.
                self._list()
        except _WatchLostError as error:
            if not self._is_proven:
                self._complaints = {"watch": f"{error}; so it is listed again and again"}
            self._hang_up()
            self._list()
            # One that forgets at once what it has just listed would else be asked for ever.
            self._losses += 1
            return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._losses, _MOST_DOUBLINGS))
        # Whoever ends each watch at once is not to be asked for the next one at once.
        return _AFTER_END

    def _headers(self) -> dict[str, str]:
        token = self._token()
        return {"Accept": "application/json"} | (
            {"Authorization": f"Bearer {token}"} if token else {}
        )

    def _list(self) -> None:
        try:
            slices, version = self._pages({"limit": _PAGE})
        except HttpStatusError as error:
            if error.status != _GONE:
                raise
            # The list changed so much while it was read that the server let go of the old state.
            slices, version = self._pages({})
        self._slices, self._version, self._is_proven = slices, version, False
        self._found = None

    def _pages(self, params: dict[str, str]) -> tuple[dict[str, _Table], str]:
        slices: dict[str, _Table] = {}
        count = 0
        for _ in range(_MOST_PAGES):
            answer, _ = self._client.get(
                self._path, self._selector | params, self._headers(), _PATIENCE
            )
            table = _as_table(answer, "the list")
            meta = _as_table(table.get("metadata"), "its metadata")
            items = table.get("items")
            for item in cast("list[object]", items) if isinstance(items, list) else []:
                self._put(slices, item)
                count += 1
            if count > MOST_NODES:
                raise SourceError(f"{self._service} has more than {MOST_NODES:,} slices")
            if not meta.get("continue"):
                return slices, _version_of(meta)
            params = params | {"continue": str(meta["continue"])}
        raise SourceError(f"the list of {self._service} has more than {_MOST_PAGES:,} pages")

    def _watch(self) -> bool:
        """Read until something has happened, and return whether it was the watch that ended.

        Raises:
            _WatchLostError: It is to be listed anew.
            SourceError: The connection broke off.
        """
        while True:
            if self._stream is None:
                self._begin()
            stream = self._stream
            piece = b"" if stream is None else stream.read()
            if not piece:
                # The time of the watch is over, and the next one goes on from here.
                self._hang_up()
                self._be_well()
                return True
            has_news = False
            try:
                for event in self._events(piece):
                    self._happen(event)
                    has_news = True
            except SourceError as error:
                # It would tell the same again from there.
                raise _WatchLostError(f"the watch of {self._service} ended: {error}") from None
            if has_news:
                return False

    def _begin(self) -> None:
        params = self._selector | {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": str(self._version),
            "timeoutSeconds": str(_WATCH),
        }
        headers = self._headers() | {"Accept-Encoding": "identity"}
        self._has_heard = False
        try:
            self._stream, _ = self._client.stream(self._path, params, headers, _WATCH + _PATIENCE)
        except HttpStatusError as error:
            # Whatever it is: the version may be to blame.
            raise _WatchLostError(str(error)) from None

    def _be_well(self) -> None:
        """Note that a watch does what it should."""
        self._is_proven, self._losses = True, 0
        if self._complaints:
            self._complaints, self._found = {}, None

    def _events(self, piece: bytes) -> Iterator[_Table]:
        """Yield the events that are complete with a piece of the stream, one per line."""
        self._rest += piece
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        if len(rest) > _LONGEST_EVENT:
            raise SourceError(f"an event has more than {_LONGEST_EVENT // 2**20} MiB")
        for line in lines:
            if not line.strip():
                continue
            try:
                event: object = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise SourceError(f"an event is not JSON: {error}") from None
            yield _as_table(event, "an event")

    def _happen(self, event: _Table) -> None:
        """Take in an event.

        Raises:
            SourceError: It tells of an error.
        """
        kind, thing = event.get("type"), _as_table(event.get("object"), "the object of an event")
        if kind == "ERROR":
            raise SourceError(f"it says {shown(thing.get('message'))}")
        if kind not in {"ADDED", "MODIFIED", "DELETED", "BOOKMARK"}:
            return
        meta = _as_table(thing.get("metadata"), "its metadata")
        if kind == "DELETED":
            self._slices.pop(str(meta.get("name")), None)
        elif kind != "BOOKMARK":
            self._put(self._slices, thing)
        if kind == "BOOKMARK":
            self._be_well()
        else:
            self._found = None
        self._version, self._is_proven, self._has_heard = _version_of(meta), True, True

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream = None
        self._rest = bytearray()

    @staticmethod
    def _put(slices: dict[str, _Table], item: object) -> None:
        table = _as_table(item, "a slice")
        name = _as_table(table.get("metadata"), "its metadata").get("name")
        if not isinstance(name, str):
            raise SourceError(f"a slice has the name {shown(name)}; it must be text")
        slices[name] = table


def _as_table(value: object, what: str) -> _Table:
    if not isinstance(value, Mapping):
        raise SourceError(f"{what} is {shown(value)}; it must be a table: is this Kubernetes?")
    return cast("_Table", value)


def _version_of(meta: _Table) -> str:
    version = meta.get("resourceVersion")
    if not isinstance(version, str) or not version:
        raise SourceError(f"the resourceVersion is {shown(version)}; it must be text")
    return version
