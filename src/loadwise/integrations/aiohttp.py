"""loadwise for aiohttp: a client middleware that sends each request to a node of a balancer.

session = aiohttp.ClientSession(middlewares=[LoadwiseMiddleware(Balancer(["10.0.0.1:8080", ...]))])
await session.get("http://service/users/42")
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from loadwise.errors import NoNodeAvailable
from loadwise.integrations._http.failover import Prior
from loadwise.integrations._http.hash_keys import by_cookie, by_header
from loadwise.integrations._http.metering import RequestAccount
from loadwise.integrations._http.no_node_response import refusal_of
from loadwise.integrations._http.node_search import waited
from loadwise.integrations._http.reading_limits import CHALLENGES
from loadwise.integrations._http.retrying import RetryLoop
from loadwise.integrations._http.settings import (
    AsyncTransportOptions,
    Options,
    Settings,
    awaited,
)
from loadwise.integrations._http.verdict import Verdict, judge_status
from loadwise.outcome import Outcome

if TYPE_CHECKING:
    from typing import Unpack

    from loadwise.balancer import Balancer
    from loadwise.context import HashKey

try:
    import aiohttp
    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, RequestInfo
    from aiohttp.hdrs import CONTENT_LENGTH, COOKIE, HOST, SET_COOKIE
    from multidict import CIMultiDict, CIMultiDictProxy
except ImportError as error:
    raise ImportError(
        "loadwise.integrations.aiohttp needs aiohttp >= 3.12.4: pip install 'loadwise[aiohttp]'"
    ) from error

from loadwise.integrations._http.aiohttp_answers import answer
from loadwise.integrations._http.aiohttp_connections import Passage
from loadwise.integrations._http.aiohttp_headers import replace_headers
from loadwise.integrations._http.aiohttp_leases import hold_until_read, is_of_events
from loadwise.integrations._http.aiohttp_redirects import AiohttpRedirects, RedirectNote
from loadwise.integrations._http.aiohttp_session import (
    deadline_of,
    drop,
    judge_error,
    note_deadline,
    raise_if_spent,
    remember_spent,
    send,
    stop_sending,
    wait_for_body,
)
from loadwise.integrations._http.aiohttp_twins import twin_of
from loadwise.integrations._http.aiohttp_urls import join
from loadwise.integrations._http.block_options import OPTIONS, request_options

__all__ = [
    "LoadwiseMiddleware",
    "NoNodeError",
    "Verdict",
    "by_cookie",
    "by_header",
    "request_options",
    "route_of",
]

_CHALLENGERS: weakref.WeakKeyDictionary[ClientRequest, Hashable] = weakref.WeakKeyDictionary()
_ROUTES: weakref.WeakKeyDictionary[ClientResponse, Mapping[str, Any]] = weakref.WeakKeyDictionary()


def route_of(response: ClientResponse) -> Mapping[str, Any]:
    """Return the id of the ``node`` that gave a response, and the number of ``attempts``.

    Raises:
        LookupError: It has not come through a `LoadwiseMiddleware`.
    """
    try:
        return _ROUTES[response]
    except KeyError:
        raise LookupError(f"{response!r} has not come through a LoadwiseMiddleware") from None


class NoNodeError(NoNodeAvailable, aiohttp.ClientError):
    """No node could be given to a request, and why: an error of aiohttp's own family.

    Attributes:
        request: The request, as aiohttp tells of one in its errors; ``None`` if there was none.

    It can be pickled, with what it tells of the request.
    """

    def __init__(
        self,
        balancer: str,
        total: int,
        reasons: Mapping[str, int],
        retry_after: float | None = None,
        filters: Iterable[str] = (),
        *,
        request: RequestInfo | None = None,
    ) -> None:
        NoNodeAvailable.__init__(self, balancer, total, reasons, retry_after, filters)
        self.request = request

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        request = self.request
        if request is None:
            return (type(self), self.args)
        # A proxy of headers does not pickle.
        parts = (request.url, request.method, tuple(request.headers.items()), request.real_url)
        return (_rebuilt, (type(self), self.args, parts))


def _rebuilt(kind: type[NoNodeError], args: tuple[Any, ...], parts: tuple[Any, ...]) -> NoNodeError:
    url, method, headers, real_url = parts
    proxy = CIMultiDictProxy(CIMultiDict(headers))
    return kind(*args, request=RequestInfo(url, method, proxy, real_url))


class LoadwiseMiddleware:
    """Sends each request of an ``aiohttp.ClientSession`` to a node that a balancer chooses.

    The request's scheme, host and port give way to the node's; path (below the node's own path,
    if it has one), query, headers and body stay. Connections are pooled by the session. The
    response's ``url`` is the one asked for; ``response.request_info.url`` is the node's. Redirects
    and cookies are mapped back to what was asked for; a redirect that leaves the fleet is followed
    as any session does.

    A request is in flight until its response is closed or released, which aiohttp does by itself
    when the last byte has come; its latency is the time to the headers. A websocket is in flight
    until it is closed. A response that is dropped open is kept by its connection, and in flight as
    long as that lasts; should it be lost, a ``ResourceWarning`` tells.

    Refused, reset and timed out connections and 502, 503 and 504 are failures of the node; all else
    is a success. 429, and 503 with a Retry-After, put it on cooldown for that long,
    ``max_cooldown`` at most.

    A failed request is tried on another node: always when the connection was never made; else
    only if the method is idempotent, or the request has an ``Idempotency-Key`` header or
    ``request_options(retry=True)``, and its body can be sent again (bytes, text, JSON and
    urlencoded forms can). When attempts, deadline, nodes or the retry budget are used up, the last
    error or response is what you get. `route_of` tells the node and the number of attempts.

    Where a request may be repeated, a body of a ``Content-Length`` up to 64 KiB is waited for
    before the response is handed on. A connection that has ended between two requests is replaced,
    and counts against nobody.

    aiohttp itself repeats an idempotent request once after a lost connection; it does not do so
    after this middleware has given up. The session's ``total`` timeout is for all attempts.

    Args:
        balancer: Who chooses.
        options: See `TransportOptions`; ``prepare``, ``classify`` and ``hash_key`` may be coroutine
            functions. A ``meter`` reads what you read, so an answer that is not
            read to its end is not settled.

    Raises:
        TypeError: An argument is of the wrong kind or not known.
        ValueError: A node's address cannot be told, or a number is out of range.

    When no node is available, `NoNodeError` is raised. Put it last among middlewares that
    change the request, such as those for authentication by the URL asked for.

    Thread-safety: one for all sessions of all event loops.
    """

    def __init__(
        self,
        balancer: Balancer[Any],  # of whatever nodes
        **options: Unpack[AsyncTransportOptions],
    ) -> None:
        self._settings = Settings.of(balancer, options, awaits=True)
        self._redirects = AiohttpRedirects(self._settings.mapper())
        self._jars = self._settings.jars()

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send a request to a node, and to others if need be."""
        raise_if_spent(request)
        note = self._redirects.note_of(request)
        if note is not None:
            return await self._send_outside(request, handler, note)
        retries = await self._begin(request)
        if not isinstance(retries, RetryLoop):
            return retries
        try:
            return await self._serve(request, handler, retries)
        except BaseException:
            # Nothing to do where the attempt has been reported; else the fault is not the node's.
            retries.give_up()
            raise

    async def _serve(
        self, request: ClientRequest, handler: ClientHandlerType, retries: RetryLoop
    ) -> ClientResponse:
        """Make attempts until there is a response to hand on."""
        passage = Passage(request)
        while True:
            # Before it is prepared: that is not the node's time.
            deadline = retries.deadline
            left = None if deadline.ends is None else deadline.seconds_left()
            try:
                outbound = self._outbound(request, retries)
                await awaited(self._settings.ask_prepare(outbound, retries.lease.node))
            except Exception as error:
                if retries.set_up_failed(error):
                    continue
                raise
            retries.sent = True
            passage.watch(outbound)
            try:
                response = await send(outbound, handler, left)
            except BaseException as error:
                if (
                    passage.is_stale(error)
                    and retries.may_reconnect(error, unsent=passage.unsent)
                    and passage.may_repeat()
                ):
                    # It was no attempt: the same node is asked by another connection.
                    await stop_sending(outbound)
                    continue
                verdict = await self._judge(error, outbound, passage)
                if retries.failed(error, verdict) or await retries.wait_async(verdict):
                    await stop_sending(outbound)
                    continue
                remember_spent(request, error)
                raise
            try:
                if not await self._take(response, request, outbound, retries, passage):
                    await stop_sending(outbound)
                    continue
                self._take_cookies(response, retries, outbound)
                self._redirects.map_back(response, request, outbound, retries.base_url)
            except BaseException:
                response.close()
                raise
            return response

    async def _take(
        self,
        response: ClientResponse,
        request: ClientRequest,
        outbound: ClientRequest,
        retries: RetryLoop,
        passage: Passage,
    ) -> bool:
        """Make a response ready to hand on; ``False`` if the next attempt has begun instead."""
        passage.has_arrived()
        verdict = await self._judge(response, outbound, passage)
        if retries.answered(
            verdict, response.status, response.headers, events=is_of_events(response)
        ):
            await drop(response)
            return False
        if retries.replay.may_read_ahead(response.content_length):
            try:
                await wait_for_body(response, outbound, retries.deadline)
            except Exception as error:
                if retries.failed(error, await self._judge(error, outbound, passage)):
                    response.close()
                    return False
                raise
        if await retries.wait_async(verdict):
            await drop(response)
            return False
        if response.status in CHALLENGES:
            _CHALLENGERS[request] = retries.node_id
        coding = ""
        if not request.session.auto_decompress:
            coding = response.headers.get("Content-Encoding", "")
        _ROUTES[response] = {"node": retries.node_id, "attempts": retries.attempts}
        hold_until_read(response, retries, verdict, coding)
        return True

    async def _send_outside(
        self, request: ClientRequest, handler: ClientHandlerType, note: RedirectNote
    ) -> ClientResponse:
        """Send a request out of the fleet, which is no node's and nobody's to choose."""
        outbound = self._redirects.outbound(request, note)
        ends = deadline_of(request)
        left = None if ends is None else ends - self._settings.balancer.clock()
        response = await send(outbound, handler, left)
        _ROUTES[response] = {"node": None, "attempts": 1}
        self._redirects.map_back(response, request, outbound, None, note)
        return response

    async def _begin(self, request: ClientRequest) -> RetryLoop | ClientResponse:
        """Return the attempts of a request, or the response to one for which there is no node."""
        settings = self._settings
        options = OPTIONS.get()
        body = request.body
        # Text, JSON and urlencoded forms are bytes by now.
        replayable = not body or isinstance(body, aiohttp.BytesPayload)
        key = options.hash_key
        if key is None:
            key = await awaited(settings.ask_key(request))
        account = None
        if settings.reads_bodies:
            told = None
            if replayable:
                told = bytes(await body.as_bytes()) if body else b""
            length = request.headers.get(CONTENT_LENGTH, "")
            account = settings.account(
                request.url.raw_path, told, int(length) if length.isdecimal() else None
            )
        try:
            retries = RetryLoop(
                settings,
                options,
                key,
                account,
                request=request,
                client=request.session,
                replayable=replayable,
                prior=await self._prior(request, options, key, account),
            )
        except NoNodeAvailable as error:
            if settings.no_node == "raise":
                raise NoNodeError(*error.args, request=request.request_info) from None
            response = await answer(request, refusal_of(error))
            _ROUTES[response] = {"node": None, "attempts": 0}
            return response
        if retries.deadline.ends is not None:
            note_deadline(request, retries.deadline.ends)
        return retries

    async def _prior(
        self, request: ClientRequest, options: Options, key: HashKey, account: RequestAccount | None
    ) -> Prior:
        """Return what has been before a request; wait for a node, where it says so."""
        ends, challenger = deadline_of(request), None
        if _CHALLENGERS:
            challenger = _CHALLENGERS.pop(request, None)
        found, began = await waited(self._settings, options, key, account)
        return Prior(ends, found, challenger, began)

    def _outbound(self, request: ClientRequest, retries: RetryLoop) -> ClientRequest:
        """Return the request as it goes to the node of the present attempt, once prepared."""
        settings = self._settings
        node = retries.lease.node
        asked = request.url
        retries.base_url = settings.base_url(node, retries.node_id)
        target = join(retries.base_url, asked.raw_path_qs)
        outbound = twin_of(request)
        outbound.url = target
        if outbound.headers.get(HOST) == asked.host_port_subcomponent:
            outbound.headers[HOST] = target.host_port_subcomponent or ""
        if self._jars is not None:
            sent = outbound.headers.get(COOKIE)
            cookies = self._jars.header(retries.node_id, str(target), sent)
            if cookies is not None:
                outbound.headers[COOKIE] = cookies
        return outbound

    def _take_cookies(
        self, response: ClientResponse, retries: RetryLoop, outbound: ClientRequest
    ) -> None:
        """Keep what a node sets from the session, if it is to be sent to that node alone."""
        if self._jars is None or SET_COOKIE not in response.headers:
            return
        values = response.headers.getall(SET_COOKIE)
        self._jars.take(retries.node_id, str(outbound.url), values)
        rest = CIMultiDict(response.headers)
        del rest[SET_COOKIE]
        replace_headers(response, rest.items())

    async def _judge(
        self,
        result: ClientResponse | BaseException,
        outbound: ClientRequest,
        passage: Passage,
    ) -> Verdict:
        """Judge a response or an exception by the user's rule, or else by the default one."""
        ruling = self._settings.verdict_of(await awaited(self._settings.ask_ruling(result)))
        if ruling is not None:
            return ruling
        if isinstance(result, BaseException):
            if passage.is_stale(result):
                return Verdict(Outcome.CANCELLED, retry=True, never_sent=passage.unsent)
            return judge_error(result, outbound, passage)
        return judge_status(result.status, result.headers).cut(self._settings.max_cooldown)
