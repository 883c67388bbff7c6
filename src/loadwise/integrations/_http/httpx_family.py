"""What the transports for httpx and httpx2 do alike, whether they wait or not.

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

from loadwise.context import HashKey
from loadwise.errors import NoNodeAvailable
from loadwise.integrations._http.body import Decoded, Hold
from loadwise.integrations._http.errors import refusal_of
from loadwise.integrations._http.exchange import Exchange
from loadwise.integrations._http.httpx_headers import access_to
from loadwise.integrations._http.httpx_redirects import Redirects
from loadwise.integrations._http.httpx_twins import twin_of
from loadwise.integrations._http.paths import confined
from loadwise.integrations._http.settings import Options, Settings, as_verdict, options_of
from loadwise.integrations._http.verdict import Verdict, judge_status
from loadwise.outcome import Outcome

__all__ = ["Library", "Transport"]

_SHORTEST_WAIT = 0.001

# Requests, responses, nodes and streams are Any throughout: they are those of either package.


class Target(NamedTuple):
    """Where a request goes: the URL at a node, and the ``Host`` of it."""

    url: Any
    host: bytes


class Library:
    """What is needed of httpx or httpx2."""

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
        self.target: Callable[[str, bytes], Target] = lru_cache(maxsize=4096)(self._target)

    def _target(self, base: str, raw_path: bytes) -> Target:
        """Return where a path (with its query) below a node's base URL is."""
        url = self.module.URL(base)
        own = url.raw_path.partition(b"?")[0].rstrip(b"/")
        path, question, query = raw_path.partition(b"?")
        path = confined(path.decode("ascii")).encode("ascii")
        below = b"/" + path.removeprefix(b"/") + question + query
        url = url.copy_with(raw_path=own + below)
        return Target(url, url.netloc)

    def judge_error(self, error: BaseException) -> Verdict:
        """Judge an attempt that brought no response."""
        module = self.module
        if isinstance(error, module.ConnectError | module.ConnectTimeout):
            return Verdict(Outcome.FAILURE, retry=True, never_sent=True)
        if isinstance(error, module.PoolTimeout):
            # The client's own connections are all busy, which says nothing about the node.
            return Verdict(Outcome.CANCELLED, retry=True, never_sent=True)
        if isinstance(error, module.LocalProtocolError | module.UnsupportedProtocol):
            return Verdict(Outcome.CANCELLED)
        if isinstance(error, module.TransportError | OSError):
            return Verdict(Outcome.FAILURE, retry=isinstance(error, module.TransportError))
        # What the caller's own body has raised, for one.
        return Verdict(Outcome.CANCELLED)


class _Life:
    """What a transport's requests have in common up to its closing; it may be used after that."""

    __slots__ = ("closed",)

    def __init__(self) -> None:
        self.closed = False


