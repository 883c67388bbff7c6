"""The transports for httpx and httpx2: one body of code for both packages.

The two have the same classes under different names and no common base, so what is specific to one
reaches this code as the attributes of a `Library`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import lru_cache
from typing import Any

from loadwise.integrations._http.body import Decoded, Hold
from loadwise.integrations._http.exchange import Exchange, may_repeat
from loadwise.integrations._http.settings import Settings, options_of
from loadwise.integrations._http.verdict import Verdict, judge_status
from loadwise.nodes import node_id
from loadwise.outcome import Outcome

__all__ = ["AsyncTransport", "Library", "SyncTransport"]

# Requests, responses, nodes and streams are Any throughout: they are those of either package.


class Library:
    """What is needed of httpx or httpx2."""

    def __init__(self, module: Any, sync_stream: type[Any], async_stream: type[Any]) -> None:
        self.module = module
        self.sync_stream = sync_stream
        self.async_stream = async_stream
        # Parsing and joining URLs is the dearest part of a request's way through here.
        self.join: Callable[[str, bytes], Any] = lru_cache(maxsize=4096)(self._join)

    def _join(self, base: str, raw_path: bytes) -> Any:
        """Return the URL of a path (with its query) below a node's base URL."""
        url = self.module.URL(base)
        return url.copy_with(raw_path=url.raw_path.rstrip(b"/") + raw_path)

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
        return Verdict(Outcome.FAILURE, retry=isinstance(error, module.TransportError))


class Transport:
    """What the sync and the async transport have in common."""

    library: Library

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def _begin(self, request: Any) -> Exchange:
        settings = self._settings
        options = options_of(request.extensions.get("loadwise"))
        replayable = isinstance(request.stream, self.library.module.ByteStream)
        key = options.hash_key
        if key is None and settings.hash_key is not None:
            key = settings.hash_key(request)
        cost = options.cost
        if cost is None and settings.meter is not None and replayable:
            cost = settings.meter.estimate(request.content)
        return Exchange(
            settings,
            options,
            key,
            cost,
            repeatable=lambda: may_repeat(
                request.method, options, has_idempotency_key="idempotency-key" in request.headers
            ),
            replayable=replayable,
        )

    def _outbound(self, request: Any, exchange: Exchange) -> Any:
        """Return the request as it goes to the node of the present attempt."""
        settings = self._settings
        node = exchange.lease.node
        target = self.library.join(settings.base_url(node), request.url.raw_path)
        # A shallow copy without the constructor's work; copy() would pickle, and lose the stream.
        outbound: Any = object.__new__(self.library.module.Request)
        outbound.__dict__.update(request.__dict__)
        outbound.url = target
        outbound.headers = request.headers.copy()
        outbound.extensions = dict(request.extensions)
        outbound.extensions.pop("loadwise", None)
        if request.headers.get("host", "") == request.url.netloc.decode("ascii"):
            outbound.headers["host"] = target.netloc.decode("ascii")
        if settings.meter is not None:
            # What the meter is to read must be in an encoding that can be undone here.
            outbound.headers["accept-encoding"] = "gzip, deflate"
        left = exchange.time_left()
        if left is not None:
            timeout = outbound.extensions.get("timeout", {})
            outbound.extensions["timeout"] = {
                phase: left if timeout.get(phase) is None else min(left, timeout[phase])
                for phase in ("connect", "read", "write", "pool")
            }
        if settings.prepare is not None:
            settings.prepare(outbound, node)
        return outbound

    def _judge(self, result: Any) -> Verdict:
        """Judge a response or an exception by the user's rule, or else by the default one."""
        if self._settings.classify is not None:
            judged = self._settings.classify(result)
            if isinstance(judged, Outcome):
                return Verdict(judged)
            if isinstance(judged, Verdict):
                return judged
            if judged is not None:
                raise TypeError(f"classify returned {judged!r}; it must be a Verdict or an Outcome")
        if isinstance(result, BaseException):
            return self.library.judge_error(result)
        return judge_status(result.status_code, result.headers)

    def _hold(self, response: Any, exchange: Exchange, verdict: Verdict) -> Hold:
        response.extensions["loadwise"] = {
            "node": node_id(exchange.lease.node),
            "attempts": exchange.attempts,
        }
        reader = None
        if self._settings.meter is not None and verdict.outcome is Outcome.SUCCESS:
            inner = self._settings.meter.reader(response.headers.get("content-type", ""))
            if inner is not None:
                reader = Decoded(inner, response.headers.get("content-encoding", ""))
        return Hold(exchange, exchange.lease, verdict, reader)

    @staticmethod
    def _complete(request: Any, outbound: Any) -> None:
        """Let a request with a relative URL know where it went, as clients expect afterwards."""
        if request.url.is_relative_url:
            request.url = outbound.url


