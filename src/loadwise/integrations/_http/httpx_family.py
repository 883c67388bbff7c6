"""Base of the transports for httpx and httpx2, whether they wait or not.

The two packages have the same classes under different names and no common base, so what is
specific to one reaches this code as the attributes of a `Library`.

All of this happens to every request, so what can be kept from one to the next is kept, and headers
are touched as little as may be.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from loadwise._base_url import LONGEST_KEPT
from loadwise._url_paths import confined
from loadwise.balancer import Lease
from loadwise.context import HashKey
from loadwise.errors import NoNodeAvailable
from loadwise.integrations._http.client_life import ClientLife
from loadwise.integrations._http.decoding import DecodedWatch, DecodingReader
from loadwise.integrations._http.failover import Prior
from loadwise.integrations._http.httpx_headers import access_to
from loadwise.integrations._http.httpx_redirects import HttpxRedirects
from loadwise.integrations._http.httpx_twins import twin_of
from loadwise.integrations._http.httpx_verdicts import judge_error
from loadwise.integrations._http.lease_until_read import OpenResponse
from loadwise.integrations._http.metering import RequestAccount
from loadwise.integrations._http.no_node_response import Refusal, refusal_of
from loadwise.integrations._http.pooled import checked_limits
from loadwise.integrations._http.reading_limits import (
    CHALLENGES,
    Opening,
    Rest,
    challenger_of,
    deadline_of,
    note_challenger,
    note_deadline,
)
from loadwise.integrations._http.retrying import RetryLoop
from loadwise.integrations._http.settings import Options, Settings, options_of
from loadwise.integrations._http.verdict import Verdict, judge_status
from loadwise.integrations._http.wires import TimeLeft
from loadwise.outcome import Outcome

_ERRORS = 400
_ERROR_PATIENCE = 5.0
"""Seconds for which an error's body is waited for that comes after its headers."""

__all__ = ["Connections", "Library", "Senders", "Transport"]

# Requests, responses, nodes and streams are Any throughout: they are those of either package.


class Target(NamedTuple):
    """Target of a request: the URL at a node, and the ``Host`` of it."""

    url: Any
    host: bytes


class Library:
    """Package httpx or httpx2, as far as it is needed."""

    def __init__(
        self,
        module: Any,
        sync_stream: type[Any],
        async_stream: type[Any],
        no_node_error: type[Any],
    ) -> None:
        self.module = module
        self.no_node_error = no_node_error
        self.access = access_to(module.Headers)
        self.byte_stream: type[Any] = module.ByteStream
        self.sync_stream = sync_stream
        self.async_stream = async_stream
        # Parsing and joining URLs is the dearest part of a request's way through here.
        self._known = lru_cache(maxsize=4096)(self._target)

    def target(self, base: str, raw_path: bytes) -> Target:
        """Return where a path (with its query) below a node's base URL is."""
        find = self._known if len(raw_path) <= LONGEST_KEPT else self._target
        return find(base, raw_path)

    def _target(self, base: str, raw_path: bytes) -> Target:
        """Return where a path (with its query) below a node's base URL is."""
        url = self.module.URL(base)
        own = url.raw_path.partition(b"?")[0].rstrip(b"/")
        path, question, query = raw_path.partition(b"?")
        path = confined(path.decode("ascii")).encode("ascii")
        below = b"/" + path.removeprefix(b"/") + question + query
        url = url.copy_with(raw_path=own + below)
        return Target(url, url.netloc)


class Connections(NamedTuple):
    """Defaults of the connections that are kept."""

    limits: Any
    http2: object


class Senders(NamedTuple):
    """The kinds of senders, sync or async."""

    pooled: Callable[..., Any]
    given: Callable[..., Any]
    per_node: Callable[..., Any]
    base: type[Any]
    example: str


