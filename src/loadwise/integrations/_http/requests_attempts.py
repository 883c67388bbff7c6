"""Attempts of a request in requests: sent to one node, judged, and dropped."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple, cast
from urllib.request import getproxies

from requests import PreparedRequest, Response
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import InvalidURL, ProxyError, RequestException, SSLError
from requests.utils import select_proxy, should_bypass_proxies
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout

from loadwise.integrations._http.deadline import Deadline
from loadwise.integrations._http.httpx_verdicts import causes_of, is_local
from loadwise.integrations._http.requests_connections import Exchange, NodeAdapter
from loadwise.integrations._http.verdict import Verdict
from loadwise.outcome import Outcome

__all__ = ["MOST_REPETITIONS", "RequestsAttempt", "RequestsCall"]

# Each finds out about one dead connection, and there may be several.
MOST_REPETITIONS = 3
_SPARE_TIME = 0.1
_SPARE_BYTES = 65_536
_PIECE = 16_384
_PAIR = 2

_NOBODYS = Verdict(Outcome.CANCELLED)
_NOT_REACHED = Verdict(Outcome.FAILURE, retry=True, never_sent=True)
_NOT_TRIED = Verdict(Outcome.CANCELLED, retry=True, never_sent=True)
_LOST = Verdict(Outcome.FAILURE, retry=True)
_NOT_BEGUN = Exchange(None)


class RequestsCall(NamedTuple):
    """Call of an adapter: a request, and how its session wants it to be sent."""

    request: PreparedRequest
    stream: bool
    timeout: Any
    verify: Any
    cert: Any
    proxies: Mapping[str, str] | None

    def proxies_to(self, url: str) -> dict[str, str]:
        """Return the proxies on the way to a URL.

        A session asks its environment for those of the service; which nodes are exempt from them,
        it cannot know.
        """
        if not self.proxies:
            return {}
        proxies = dict(self.proxies)
        exempt = proxies.get("no_proxy") or proxies.get("no")
        if exempt and should_bypass_proxies(url, exempt):
            environment = getproxies()
            return {key: proxy for key, proxy in proxies.items() if proxy != environment.get(key)}
        return proxies


class RequestsAttempt:
    """One attempt of a request.

    Args:
        adapter: Who sends it.
        call: What is asked.
        outbound: The request as it goes to the node, prepared.
        deadline: When it has to end.

    Attributes:
        outbound: That request.
        exchange: What has become of it.

    Not thread-safe: it belongs to one request.
    """

    __slots__ = ("_adapter", "_call", "_deadline", "_proxies", "exchange", "outbound")

    def __init__(
        self,
        adapter: NodeAdapter,
        call: RequestsCall,
        outbound: PreparedRequest,
        deadline: Deadline,
    ) -> None:
        self._adapter = adapter
        self._call = call
        self._deadline = deadline
        self.outbound = outbound
        self._proxies = call.proxies_to(str(outbound.url))
        self.exchange = _NOT_BEGUN

    def send(self) -> Response:
        """Send the request, by whatever connection there is."""
        deadline, call = self._deadline, self._call
        limited = deadline.ends is not None
        self.exchange = exchange = Exchange(deadline.seconds_left if limited else None)
        return self._adapter.exchange(
            self.outbound,
            exchange,
            stream=call.stream,
            timeout=_capped(call.timeout, exchange) if limited else call.timeout,
            verify=call.verify,
            cert=call.cert,
            proxies=self._proxies,
        )

    def is_stale(self, error: BaseException) -> bool:
        """Tell whether an error is the end of a kept connection, and no more than that."""
        exchange = self.exchange
        return (
            exchange.kept
            and not exchange.received
            and isinstance(error, RequestsConnectionError)
            and not any(isinstance(cause, TimeoutError) for cause in causes_of(error))
        )

    def judge(self, error: BaseException) -> Verdict:
        """Judge an error that was raised instead of a response, or of its body."""
        exchange = self.exchange
        if not isinstance(error, RequestException | HTTPError):
            # What the caller's own body has raised, or wants of the caller's certificates.
            is_of_the_network = isinstance(error, OSError) and exchange.connected
            return Verdict(Outcome.FAILURE) if is_of_the_network else _NOBODYS
        if self.is_stale(error):
            return Verdict(Outcome.CANCELLED, retry=True, never_sent=not exchange.sent)
        if exchange.connected:
            return _LOST
        if isinstance(error, InvalidURL) or not isinstance(error, RequestsConnectionError):
            return _NOBODYS
        is_of_the_node = isinstance(error, SSLError) and not isinstance(error, ProxyError)
        url = str(self.outbound.url)
        proxy = select_proxy(url, self._proxies)
        if proxy is not None and not is_of_the_node:
            # Where a node has a proxy of its own, another node may be reached.
            shared = self._proxies.get(url.partition(":")[0]), self._proxies.get("all")
            return Verdict(Outcome.CANCELLED, retry=proxy not in shared, never_sent=True)
        return _NOT_TRIED if is_local(error) else _NOT_REACHED

    def drop(self, response: Response) -> None:
        """Close a response that nobody will see; with its connection only if much is left."""
        until, left = monotonic() + _SPARE_TIME, _SPARE_BYTES
        self.exchange.hold_to(lambda: until - monotonic())
        with suppress(HTTPError, OSError):
            for piece in response.raw.stream(_PIECE, decode_content=False):
                left -= len(piece)
                if left < 0 or monotonic() > until:
                    break
        response.close()


def _capped(timeout: Any, exchange: Exchange) -> Any:
    """Return a timeout that gives a connection no longer than the deadline does."""
    if isinstance(timeout, Timeout):
        return timeout
    pair = cast(
        "tuple[float | None, ...]", timeout if isinstance(timeout, tuple) else (timeout,) * 2
    )
    if len(pair) != _PAIR:
        return pair  # for requests to refuse
    return Timeout(connect=exchange.cap(pair[0]), read=pair[1])