class SyncTransport(Transport):
    """The transport for synchronous clients."""

    def __init__(self, settings: Settings, inner: Any) -> None:
        super().__init__(settings)
        self._inner = self.library.module.HTTPTransport() if inner is None else inner

    def handle_request(self, request: Any) -> Any:
        """Send a request to a node, and to others if need be."""
        exchange = self._begin(request)
        try:
            while True:
                outbound = self._outbound(request, exchange)
                try:
                    response = self._inner.handle_request(outbound)
                except BaseException as error:
                    if exchange.failed(error, self._judge(error)):
                        continue
                    raise
                try:
                    verdict = self._judge(response)
                    if exchange.answered(verdict):
                        response.close()
                        continue
                    if exchange.may_read_ahead(response.headers.get("content-length")):
                        try:
                            body = b"".join(response.stream)
                        except Exception as error:
                            if exchange.failed(error, self._judge(error)):
                                response.close()
                                continue
                            raise
                        response.stream.close()
                        response.stream = self.library.module.ByteStream(body)
                    response.stream = self.library.sync_stream(
                        response.stream, self._hold(response, exchange, verdict)
                    )
                except BaseException:
                    response.close()
                    raise
                self._complete(request, outbound)
                return response
        except BaseException:
            # Nothing to do where the attempt has been reported; else the fault is not the node's.
            exchange.lease.cancel()
            raise

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


class AsyncTransport(Transport):
    """The transport for asynchronous clients."""

    def __init__(self, settings: Settings, inner: Any) -> None:
        super().__init__(settings)
        self._inner = self.library.module.AsyncHTTPTransport() if inner is None else inner

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request to a node, and to others if need be."""
        exchange = self._begin(request)
        try:
            while True:
                outbound = self._outbound(request, exchange)
                try:
                    response = await self._inner.handle_async_request(outbound)
                except BaseException as error:
                    if exchange.failed(error, self._judge(error)):
                        continue
                    raise
                try:
                    verdict = self._judge(response)
                    if exchange.answered(verdict):
                        await response.aclose()
                        continue
                    if exchange.may_read_ahead(response.headers.get("content-length")):
                        try:
                            body = b"".join([chunk async for chunk in response.stream])
                        except Exception as error:
                            if exchange.failed(error, self._judge(error)):
                                await response.aclose()
                                continue
                            raise
                        await response.stream.aclose()
                        response.stream = self.library.module.ByteStream(body)
                    response.stream = self.library.async_stream(
                        response.stream, self._hold(response, exchange, verdict)
                    )
                except BaseException:
                    await response.aclose()
                    raise
                self._complete(request, outbound)
                return response
        except BaseException:
            # Nothing to do where the attempt has been reported; else the fault is not the node's.
            exchange.lease.cancel()
            raise

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class SyncStream:
    """A response's body that holds the lease until it is closed."""

    def __init__(self, stream: Any, hold: Hold) -> None:
        self._stream = stream
        self._hold = hold

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._stream:
                self._hold.read(chunk)
                yield chunk
        except BaseException as error:
            self._hold.broke(error)
            raise

    def close(self) -> None:
        """Give back the connection and the lease."""
        try:
            self._stream.close()
        finally:
            self._hold.close()


class AsyncStream:
    """A response's body that holds the lease until it is closed."""

    def __init__(self, stream: Any, hold: Hold) -> None:
        self._stream = stream
        self._hold = hold

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                self._hold.read(chunk)
                yield chunk
        except BaseException as error:
            self._hold.broke(error)
            raise

    async def aclose(self) -> None:
        """Give back the connection and the lease."""
        try:
            await self._stream.aclose()
        finally:
            self._hold.close()