class Transport:
    """What the sync and the async transport have in common."""

    library: Library

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._life = _Life()
        self._redirects = Redirects(self.library.module, self.library.access, settings.mapper())
        self._jars = settings.jars()

    def _end_life(self) -> None:
        """Tell the requests under way that they end by the client's own doing."""
        self._life.closed = True
        self._life = _Life()

    def _require(self, inner: Any, base: type[Any], example: str) -> None:
        if inner is not None and not isinstance(inner, base):
            package = self.library.module.__name__
            raise TypeError(
                f"transport is {inner!r}; it must be a {package}.{base.__name__}, such as "
                f"{package}.{example}()"
            )

    def _options(self, request: Any) -> Options:
        """Return what a request says for itself."""
        return options_of(request.extensions.get("loadwise"))

    def _key(self, request: Any, options: Options) -> Any:
        """Return what a request belongs to, or what is to be awaited to know it."""
        key = options.hash_key
        return self._settings.ask_key(request) if key is None else key

    def _begin(self, request: Any, options: Options, key: HashKey) -> Any:
        """Return the exchange of a request, or the response to one for which there is no node."""
        settings = self._settings
        replayable = isinstance(request.stream, self.library.byte_stream)
        cost = options.cost
        if cost is None and settings.meter is not None and replayable:
            # Not its ``content``: a request that repeats another, as after a redirect, has only the
            # other's stream until it is read.
            cost = settings.estimate(request.read())
        try:
            return Exchange(
                settings,
                options,
                key,
                cost,
                request=request,
                client=self._life,
                replayable=replayable,
            )
        except NoNodeAvailable as error:
            if settings.no_node == "raise":
                raise self.library.no_node_error(*error.args, request=request) from None
            refusal = refusal_of(error)
        return self.library.module.Response(
            refusal.status,
            headers=refusal.headers,
            stream=self.library.byte_stream(b"" if request.method == "HEAD" else refusal.body),
            extensions={"loadwise": {"node": None, "attempts": 0}},
        )

    def _outbound(self, request: Any, exchange: Exchange) -> Any:
        """Return the request as it goes to the node of the present attempt, once prepared."""
        settings, library = self._settings, self.library
        node = exchange.lease.node
        asked = request.url
        exchange.base_url = settings.base_url(node, exchange.node_id)
        target = library.target(exchange.base_url, asked.raw_path)
        outbound = twin_of(request)
        outbound.url = target.url
        headers, extensions = outbound.headers, outbound.extensions
        extensions.pop("loadwise", None)
        library.access.readdress(headers, asked.netloc, target.host)
        if settings.meter is not None and headers.get("accept-encoding") != "identity":
            # What the meter is to read must be in an encoding that can be undone here.
            headers["accept-encoding"] = "gzip, deflate"
        if self._jars is not None:
            cookies = self._jars.header(exchange.node_id, str(target.url), headers.get("cookie"))
            if cookies is not None:
                headers["cookie"] = cookies
        left = exchange.time_left()
        if left is not None:
            # Whatever came before may have used it up by now, and sockets refuse less than nothing.
            left = max(left, _SHORTEST_WAIT)
            timeout = extensions.get("timeout", {})
            extensions["timeout"] = {
                phase: left if timeout.get(phase) is None else min(left, timeout[phase])
                for phase in ("connect", "read", "write", "pool")
            }
        return outbound

    def _judge(self, result: Any, ruling: object) -> Verdict:
        """Judge a response or an exception by the user's ruling, or else by the default rule."""
        verdict = as_verdict(ruling)
        if verdict is not None:
            return verdict
        if isinstance(result, BaseException):
            return self.library.judge_error(result)
        return judge_status(result.status_code, result.headers, self._settings.max_pause)

    def _hold(
        self, response: Any, exchange: Exchange, verdict: Verdict, *, decoded: bool = False
    ) -> Hold:
        """Keep the lease until the response is done with."""
        reader = None
        if self._settings.meter is not None and verdict.outcome is Outcome.SUCCESS:
            inner = self._settings.reader(response.headers.get("content-type", ""))
            if inner is not None:
                coding = "" if decoded else response.headers.get("content-encoding", "")
                reader = Decoded(inner, coding)
        return Hold(exchange, exchange.lease, verdict, reader)

    def _keep(self, response: Any, exchange: Exchange, verdict: Verdict, body: bytes) -> None:
        """End the lease on a response of which every byte has come: the node is done with it."""
        if self._settings.meter is None:
            exchange.end(exchange.lease, verdict)
        else:
            hold = self._hold(response, exchange, verdict)
            hold.read(body)
            hold.close()
        response.stream = self.library.byte_stream(body)

    def _finish(self, response: Any, exchange: Exchange, verdict: Verdict) -> None:
        """End the lease on a response that is closed by now, so that nobody will close it.

        ``classify`` may have read it, or a transport that answers by itself, as a mock does.
        """
        hold = self._hold(response, exchange, verdict, decoded=True)
        with suppress(self.library.module.ResponseNotRead):
            hold.read(response.content)
        hold.close()

    def _complete(self, response: Any, exchange: Exchange, request: Any, outbound: Any) -> None:
        """Let a response tell where it is from, and a request with a relative URL where it went."""
        response.extensions["loadwise"] = {
            "node": exchange.node_id,
            "attempts": exchange.attempts,
        }
        asked = request.url
        if asked.is_relative_url:
            # Without the node's own path: a client that resolves a redirect against this URL, or
            # answers a challenge, sends to it anew, and the path is put before it then.
            origin = outbound.url.copy_with(raw_path=b"/")
            request.url, host = self.library.target(str(origin), asked.raw_path)
            self.library.access.readdress(request.headers, asked.netloc, host)
        if self._jars is not None and "set-cookie" in response.headers:
            values = response.headers.get_list("set-cookie")
            self._jars.take(exchange.node_id, str(outbound.url), values)
            del response.headers["set-cookie"]
        self._redirects.map_back(response, request, outbound, exchange.base_url)
