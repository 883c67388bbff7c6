"""loadwise for requests: an adapter that sends each request to a node of a balancer.

session = requests.Session()
session.mount("http://service/", LoadwiseAdapter(Balancer(["10.0.0.1:8080", ...])))
session.get("http://service/users/42")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from loadwise.balancer.per_node import PerNode
from loadwise.errors import LoadwiseError, NoNodeAvailable
from loadwise.integrations._http.block_options import OPTIONS, request_options
from loadwise.integrations._http.client_life import ClientLife
from loadwise.integrations._http.deadline import Deadline
from loadwise.integrations._http.failover import Prior
from loadwise.integrations._http.hash_keys import by_cookie, by_header
from loadwise.integrations._http.mapping import Foreign
from loadwise.integrations._http.no_node_response import refusal_of
from loadwise.integrations._http.reading_limits import CHALLENGES
from loadwise.integrations._http.retrying import RetryLoop
from loadwise.integrations._http.settings import Settings, TransportOptions
from loadwise.integrations._http.verdict import Verdict, judge_status

if TYPE_CHECKING:
    from typing import Unpack

    from loadwise.balancer import Balancer, Lease

try:
    from requests import PreparedRequest, Response
    from requests.adapters import BaseAdapter
    from requests.exceptions import ConnectionError as RequestsConnectionError
    from requests.exceptions import RequestException
except ImportError as error:
    raise ImportError(
        "loadwise.integrations.requests needs requests: pip install 'loadwise[requests]'"
    ) from error

from loadwise.integrations._http.requests_answers import account_of, answer_to
from loadwise.integrations._http.requests_attempts import (
    MOST_REPETITIONS,
    RequestsAttempt,
    RequestsCall,
)
from loadwise.integrations._http.requests_bodies import end_read, hold_until_read, is_of_events
from loadwise.integrations._http.requests_connections import NodeAdapter
from loadwise.integrations._http.requests_redirects import (
    RequestNote,
    RequestsRedirects,
    attribute,
    names_places,
    note_of,
    noted,
    replace_headers,
    take_cookies,
)
from loadwise.integrations._http.requests_urls import outbound_of

__all__ = [
    "LoadwiseAdapter",
    "NoNodeError",
    "Verdict",
    "by_cookie",
    "by_header",
    "request_options",
    "route_of",
]

_KEPT = 20
# The attribute of responses that tells where they are from. It is not pickled with them.
_ROUTE = "_loadwise_route"


def route_of(response: Response) -> Mapping[str, Any]:
    """Return the id of the ``node`` that gave a response, and the number of ``attempts``.

    Raises:
        LookupError: It has not come through a `LoadwiseAdapter`.
    """
    node, attempts = vars(response).get(_ROUTE, (None, None))
    if attempts is None:
        raise LookupError(f"{response!r} has not come through a LoadwiseAdapter")
    return {"node": node, "attempts": attempts}


class NoNodeError(NoNodeAvailable, RequestsConnectionError):
    """No node could be given to a request, and why: an error of requests' own family.

    Attributes:
        request: The request, as in all errors of requests; ``None`` if there was none.

    It can be pickled, with its request.
    """

    def __init__(
        self,
        balancer: str,
        total: int,
        reasons: Mapping[str, int],
        retry_after: float | None = None,
        filters: Iterable[str] = (),
        *,
        request: PreparedRequest | None = None,
    ) -> None:
        RequestsConnectionError.__init__(self, request=request)
        NoNodeAvailable.__init__(self, balancer, total, reasons, retry_after, filters)

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        request: Any = self.request
        return (partial(type(self), request=request), self.args)


class LoadwiseAdapter(BaseAdapter):
    """Sends each request of a ``requests.Session`` to a node that a balancer chooses.

    Mount it under a name for the service, with a slash at its end. The request's scheme, host and
    port give way to the node's; path (below the node's own path, if it has one), query, headers and
    body stay. Each node has connections of its own. Redirects and cookies are mapped back to what
    was asked for; a redirect that leaves the fleet is followed as any session does.

    A body that is not streamed is read before the session gets the response, however long it is,
    and the request is over with its last byte. With ``stream=True`` it is in flight until the body
    has been read or the response is closed. Latency is the time to the headers. A connection that
    has ended between two requests is replaced, and counts against nobody. Refused, reset and timed
    out connections, bodies that break off and 502, 503 and 504 are failures of the node; all else
    is a success. 429, and 503 with a Retry-After, put it on cooldown for that long,
    ``max_cooldown`` at most.

    A failed request is tried on another node: always when the connection was never made; else
    only if the method is idempotent, or the request has an ``Idempotency-Key`` header or
    ``request_options(retry=True)``, and its body can be sent again (bytes, text, JSON and forms
    can). When attempts, deadline, nodes or the retry budget are used up, the last error or response
    is what you get. `route_of` tells the node and the number of attempts.

    Args:
        balancer: Who chooses.
        options: See `TransportOptions`; their requests are `requests.PreparedRequest`.

    Raises:
        TypeError: An argument is of the wrong kind or not known.
        ValueError: A node's address cannot be told, or a number is out of range.

    When no node is available, `NoNodeError` is raised. The session's ``timeout``, ``verify``,
    ``cert`` and ``proxies`` hold for each attempt; a deadline holds for all of them together, with
    the body where that is not streamed. The adapter does not pickle, for its balancer belongs to
    its process.

    Thread-safety: full; one for all threads and sessions.
    """

    def __init__(
        self,
        balancer: Balancer[Any],  # of whatever nodes
        **options: Unpack[TransportOptions],
    ) -> None:
        super().__init__()
        self._settings = Settings.of(balancer, options)
        self._redirects = RequestsRedirects(self._settings.mapper())
        self._jars = self._settings.jars()
        self._life = ClientLife()
        self._adapters = _adapters()
        self._elsewhere = NodeAdapter()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "a LoadwiseAdapter does not pickle, for its balancer belongs to this process: mount "
            "one on the session that comes out, in the process where it is used"
        )

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002 - as requests calls it
        timeout: float | tuple[float | None, float | None] | None = None,
        verify: bool | str = True,  # noqa: FBT001, FBT002 - as requests calls it
        cert: str | tuple[str, str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request to a node, and to others if need be."""
        call = RequestsCall(request, stream, timeout, verify, cert, proxies)
        try:
            return self._send(call)
        except RequestException as error:
            # Not the one that went to the node, which may have its credentials.
            error.request = request
            raise

    def close(self) -> None:
        """Close the connections; like any adapter it may be used after that."""
        self._life = self._life.end()
        adapters, self._adapters = self._adapters, _adapters()
        adapters.close()
        self._elsewhere.close()

    def _send(self, call: RequestsCall) -> Response:
        note = note_of(call.request)
        foreign = None if note is None else self._redirects.foreign_of(call.request, note)
        if foreign is not None:
            return self._send_outside(call, foreign)
        retries = self._begin(call.request, note)
        if not isinstance(retries, RetryLoop):
            return retries
        try:
            return self._serve(call, retries)
        except BaseException:
            # Nothing to do where the attempt has been reported; else the fault is not the node's.
            retries.give_up()
            raise

    def _serve(self, call: RequestsCall, retries: RetryLoop) -> Response:
        """Make attempts until there is a response to hand on."""
        settings = self._settings
        while True:
            try:
                adapter = self._adapter_of(retries.lease)
                outbound = self._outbound(call.request, retries)
                settings.ask_prepare(outbound, retries.lease.node)
            except Exception as error:
                if retries.set_up_failed(error):
                    continue
                raise
            retries.sent = True
            attempt = RequestsAttempt(adapter, call, outbound, retries.deadline)
            try:
                response = self._attempt(attempt, retries)
            except BaseException as error:
                verdict = self._judge(error, attempt)
                if retries.failed(error, verdict) or retries.wait(verdict):
                    continue
                raise
            try:
                if not self._receive(response, attempt, retries, stream=call.stream):
                    continue
                self._complete(response, call.request, attempt, retries)
            except BaseException:
                response.close()
                raise
            return response

    def _attempt(self, attempt: RequestsAttempt, retries: RetryLoop) -> Response:
        """Send a request; again by other connections where a kept one had ended.

        Source: RFC 9112, section 9.3.1.
        """
        for _ in range(MOST_REPETITIONS):
            try:
                return attempt.send()
            except Exception as error:
                unsent = not attempt.exchange.sent
                if not attempt.is_stale(error) or not retries.may_reconnect(error, unsent=unsent):
                    raise
        return attempt.send()

    def _receive(
        self, response: Response, attempt: RequestsAttempt, retries: RetryLoop, *, stream: bool
    ) -> bool:
        """Judge a response, and make it ready to hand on.

        Returns:
            ``False`` if the next attempt has begun instead, and nobody will see it.
        """
        verdict = self._judge(response, attempt)
        if retries.answered(
            verdict, response.status_code, response.headers, events=is_of_events(response)
        ):
            attempt.drop(response)
            return False
        if stream and response.raw.length_remaining != 0 and not response.raw.closed:
            attempt.exchange.hold_to(None)
            hold_until_read(response, retries, verdict)
        else:
            try:
                content = response.content
            except Exception as error:
                if retries.failed(error, self._judge(error, attempt)):
                    response.close()
                    return False
                raise
            end_read(response, retries, verdict, content)
        if retries.wait(verdict):
            response.close()
            return False
        return True

    def _send_outside(self, call: RequestsCall, foreign: Foreign) -> Response:
        """Send a request out of the fleet, which is no node's and nobody's to choose."""
        note = note_of(call.request)
        ends = None if note is None else note.deadline_of(call.request)
        deadline = Deadline(self._settings.balancer.clock, ends)
        attempt = RequestsAttempt(self._elsewhere, call, call.request, deadline)
        response = attempt.send()
        if call.stream:
            attempt.exchange.hold_to(None)
        else:
            response.content  # noqa: B018 - it is read by its deadline
        if names_places(response):
            self._redirects.map_back(response, call.request, call.request, None, foreign.asked)
            take_cookies(response, call.request)
        attribute(response, call.request, self)
        vars(response)[_ROUTE] = None, 1
        return response

    def _begin(self, request: PreparedRequest, note: RequestNote | None) -> RetryLoop | Response:
        """Return the attempts of a request, or the response to one for which there is no node."""
        settings, options = self._settings, OPTIONS.get()
        key = settings.ask_key(request) if options.hash_key is None else options.hash_key
        prior, ends = None, None
        if note is not None:
            ends = note.deadline_of(request)
            challenger, note.challenger = note.challenger, None
            prior = Prior(ends, None, challenger)
        try:
            retries = RetryLoop(
                settings,
                options,
                key,
                account_of(request, settings),
                request=request,
                client=self._life,
                replayable=isinstance(request.body, bytes | str | None),
                prior=prior,
            )
        except NoNodeAvailable as error:
            if settings.no_node == "raise":
                raise NoNodeError(*error.args, request=request) from None
            response = answer_to(request, refusal_of(error), self._elsewhere)
            attribute(response, request, self)
            vars(response)[_ROUTE] = None, 0
            return response
        if ends is None and (note is not None or retries.deadline.ends is not None):
            noted(request).begin(request, retries.deadline.ends)
        return retries

    def _adapter_of(self, lease: Lease[Any]) -> NodeAdapter:
        """Return who sends to the node of a lease."""
        while True:
            adapters = self._adapters
            try:
                return adapters(lease)
            except LoadwiseError:
                if adapters is self._adapters:
                    raise  # else they were closed in between

    def _outbound(self, request: PreparedRequest, retries: RetryLoop) -> PreparedRequest:
        """Return the request as it goes to the node of the present attempt, once prepared."""
        settings = self._settings
        retries.base_url = settings.base_url(retries.lease.node, retries.node_id)
        changes = self._jars is not None or settings.prepare is not None
        outbound = outbound_of(request, retries.base_url, changes=changes)
        if self._jars is not None:
            sent: Any = outbound.headers.get("Cookie")
            cookies = self._jars.header(retries.node_id, str(outbound.url), sent)
            if cookies is not None:
                outbound.headers["Cookie"] = cookies
        return outbound

    def _complete(
        self,
        response: Response,
        request: PreparedRequest,
        attempt: RequestsAttempt,
        retries: RetryLoop,
    ) -> None:
        """Let a response tell where it is from, in terms of what was asked for."""
        if response.status_code in CHALLENGES:
            noted(request).challenger = retries.node_id
        if names_places(response):
            headers = response.raw.headers
            if self._jars is not None and "Set-Cookie" in headers:
                url = str(attempt.outbound.url)
                self._jars.take(retries.node_id, url, headers.getlist("Set-Cookie"))
                rows = headers.iteritems()
                replace_headers(response, [row for row in rows if row[0].lower() != "set-cookie"])
            self._redirects.map_back(response, request, attempt.outbound, retries.base_url)
            take_cookies(response, request)
        attribute(response, request, self)
        vars(response)[_ROUTE] = retries.node_id, retries.attempts

    def _judge(self, result: Response | BaseException, attempt: RequestsAttempt) -> Verdict:
        """Judge a response or an exception by the user's ruling, or else by the default rule."""
        verdict = self._settings.verdict_of(self._settings.ask_ruling(result))
        if verdict is not None:
            return verdict
        if isinstance(result, BaseException):
            return attempt.judge(result)
        return judge_status(result.status_code, result.headers).cut(self._settings.max_cooldown)


def _adapters() -> PerNode[Any, NodeAdapter]:
    return PerNode(_adapter_for, close=NodeAdapter.close)


def _adapter_for(_node: object) -> NodeAdapter:
    return NodeAdapter(pool_maxsize=_KEPT)