class Transport:
    """Base of the sync and the async transport."""

    library: Library

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._life = ClientLife()
        self._per_node = False
        self._redirects = HttpxRedirects(
            self.library.module, self.library.access, settings.mapper()
        )
        self._jars = settings.jars()

    def _end_life(self) -> None:
        """Tell the requests under way that they end by the client's own doing."""
        self._life = self._life.end()

    def _sender_for(self, inner: Any, connections: Connections, kinds: Senders) -> Any:
        """Return what sends: by connections of its own, or by what the caller has given."""
        module, balancer = self.library.module, self._settings.balancer
        checked_limits(module, connections.limits, connections.http2, inner)
        if isinstance(inner, kinds.base):
            return kinds.given(module, inner)
        pooled = kinds.pooled(module, balancer, connections.limits, http2=connections.http2 is True)
        if inner is None:
            return pooled
        package, base = module.__name__, kinds.base.__name__
        if isinstance(inner, type) or not callable(inner):
            raise TypeError(
                f"transport is {inner!r}; it must be a {package}.{base}, such as "
                f"{package}.{kinds.example}(), or a function of a node that returns one"
            )
        self._per_node = True
        return kinds.per_node(module, balancer, inner, pooled)

    def _options(self, request: Any) -> Options:
        """Return what a request says for itself."""
        return options_of(request.extensions.get("loadwise"))

    def _key(self, request: Any, options: Options) -> Any:
        """Return what a request belongs to, or what is to be awaited to know it."""
        key = options.hash_key
        return self._settings.ask_key(request) if key is None else key

    def _account(self, request: Any) -> RequestAccount | None:
        """Return what a request is charged."""
        if not self._settings.reads_bodies:
            return None
        replayable = isinstance(request.stream, self.library.byte_stream)
        # Not its ``content``: a request that repeats another, as after a redirect, has only the
        # other's stream until it is read.
        body = request.read() if replayable else None
        length = self.library.access.length(request.headers)
        return self._settings.account(request.url.path, body, length)

    def _begin(
        self,
        request: Any,
        options: Options,
        key: HashKey,
        found: Lease[Any] | NoNodeAvailable | None = None,
        began: float | None = None,
        account: RequestAccount | None = None,
    ) -> Any:
        """Return the attempts of a request, or the response to one for which there is no node."""
        settings = self._settings
        replayable = isinstance(request.stream, self.library.byte_stream)
        if account is None:
            account = self._account(request)
        try:
            retries = RetryLoop(
                settings,
                options,
                key,
                account,
                request=request,
                client=self._life,
                replayable=replayable,
                prior=Prior(deadline_of(request), found, challenger_of(request), began),
            )
        except NoNodeAvailable as error:
            if settings.no_node == "raise":
                raise self.library.no_node_error(*error.args, request=request) from None
            return self._refusal(request, refusal_of(error))
        if retries.deadline.ends is not None:
            note_deadline(request, retries.deadline.ends)
        return retries

    def _refusal(self, request: Any, refusal: Refusal) -> Any:
        """Return the response to a request for which there is no node."""
        return self.library.module.Response(
            refusal.status,
            headers=refusal.headers,
            stream=self.library.byte_stream(b"" if request.method == "HEAD" else refusal.body),
            extensions={"loadwise": {"node": None, "attempts": 0}},
        )

    def _outbound(self, request: Any, retries: RetryLoop) -> Any:
        """Return the request as it goes to the node of the present attempt, once prepared."""
        settings, library = self._settings, self.library
        node = retries.lease.node
        asked = request.url
        retries.base_url = settings.base_url(node, retries.node_id)
        target = library.target(retries.base_url, asked.raw_path)
        outbound = twin_of(request)
        outbound.url = target.url
        headers, extensions = outbound.headers, outbound.extensions
        extensions.pop("loadwise", None)
        library.access.readdress(headers, asked.netloc, target.host)
        reads = settings.meter is not None or settings.classify is not None
        if reads and headers.get("accept-encoding") != "identity":
            # What is to be read must be in an encoding that can be undone here.
            headers["accept-encoding"] = "gzip, deflate"
        if self._jars is not None:
            cookies = self._jars.header(retries.node_id, str(target.url), headers.get("cookie"))
            if cookies is not None:
                headers["cookie"] = cookies
        if retries.deadline.ends is not None:
            extensions["timeout"] = TimeLeft(
                extensions.get("timeout", {}), retries.deadline.seconds_left
            )
        return outbound

    def _lift_deadline(self, outbound: Any) -> None:
        """Let the caller read a body for as long as it takes."""
        timeouts = outbound.extensions.get("timeout")
        if isinstance(timeouts, TimeLeft):
            timeouts.lift()

    def _hasten(self, response: Any, outbound: Any, *, reads: bool) -> None:
        """Have who ``reads`` an error's body wait no longer for it than for one at hand."""
        timeouts = outbound.extensions.get("timeout", {})
        if not reads or response.status_code < _ERRORS or isinstance(timeouts, TimeLeft):
            return
        told = timeouts.get("read")
        read = _ERROR_PATIENCE if told is None else min(told, _ERROR_PATIENCE)
        outbound.extensions["timeout"] = {**timeouts, "read": read}

    def _judge(self, result: Any, ruling: object) -> Verdict:
        """Judge a response or an exception by the user's ruling, or else by the default rule."""
        verdict = self._settings.verdict_of(ruling)
        if verdict is not None:
            return verdict
        if isinstance(result, BaseException):
            return judge_error(self.library.module, result, per_node=self._per_node)
        return judge_status(result.status_code, result.headers).cut(self._settings.max_cooldown)

    def _opening(
        self, response: Any, retries: RetryLoop, verdict: Verdict, outbound: Any
    ) -> Opening | None:
        """Return what reads a body until it has begun; ``None`` if it is handed on as it is."""
        opening = getattr(verdict.watch, "opening", None)
        if opening is None or response.is_closed or not retries.replay.may_open(verdict):
            return None
        self._lift_deadline(outbound)
        return Opening(opening(), response.headers.get("content-encoding", ""))

    def _opened(self, opening: Opening, verdict: Verdict) -> Verdict:
        """Return what is said of a response once its body has begun."""
        said = opening.verdict()
        return verdict if said is None else said.cut(self._settings.max_cooldown)

    def _rest(
        self, response: Any, retries: RetryLoop, verdict: Verdict, outbound: Any
    ) -> Rest | None:
        """Return what reads a body ahead; ``None`` if the caller is to read it."""
        length = self.library.access.length(response.headers)
        most = retries.replay.may_read(length, verdict)
        is_small = retries.replay.may_read_ahead(length)
        if not is_small:
            self._lift_deadline(outbound)
        return Rest(retries.deadline, most, is_small=is_small) if most else None

    def _early_reader(
        self, response: Any, retries: RetryLoop, verdict: Verdict
    ) -> DecodingReader | None:
        """Return what reads the usage of a long body as it comes; ``None`` if it is read later."""
        if verdict.watch is not None:
            return None
        return self._reader(
            response, retries, verdict, response.headers.get("content-encoding", "")
        )

    def _reader(
        self, response: Any, retries: RetryLoop, verdict: Verdict, coding: str
    ) -> DecodingReader | None:
        account = retries.account
        if account is None or retries.used is not None or verdict.outcome is not Outcome.SUCCESS:
            return None
        inner = account.reader(response.headers.get("content-type", ""))
        return None if inner is None else DecodingReader(inner, coding)

    def _hold(
        self,
        response: Any,
        retries: RetryLoop,
        verdict: Verdict,
        *,
        decoded: bool = False,
        reader: DecodingReader | None = None,
    ) -> OpenResponse:
        """Keep the lease until the response is done with."""
        watch = None
        coding = "" if decoded else response.headers.get("content-encoding", "")
        if reader is None:
            reader = self._reader(response, retries, verdict, coding)
        if verdict.watch is not None and verdict.outcome is Outcome.SUCCESS:
            watch = DecodedWatch(verdict.watch, coding)
        events = not decoded and self._is_of_events(response)
        return OpenResponse(retries, retries.lease, verdict, reader, events=events, watch=watch)

    def _is_of_events(self, response: Any) -> bool:
        """Tell whether a response is a stream of events, which begins long after its headers."""
        if self.library.access.length(response.headers) is not None:
            return False
        told: str = response.headers.get("content-type", "")
        return told.partition(";")[0].strip().lower() == "text/event-stream"

    def _keep(
        self,
        response: Any,
        retries: RetryLoop,
        verdict: Verdict,
        body: bytes,
        reader: DecodingReader | None,
    ) -> None:
        """End the lease on a response whose every byte has come: the node is done with it.

        A ``reader`` has been shown all of it.
        """
        if retries.account is None and verdict.watch is None:
            retries.end(retries.lease, verdict)
        else:
            unread = self._hold(response, retries, verdict, reader=reader)
            if reader is None:
                unread.read(body)
            unread.complete()
            unread.close()
        response.stream = self.library.byte_stream(body)

    def _finish(self, response: Any, retries: RetryLoop, verdict: Verdict) -> None:
        """End the lease on a response that is closed by now, so that nobody will close it.

        ``classify`` may have read it, or a transport that answers by itself, as a mock does.
        """
        unread = self._hold(response, retries, verdict, decoded=True)
        with suppress(self.library.module.ResponseNotRead):
            unread.read(response.content)
            unread.complete()
        unread.close()

    def _complete(self, response: Any, retries: RetryLoop, request: Any, outbound: Any) -> None:
        """Let a response tell where it is from, and a request with a relative URL where it went."""
        if response.status_code in CHALLENGES:
            note_challenger(request, retries.node_id)
        response.extensions["loadwise"] = {
            "node": retries.node_id,
            "attempts": retries.attempts,
        }
        asked = request.url
        if asked.is_relative_url:
            # Without the node's own path: a client that resolves a redirect against this URL, or
            # answers a challenge, sends to it again, and the path is put before it then.
            origin = outbound.url.copy_with(raw_path=b"/")
            request.url, host = self.library.target(str(origin), asked.raw_path)
            self.library.access.readdress(request.headers, asked.netloc, host)
        if self._jars is not None and "set-cookie" in response.headers:
            values = response.headers.get_list("set-cookie")
            self._jars.take(retries.node_id, str(outbound.url), values)
            del response.headers["set-cookie"]
        self._redirects.map_back(response, request, outbound, retries.base_url)
