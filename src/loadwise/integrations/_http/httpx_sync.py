"""The transport for the synchronous clients of httpx and httpx2."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from loadwise.integrations._http.bodies import peek
from loadwise.integrations._http.caller_transports import SyncGiven, SyncPerNode
from loadwise.integrations._http.httpx_family import Connections, Senders, Transport
from loadwise.integrations._http.lease_until_read import OpenResponse
from loadwise.integrations._http.pooled_sync import SyncPooled
from loadwise.integrations._http.reading_limits import Opening, Rest, Spare
from loadwise.integrations._http.retrying import RetryLoop
from loadwise.integrations._http.settings import Settings
from loadwise.integrations._http.stale import stale_of
from loadwise.integrations._http.verdict import Verdict

__all__ = ["SyncStream", "SyncTransport"]


class SyncTransport(Transport):
    """The transport for synchronous clients."""

    def __init__(self, settings: Settings, inner: Any, connections: Connections) -> None:
        super().__init__(settings)
        base = self.library.module.BaseTransport
        kinds = Senders(SyncPooled, SyncGiven, SyncPerNode, base, "HTTPTransport")
        self._sender = self._sender_for(inner, connections, kinds)
        self._resumed = type("Resumed", (SyncResumed, self.library.module.SyncByteStream), {})

    def handle_request(self, request: Any) -> Any:
        """Send a request to a node, and to others if need be."""
        if self._redirects.lead_out(request):
            return self._send_outside(request)
        options = self._options(request)
        retries = self._begin(request, options, self._key(request, options))
        if not isinstance(retries, RetryLoop):
            return retries
        try:
            return self._serve(request, retries)
        except BaseException:
            # Nothing to do where the attempt has been reported; else the fault is not the node's.
            retries.give_up()
            raise

    def _serve(self, request: Any, retries: RetryLoop) -> Any:
        """Make attempts until there is a response to hand on."""
        settings = self._settings
        while True:
            try:
                way = self._sender.way(retries.lease.node, retries.node_id)
                outbound = self._outbound(request, retries)
                settings.ask_prepare(outbound, retries.lease.node)
            except Exception as error:
                if retries.set_up_failed(error):
                    continue
                raise
            retries.sent = True
            try:
                response = self._send(outbound, retries, way)
            except BaseException as error:
                verdict = self._judge(error, settings.ask_ruling(error))
                if retries.failed(error, verdict) or retries.wait(verdict):
                    continue
                raise
            try:
                if not self._receive(response, retries, outbound):
                    continue
            except BaseException:
                response.close()
                raise
            self._complete(response, retries, request, outbound)
            return response

    def _receive(self, response: Any, retries: RetryLoop, outbound: Any) -> bool:
        """Judge a response, and make it ready to hand on.

        Returns:
            ``False`` if the next attempt has begun instead, and nobody will see it.
        """
        self._hasten(response, outbound, reads=self._settings.classify is not None)
        verdict = self._judge(response, self._settings.ask_ruling(response))
        opening = self._opening(response, retries, verdict, outbound)
        if opening is not None:
            if not self._open(response, retries, opening):
                response.close()
                return False
            verdict = self._opened(opening, verdict)
        if retries.answered(
            verdict, response.status_code, response.headers, events=self._is_of_events(response)
        ):
            self._drop(response, outbound)
            return False
        if retries.failover.is_stranded:  # who waits for another node needs its connection no more
            self._hasten(response, outbound, reads=True)
            peek(response)
        taken = self._take(response, retries, verdict, outbound)
        if not taken or retries.wait(verdict):
            response.close()
            return False
        return True

    def _send_outside(self, request: Any) -> Any:
        """Send a request out of the fleet, which is no node's and nobody's to choose."""
        outbound = self._redirects.outbound(request, self._settings.balancer.clock)
        response = self._sender.elsewhere(outbound)
        self._lift_deadline(outbound)
        self._redirects.arrived(response, request, outbound)
        return response

    def _send(self, outbound: Any, retries: RetryLoop, way: Any) -> Any:
        """Send a request; once more by a fresh connection where a kept one had ended.

        Source: RFC 9112, section 9.3.1.
        """
        try:
            return self._sender.send(outbound, way)
        except Exception as error:
            stale = stale_of(error)
            if stale is None or not retries.may_reconnect(error, unsent=stale.unsent):
                raise
        return self._sender.send(outbound, way, fresh=True)

    def _open(self, response: Any, retries: RetryLoop, opening: Opening) -> bool:
        """Read a body until it has begun; ``False`` if the next attempt has begun instead."""
        try:
            stream = iter(response.stream)
            for piece in stream:
                if opening.is_enough(piece):
                    break
            else:
                opening.is_complete = True
        except Exception as error:
            verdict = self._judge(error, self._settings.ask_ruling(error))
            if retries.failed(error, verdict) or retries.wait(verdict):
                return False
            raise
        response.stream = self._resumed(opening.pieces, stream, response.stream)
        return True

    def _take(self, response: Any, retries: RetryLoop, verdict: Verdict, outbound: Any) -> bool:
        """Make a response ready to hand on; ``False`` if the next attempt has begun instead."""
        if response.is_closed:
            self._finish(response, retries, verdict)
        elif (rest := self._rest(response, retries, verdict, outbound)) is not None:
            reader = None if rest.is_small else self._early_reader(response, retries, verdict)
            try:
                stream = iter(response.stream)
                for piece in stream:
                    if reader is not None:
                        reader.feed(piece)
                    if rest.is_enough(piece):
                        return self._hand_on(response, retries, verdict, rest, stream)
            except Exception as error:
                if retries.failed(error, self._judge(error, self._settings.ask_ruling(error))):
                    return False
                raise
            response.stream.close()
            self._keep(response, retries, verdict, b"".join(rest.pieces), reader)
        else:
            self._lift_deadline(outbound)
            response.stream = self.library.sync_stream(
                response.stream, self._hold(response, retries, verdict)
            )
        return True

    def _hand_on(
        self, response: Any, retries: RetryLoop, verdict: Verdict, rest: Rest, stream: Any
    ) -> bool:
        """Hand on a response whose rest the caller reads, or end it at its deadline."""
        if rest.is_late:
            raise self.library.module.ReadTimeout(
                f"the body from node {retries.node_id!r} had not come by the request's deadline"
            )
        resumed = self._resumed(rest.pieces, stream, response.stream)
        response.stream = self.library.sync_stream(resumed, self._hold(response, retries, verdict))
        return True

    def _drop(self, response: Any, outbound: Any) -> None:
        """Close a response that nobody will see; with its connection only if much is left."""
        spare = Spare(response, outbound)
        try:
            if spare.is_worth_it:
                for piece in response.stream:
                    if spare.is_used_up(piece):
                        break
        except Exception:  # noqa: BLE001, S110 - the connection is closed, and the next attempt begins
            pass
        finally:
            response.close()

    def close(self) -> None:
        """Close the connections."""
        self._end_life()
        self._sender.close()


class SyncStream:
    """A response's body that holds the lease until it is closed."""

    def __init__(self, stream: Any, unread: OpenResponse) -> None:
        self._stream = stream
        self._unread = unread

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._stream:
                self._unread.read(chunk)
                yield chunk
            self._unread.complete()
        except BaseException as error:
            self._unread.broke(error)
            raise

    def close(self) -> None:
        """Give back the connection and the lease."""
        try:
            self._stream.close()
        finally:
            self._unread.close()


class SyncResumed:
    """A response's body that has been read in part."""

    def __init__(self, pieces: list[bytes], rest: Iterator[bytes], stream: Any) -> None:
        self._pieces = pieces
        self._rest = rest
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        return chain(self._pieces, self._rest)

    def close(self) -> None:
        """Give back the connection."""
        self._stream.close()
