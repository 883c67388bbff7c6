"""Site of a status page: which path gives what."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from threading import Lock
from typing import Final, NamedTuple
from urllib.parse import quote

from loadwise._fork import ForkAware, reset_in_child
from loadwise.integrations._status_page.actions import ACTIONS, Actions
from loadwise.integrations._status_page.answers import PageAnswer, PageRequest, text_answer
from loadwise.integrations._status_page.facts import NodeFacts, PageFacts
from loadwise.integrations._status_page.feed import StatusFeed
from loadwise.integrations._status_page.history import Point
from loadwise.integrations._status_page.page import fragment, page, policy
from loadwise.integrations._status_page.query import PageQuery

__all__ = [
    "EVENTS",
    "EVENT_HEADERS",
    "MOST_STREAMS",
    "RETRY_SOON",
    "STREAM_SECONDS",
    "Site",
    "wants_body",
]

EVENTS: Final = "/events"
_STREAM: Final = "text/event-stream; charset=utf-8"
EVENT_HEADERS: Final = tuple(
    header for header in PageAnswer.of(200, _STREAM, b"").headers if header[0] != "content-length"
)
"""Headers of a stream of events, whose length nobody knows."""
STREAM_SECONDS: Final = 10.0
"""Seconds after which a stream ends and its viewer asks again: a server that shuts down waits."""
MOST_STREAMS: Final = 100
"""Streams of one process; a viewer beyond them gets one event at a time."""
_RETRY: Final = b"retry: 1000\n\n"
"""Event that has a viewer ask again a second after an answer with one event."""
RETRY_SOON: Final = b"retry: 100\n\n"
"""Event that has a viewer ask again at once after a stream."""
_MOST_REMEMBERED: Final = 64
"""Fragments that are remembered, for all who look at the same nodes of the same snapshot."""
_HTML: Final = "text/html; charset=utf-8"
_MOST_QUERY: Final = 2000


def wants_body(request: PageRequest) -> bool:
    """Tell whether the answer depends on the body of a request."""
    return request.method == "POST" and request.path[1:] in ACTIONS


class _Rendered(NamedTuple):
    """Some nodes of a snapshot.

    Attributes:
        html: The part of a page that shows them.
        event: The event that puts that in place of what is shown.
    """

    html: str
    event: bytes


class Site(ForkAware):
    """Answers requests.

    Args:
        feed: Gives the snapshots.
        actions: Carries out actions.

    Thread-safety: full. Cost: O(nodes) for the first answer after a snapshot became too old; then
    O(nodes shown) once for each choice of nodes, whoever asks.
    """

    def __init__(self, feed: StatusFeed, actions: Actions) -> None:
        self.feed = feed
        self._actions = actions
        self._given: Mapping[str, Callable[[PageRequest], PageAnswer]] = {
            "": _to_the_page,
            "/": self._page,
            "/status.json": self._json,
            "/metrics": _metrics,
            EVENTS: self._one_event,
        }
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = Lock()
        self._rendered: OrderedDict[tuple[int, PageQuery], _Rendered] = OrderedDict()

    def answer(self, request: PageRequest) -> PageAnswer:
        """Return the answer to a request; of `EVENTS`, to be streamed where that can be, one."""
        name = request.path[1:]
        if name in ACTIONS:
            if request.method != "POST":
                return text_answer(405, f"{name} is for POST alone", ("allow", "POST"))
            answer = self._actions.answer(name, request)
            if answer.status == HTTPStatus.OK:
                self.feed.expire()  # whoever did it wants to see it
            return answer
        give = self._given.get(request.path)
        if give is None:
            return text_answer(404, "There is nothing here; the page is at its own path, with a /")
        if request.method not in ("GET", "HEAD"):
            return text_answer(405, "This is for GET alone", ("allow", "GET, HEAD"))
        if len(request.query) > _MOST_QUERY:
            return text_answer(414, f"The query has more than {_MOST_QUERY} characters")
        return give(request)

    def _page(self, request: PageRequest) -> PageAnswer:
        query = PageQuery.of(request.query)
        facts, rendered = self._shown(query)
        html = page(facts, query, rendered.html, actions=self._actions.allowed)
        return PageAnswer.of(200, _HTML, html.encode(), ("content-security-policy", policy()))

    def _one_event(self, request: PageRequest) -> PageAnswer:
        _, event = self.event(PageQuery.of(request.query))
        return PageAnswer.of(200, _STREAM, _RETRY + event)

    def _json(self, _: PageRequest) -> PageAnswer:
        facts = self.feed.current()
        with self._lock, self.feed.rendering():
            body = facts.as_json
        return PageAnswer.of(200, "application/json", body)

    def event(self, query: PageQuery) -> tuple[int, bytes]:
        """Return the number of the snapshot and the event that shows it."""
        facts, rendered = self._shown(query)
        return facts.number, rendered.event

    def _shown(self, query: PageQuery) -> tuple[PageFacts, _Rendered]:
        """Return a snapshot, and the nodes of it that are asked for, rendered once for all."""
        facts = self.feed.current()
        key = facts.number, query
        # Threads that want the same wait for the first of them.
        with self._lock:
            known = self._rendered.get(key)
            if known is None:
                with self.feed.rendering():
                    known = self._rendered[key] = self._render(facts, query)
                while len(self._rendered) > _MOST_REMEMBERED:
                    self._rendered.popitem(last=False)
        return facts, known

    def _render(self, facts: PageFacts, query: PageQuery) -> _Rendered:
        points = partial(self._points, facts)
        told = fragment(facts, query, points, actions=self._actions.allowed)
        return _Rendered(told, f"data: {told}\n\n".encode())

    def _points(self, facts: PageFacts, place: int, each: NodeFacts) -> Sequence[Point]:
        return self.feed.points(place, each.status.id, facts.when)


def _to_the_page(request: PageRequest) -> PageAnswer:
    # Relative, for nobody here knows what a proxy has taken off.
    last = quote(request.mount.rpartition("/")[2], errors="surrogateescape")
    query = f"?{request.query}" if request.query else ""
    return text_answer(307, "The page is below", ("location", f"./{last}/{query}"))


def _metrics(_: PageRequest) -> PageAnswer:
    """Return what the default registry of Prometheus has, or its files of several processes."""
    try:
        import prometheus_client  # noqa: PLC0415 - an extra that the page can do without
        from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415
        from prometheus_client.values import MutexValue, ValueClass  # noqa: PLC0415
    except ImportError:
        return text_answer(
            404,
            "There are no metrics without prometheus-client: pip install 'loadwise[prometheus]'",
        )
    registry = prometheus_client.REGISTRY
    if ValueClass is not MutexValue:
        registry = prometheus_client.CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    body = prometheus_client.generate_latest(registry)
    return PageAnswer.of(200, prometheus_client.CONTENT_TYPE_LATEST, body)
