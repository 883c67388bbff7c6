"""Senders that send by transports of the caller's own: one for all nodes, or one for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from importlib import import_module
from threading import Lock
from typing import Any

from loadwise._callables import refuse_async, refuse_awaitable
from loadwise._fork import ForkAware, reset_in_child
from loadwise.balancer import Balancer
from loadwise.integrations._http.iterating import iterating
from loadwise.integrations._http.stale import (
    PathFault,
    StaleConnection,
    Trail,
    frame_of,
    is_graceful,
)
from loadwise.integrations._http.wires import TimeLeft

__all__ = ["AsyncGiven", "AsyncPerNode", "SyncGiven", "SyncPerNode"]

_PORTS = {"http": 80, "https": 443}
_REMEDY = "make the transport in a plain function of a node"

# Requests, responses and transports are Any throughout: they are those of either package.


class Given:
    """Base of the senders by one transport."""

    def __init__(self, module: Any, transport: Any) -> None:
        self._module = module
        self.transport = transport

    @staticmethod
    def way(_node: object, identity: Hashable) -> Hashable:
        """Return how a node is reached."""
        return identity

    def _cause(self, error: Exception, request: Any, trail: Trail) -> BaseException | None:
        """Return what an error comes from, if not from the node."""
        module = self._module
        cause: BaseException | None = error.__cause__
        if isinstance(error, module.ConnectError | module.ConnectTimeout):
            url = request.url
            asked = url.raw_host.decode("ascii"), url.port or _PORTS.get(url.scheme)
            there = trail.connected
            if there is None or there[1] is None or there == asked or trail.begun:
                return cause
            return PathFault(f"the way to the node leads over {there[0]}:{there[1]}, which failed")
        if not isinstance(error, module.ReadError | module.WriteError | module.RemoteProtocolError):
            return cause
        frame = frame_of(error)
        if frame is None:
            kept = trail.begun and trail.connected is None
            return StaleConnection(unsent=not trail.sent) if kept else cause
        return StaleConnection(unsent=trail.was_unread(frame)) if is_graceful(frame) else cause


class SyncGiven(Given):
    """Sends all requests by one transport."""

    def send(self, request: Any, _way: object, *, fresh: bool = False) -> Any:  # noqa: ARG002 - a transport chooses by itself
        """Send a request; raise an error of the package where there is no response."""
        trail = Trail(request.extensions.get("trace"))
        request.extensions["trace"] = trail.see
        try:
            return self.transport.handle_request(request)
        except self._module.TransportError as error:
            cause = self._cause(error, request, trail)
            if cause is error.__cause__:
                raise
            raise error from cause

    def elsewhere(self, request: Any) -> Any:
        """Send a request that is for no node."""
        return self.transport.handle_request(request)

    def close(self) -> None:
        """Close the transport."""
        self.transport.close()


class AsyncGiven(Given):
    """Sends all requests by one transport."""

    def __init__(self, module: Any, transport: Any) -> None:
        super().__init__(module, transport)
        # The packages bring it along, for asynchronous clients alone.
        self._anyio: Any = import_module("anyio")

    async def send(self, request: Any, _way: object, *, fresh: bool = False) -> Any:  # noqa: ARG002 - a transport chooses by itself
        """Send a request; raise an error of the package where there is no response."""
        trail = Trail(request.extensions.get("trace"))
        request.extensions["trace"] = trail.see_async
        try:
            return await self.elsewhere(request)
        except self._module.TransportError as error:
            cause = self._cause(error, request, trail)
            if cause is error.__cause__:
                raise
            raise error from cause

    async def elsewhere(self, request: Any) -> Any:
        """Send a request that is for no node."""
        timeouts = request.extensions.get("timeout")
        if not isinstance(timeouts, TimeLeft):
            return await self.transport.handle_async_request(request)
        with self._anyio.move_on_after(timeouts.cap(None)):
            return await self.transport.handle_async_request(request)
        raise self._module.ReadTimeout("no answer by the deadline of the request")

    async def aclose(self) -> None:
        """Close the transport."""
        await self.transport.aclose()


class _Way:
    """One node's transport.

    Attributes:
        node: The node for which it was made.
        given: Sends by it.
        users: Requests under way.
        abandoned: Whether the node has left, or is another one of the same id now.
    """

    __slots__ = ("abandoned", "given", "node", "users")

    def __init__(self, node: object, given: Any) -> None:
        self.node = node
        self.given = given
        self.users = 0
        self.abandoned = False


class TransportPerNode(ForkAware):
    """Base of the senders by one transport for each node.

    Args:
        module: httpx or httpx2.
        balancer: Whose nodes they are.
        make: Returns the transport of a node.
        base: What a transport must be.
    """

    given_type: type[Any]

    def __init__(
        self, module: Any, balancer: Balancer[Any], make: Callable[[Any], Any], base: type[Any]
    ) -> None:
        refuse_async("transport", make, _REMEDY)
        self._module = module
        self._balancer = balancer
        self._nodes = balancer.nodes
        self._make = make
        self._base = base
        self._begin_afresh()
        reset_in_child(self)

    def _begin_afresh(self) -> None:
        self._making = Lock()
        self._lock = Lock()
        self._ways: dict[Hashable, _Way] = {}
        self._doomed: list[Any] = []

    def _after_fork(self) -> None:
        self._begin_afresh()

    def way(self, node: object, identity: Hashable) -> _Way:
        """Return how a node is reached."""
        known = self._ways.get(identity)
        if known is not None and (known.node is node or known.node == node):
            return known
        with self._making:
            known = self._ways.get(identity)
            if known is not None and (known.node is node or known.node == node):
                return known
            made = self._make(node)
            refuse_awaitable(f"transport, asked for node {identity!r},", made, _REMEDY)
            if not isinstance(made, self._base):
                package = self._module.__name__
                raise TypeError(
                    f"transport returned {made!r} for node {identity!r}; it must return a "
                    f"{package}.{self._base.__name__}"
                )
            way = _Way(node, self.given_type(self._module, made))
            with self._lock:
                self._ways[identity] = way
                if known is not None:
                    self._abandon(known)
            return way

    def _look_around(self) -> None:
        """Give up the transports of nodes that have left, if any have."""
        nodes = self._balancer.nodes
        if nodes is not self._nodes:
            self._nodes = nodes
            with self._lock:
                for identity in [each for each in self._ways if each not in self._balancer]:
                    self._abandon(self._ways.pop(identity))

    def _abandon(self, way: _Way) -> None:
        way.abandoned = True
        if not way.users:
            self._doomed.append(way.given)

    def _begin(self, way: _Way) -> None:
        with self._lock:
            way.users += 1

    def _end(self, way: _Way) -> None:
        with self._lock:
            way.users -= 1
            if way.abandoned and not way.users:
                self._doomed.append(way.given)

    def _take_doomed(self, *, every: bool = False) -> list[Any]:
        with self._lock:
            if every:
                self._doomed += [way.given for way in self._ways.values()]
                self._ways.clear()
            doomed, self._doomed = self._doomed, []
        return doomed


class SyncPerNode(TransportPerNode):
    """Sends the requests to each node by its own transport. Thread-safe."""

    given_type = SyncGiven

    def __init__(
        self, module: Any, balancer: Balancer[Any], make: Callable[[Any], Any], elsewhere: Any
    ) -> None:
        super().__init__(module, balancer, make, module.BaseTransport)
        self._stream = type("CountedStream", (_SyncCountedStream, module.SyncByteStream), {})
        self._elsewhere = elsewhere

    def send(self, request: Any, way: _Way, *, fresh: bool = False) -> Any:
        """Send a request; raise an error of the package where there is no response."""
        self._begin(way)
        try:
            response = way.given.send(request, way, fresh=fresh)
        except BaseException:
            self.ended(way)
            raise
        if response.is_closed:
            self.ended(way)
        else:
            response.stream = self._stream(response.stream, way, self)
        return response

    def ended(self, way: _Way) -> None:
        """Record that a request is over."""
        self._end(way)
        self._look_around()
        for given in self._take_doomed() if self._doomed else ():
            given.close()

    def elsewhere(self, request: Any) -> Any:
        """Send a request that is for no node."""
        return self._elsewhere.elsewhere(request)

    def close(self) -> None:
        """Close all transports."""
        for given in self._take_doomed(every=True):
            given.close()
        self._elsewhere.close()


class AsyncPerNode(TransportPerNode):
    """Sends the requests to each node by its own transport. For one event loop."""

    given_type = AsyncGiven

    def __init__(
        self, module: Any, balancer: Balancer[Any], make: Callable[[Any], Any], elsewhere: Any
    ) -> None:
        super().__init__(module, balancer, make, module.AsyncBaseTransport)
        self._stream = type("CountedStream", (_AsyncCountedStream, module.AsyncByteStream), {})
        self._elsewhere = elsewhere

    async def send(self, request: Any, way: _Way, *, fresh: bool = False) -> Any:
        """Send a request; raise an error of the package where there is no response."""
        self._begin(way)
        try:
            response = await way.given.send(request, way, fresh=fresh)
        except BaseException:
            await self.ended(way)
            raise
        if response.is_closed:
            await self.ended(way)
        else:
            response.stream = self._stream(response.stream, way, self)
        return response

    async def ended(self, way: _Way) -> None:
        """Record that a request is over."""
        self._end(way)
        self._look_around()
        if self._doomed:
            await self._close(self._take_doomed())

    async def _close(self, doomed: list[Any]) -> None:
        try:
            while doomed:
                await doomed.pop().aclose()
        finally:
            self._doomed += doomed  # for the next, where this was cancelled

    async def elsewhere(self, request: Any) -> Any:
        """Send a request that is for no node."""
        return await self._elsewhere.elsewhere(request)

    async def aclose(self) -> None:
        """Close all transports."""
        await self._close(self._take_doomed(every=True))
        await self._elsewhere.aclose()


class _SyncCountedStream:
    """A response's body that counts as a request under way until it is closed."""

    def __init__(self, stream: Any, way: _Way, sender: SyncPerNode) -> None:
        self._stream = stream
        self._way = [way]
        self._sender = sender

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        """Close it, and the transport if it was waited for."""
        try:
            self._stream.close()
        finally:
            if self._way:
                self._sender.ended(self._way.pop())


class _AsyncCountedStream:
    """A response's body that counts as a request under way until it is closed."""

    def __init__(self, stream: Any, way: _Way, sender: AsyncPerNode) -> None:
        self._stream = stream
        self._way = [way]
        self._sender = sender

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async with iterating(self._stream) as pieces:
            async for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        """Close it, and the transport if it was waited for."""
        try:
            await self._stream.aclose()
        finally:
            if self._way:
                await self._sender.ended(self._way.pop())
