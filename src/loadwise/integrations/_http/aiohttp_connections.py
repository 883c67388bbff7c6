"""Connections of aiohttp: an attempt's was new, or kept from earlier requests.

aiohttp tells nobody, but it hands the connection to the request to send itself by; there it is
seen. Should that go, no connection counts as kept, and tests say so.
"""

from __future__ import annotations

from weakref import WeakSet

import aiohttp
from aiohttp import ClientRequest, ClientResponse
from aiohttp.connector import Connection

__all__ = ["Passage"]

_USED: WeakSet[object] = WeakSet()
# Each finds out about one dead connection, and there may be several.
_MOST_REPETITIONS = 3


class Passage:
    """The connections that the attempts of one request went by.

    Args:
        request: The request as it was asked.

    Attributes:
        proxy: The proxy that the session would send it by.
        unsent: Whether nothing was sent by the latest.
    """

    __slots__ = ("_kept", "_repetitions", "proxy", "unsent")

    def __init__(self, request: ClientRequest) -> None:
        self.proxy = request.proxy
        self._kept = False
        self._repetitions = 0
        self.unsent = False

    def watch(self, outbound: ClientRequest) -> None:
        """Record the connection by which a request will be sent."""
        send = outbound.send
        self._kept = False
        self.unsent = False

        async def send_by(connection: Connection) -> ClientResponse:
            protocol = connection.protocol
            self._kept = protocol in _USED
            _USED.add(protocol)
            self.unsent = True
            response = await send(connection)
            self.unsent = False
            return response

        outbound.__dict__["send"] = send_by

    def has_arrived(self) -> None:
        """Record that an answer has come: what breaks now is the body, and no kept connection."""
        self._kept = False

    def is_stale(self, error: BaseException) -> bool:
        """Tell whether an error is the end of a kept connection, and no more than that."""
        return (
            self._kept
            and isinstance(
                error,
                aiohttp.ClientOSError
                | aiohttp.ServerDisconnectedError
                | aiohttp.ClientConnectionResetError,
            )
            and not isinstance(error, aiohttp.ClientConnectorError | TimeoutError)
        )

    def may_repeat(self) -> bool:
        """Tell whether another connection is worth a try; counts it as tried."""
        self._repetitions += 1
        return self._repetitions <= _MOST_REPETITIONS
