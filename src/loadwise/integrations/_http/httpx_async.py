"""The transport for the asynchronous clients of httpx and httpx2."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from loadwise.integrations._http.bodies import peek_async
from loadwise.integrations._http.caller_transports import AsyncGiven, AsyncPerNode
from loadwise.integrations._http.httpx_family import Connections, Senders, Transport
from loadwise.integrations._http.iterating import iterating
from loadwise.integrations._http.lease_until_read import OpenResponse
from loadwise.integrations._http.node_search import waited
from loadwise.integrations._http.pooled_async import AsyncPooled
from loadwise.integrations._http.reading_limits import Opening, Rest, Spare
from loadwise.integrations._http.retrying import RetryLoop
from loadwise.integrations._http.settings import Settings, awaited
from loadwise.integrations._http.stale import stale_of
from loadwise.integrations._http.verdict import Verdict

__all__ = ["AsyncStream", "AsyncTransport"]


class AsyncTransport(Transport):
    """The transport for asynchronous clients."""

    def __init__(self, settings: Settings, inner: Any, connections: Connections) -> None:
        super().__init__(settings)
        base = self.library.module.AsyncBaseTransport
        kinds = Senders(AsyncPooled, AsyncGiven, AsyncPerNode, base, "AsyncHTTPTransport")
        self._sender = self._sender_for(inner, connections, kinds)
        self._resumed = type("Resumed", (AsyncResumed, self.library.module.AsyncByteStream), {})

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request to a node, and to others if need be."""
        if self._redirects.lead_out(request):
            return await self._send_outside(request)
        options = self._options(request)
        key = await awaited(self._key(request, options))
        account = self._account(request)
        found, began = await waited(self._settings, options, key, account)
        retries = self._begin(request, options, key, found, began, account)
        if not isinstance(retries, RetryLoop):
            return retries
        try:
            return await self._serve(request, retries)
        except BaseException:
            # Nothing to do where the attempt has been reported; else the fault is not the node's.
            retries.give_up()
            raise

    async def _serve(self, request: Any, retries: RetryLoop) -> Any:
        """Make attempts until there is a response to hand on."""
        settings = self._settings
        while True:
            try:
                way = self._sender.way(retries.lease.node, retries.node_id)
                outbound = self._outbound(request, retries)
                await awaited(settings.ask_prepare(outbound, retries.lease.node))
            except Exception as error:
                if retries.set_up_failed(error):
                    continue
                raise
            retries.sent = True
            try:
                response = await self._send(outbound, retries, way)
            except BaseException as error:
                verdict = await self._verdict(error)
                if retries.failed(error, verdict) or await retries.wait_async(verdict):
                    continue
                raise
            try:
                if not await self._receive(response, retries, outbound):
                    continue
            except BaseException:
                await response.aclose()
                raise
            self._complete(response, retries, request, outbound)
            return response

    async def _send(self, outbound: Any, retries: RetryLoop, way: Any) -> Any:
        """Send a request; once more by a fresh connection where a kept one had ended.

        Source: RFC 9112, section 9.3.1.
        """
        try:
            return await self._sender.send(outbound, way)
        except Exception as error:
            stale = stale_of(error)
            if stale is None or not retries.may_reconnect(error, unsent=stale.unsent):
                raise
        return await self._sender.send(outbound, way, fresh=True)

    async def _verdict(self, result: Any) -> Verdict:
        """Judge a response or an exception.

        A plain ``classify`` may read a response as it does with a synchronous client: then its body
        is awaited first, and it is asked again.
        """
        try:
            ruling = await awaited(self._settings.ask_ruling(result))
        except RuntimeError as error:
            if not self._wants_body(result, error):
                raise
            await result.aread()
            ruling = await awaited(self._settings.ask_ruling(result))
        return self._judge(result, ruling)

    def _wants_body(self, result: Any, error: RuntimeError) -> bool:
        """Tell whether an error says that a body cannot be read without awaiting it."""
        if isinstance(result, BaseException) or result.is_closed or type(error) is not RuntimeError:
            return False
        step = error.__traceback__
        while step is not None and step.tb_next is not None:
            step = step.tb_next
        raised_in = "" if step is None else str(step.tb_frame.f_globals.get("__name__"))
        return raised_in.startswith(f"{self.library.module.__name__}.")

    async def _receive(self, response: Any, retries: RetryLoop, outbound: Any) -> bool:
        """Judge a response, and make it ready to hand on.

        Returns:
            ``False`` if the next attempt has begun instead, and nobody will see it.
        """
        self._hasten(response, outbound, reads=self._settings.classify is not None)
        verdict = await self._verdict(response)
        opening = self._opening(response, retries, verdict, outbound)
        if opening is not None:
            if not await self._open(response, retries, opening):
                await response.aclose()
                return False
            verdict = self._opened(opening, verdict)
        if retries.answered(
            verdict, response.status_code, response.headers, events=self._is_of_events(response)
        ):
            await self._drop(response, outbound)
            return False
        if retries.failover.is_stranded:  # who waits for another node needs its connection no more
            self._hasten(response, outbound, reads=True)
            await peek_async(response)
        taken = await self._take(response, retries, verdict, outbound)
        if not taken or await retries.wait_async(verdict):
            await response.aclose()
            return False
        return True

    async def _send_outside(self, request: Any) -> Any:
        """Send a request out of the fleet, which is no node's and nobody's to choose."""
        outbound = self._redirects.outbound(request, self._settings.balancer.clock)
        response = await self._sender.elsewhere(outbound)
        self._lift_deadline(outbound)
        self._redirects.arrived(response, request, outbound)
        return response

    async def _open(self, response: Any, retries: RetryLoop, opening: Opening) -> bool:
        """Read a body until it has begun; ``False`` if the next attempt has begun instead."""
        try:
            stream = aiter(response.stream)
            async for piece in stream:
                if opening.is_enough(piece):
                    break
            else:
                opening.is_complete = True
        except Exception as error:
            verdict = await self._verdict(error)
            if retries.failed(error, verdict) or await retries.wait_async(verdict):
                return False
            raise
        response.stream = self._resumed(opening.pieces, stream, response.stream)
        return True

    async def _take(
        self, response: Any, retries: RetryLoop, verdict: Verdict, outbound: Any
    ) -> bool:
        """Make a response ready to hand on; ``False`` if the next attempt has begun instead."""
        if response.is_closed:
            self._finish(response, retries, verdict)
        elif (rest := self._rest(response, retries, verdict, outbound)) is not None:
            reader = None if rest.is_small else self._early_reader(response, retries, verdict)
            try:
                stream = aiter(response.stream)
                async for piece in stream:
                    if reader is not None:
                        reader.feed(piece)
                    if rest.is_enough(piece):
                        return await self._hand_on(response, retries, verdict, rest, stream)
            except Exception as error:
                if retries.failed(error, await self._verdict(error)):
                    return False
                raise
            await response.stream.aclose()
            self._keep(response, retries, verdict, b"".join(rest.pieces), reader)
        else:
            self._lift_deadline(outbound)
            response.stream = self.library.async_stream(
                response.stream, self._hold(response, retries, verdict)
            )
        return True

    async def _hand_on(
        self, response: Any, retries: RetryLoop, verdict: Verdict, rest: Rest, stream: Any
    ) -> bool:
        """Hand on a response whose rest the caller reads, or end it at its deadline."""
        if rest.is_late:
            raise self.library.module.ReadTimeout(
                f"the body from node {retries.node_id!r} had not come by the request's deadline"
            )
        resumed = self._resumed(rest.pieces, stream, response.stream)
        response.stream = self.library.async_stream(resumed, self._hold(response, retries, verdict))
        return True

    async def _drop(self, response: Any, outbound: Any) -> None:
        """Close a response that nobody will see; with its connection only if much is left."""
        spare = Spare(response, outbound)
        try:
            if spare.is_worth_it:
                async with iterating(response.stream) as pieces:
                    async for piece in pieces:
                        if spare.is_used_up(piece):
                            break
        except Exception:  # noqa: BLE001, S110 - the connection is closed, and the next attempt begins
            pass
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        self._end_life()
        await self._sender.aclose()


class AsyncStream:
    """A response's body that holds the lease until it is closed."""

    def __init__(self, stream: Any, unread: OpenResponse) -> None:
        self._stream = stream
        self._unread = unread

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async with iterating(self._stream) as pieces:
                async for piece in pieces:
                    self._unread.read(piece)
                    yield piece
            self._unread.complete()
        except BaseException as error:
            self._unread.broke(error)
            raise

    async def aclose(self) -> None:
        """Give back the connection and the lease."""
        try:
            await self._stream.aclose()
        finally:
            self._unread.close()


class AsyncResumed:
    """A response's body that has been read in part."""

    def __init__(self, pieces: list[bytes], rest: AsyncIterator[bytes], stream: Any) -> None:
        self._pieces = pieces
        self._rest = rest
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._pieces:
            yield self._pieces.pop(0)
        async with iterating(self._rest) as pieces:
            async for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        """Give back the connection."""
        await self._stream.aclose()
