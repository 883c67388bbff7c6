"""Status page for operators: every node of a balancer, how it is, and why it is not chosen.

The page is rendered by this process from what its balancers tell, by the standard library alone. It
is an ASGI application, a WSGI one, or serves itself.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from loadwise._numbers import shown, whole
from loadwise.balancer import Balancer
from loadwise.integrations._status_page.actions import Actions
from loadwise.integrations._status_page.asgi import AsgiPage, Receive, Scope, Send
from loadwise.integrations._status_page.feed import StatusFeed
from loadwise.integrations._status_page.hosts import NamedHosts, checked_hosts, is_loopback
from loadwise.integrations._status_page.server import PageServer
from loadwise.integrations._status_page.site import Site
from loadwise.integrations._status_page.wsgi import WsgiPage

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

__all__ = ["StatusPage"]

_log = logging.getLogger("loadwise")

_HIGHEST_PORT = 65_535


class StatusPage:
    """Page that shows balancers and their nodes, live, those with problems first.

    It is an ASGI application; `wsgi` is the WSGI one, and `serve` serves it alone. Below its own
    path it has the page, ``status.json``, ``metrics`` (where prometheus_client is installed) and
    ``events``. It works without JavaScript, below any path, and fetches nothing from elsewhere.

    Args:
        *balancers: The balancers to show, at least one.
        actions: Whether the page has buttons that drain a node, resume it, or lift its cooldown
            or ejection.
        token: Secret that an action needs, not empty; needed with ``actions``. It does not protect
            the page itself: that is for whoever mounts it.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: There is no balancer, one is given twice, or ``actions`` without a token.

    What it shows, and what an action changes, is of this process alone: with several workers, of
    the one that answers. The page says which that is.

    Thread-safety: full. In a forked child its history begins anew.

    Cost: nothing while nobody looks. While somebody does, one snapshot a second, O(nodes), for all
    viewers together, but no more than a twentieth of a core. At most 50 nodes of a balancer are
    rendered at a time. No pick does anything for it.

    Example:
        >>> from loadwise import Balancer
        >>> page = StatusPage(Balancer(["a", "b"], name="search"))
        >>> def start(status, headers):
        ...     print(status, dict(headers)["content-type"])
        >>> _ = page.wsgi({"REQUEST_METHOD": "GET", "PATH_INFO": "/status.json"}, start)
        200 OK application/json
    """

    def __init__(
        self, *balancers: Balancer[Any], actions: bool = False, token: str | None = None
    ) -> None:
        if not balancers:
            raise ValueError(
                "there is no balancer to show; give at least one: StatusPage(balancer)"
            )
        for each in balancers:
            if not isinstance(each, Balancer):
                raise TypeError(f"{shown(each)} is no Balancer; give balancers, one by one")
        for place, each in enumerate(balancers):
            if any(each is other for other in balancers[:place]):
                raise ValueError(f"balancer {each.name!r} is given twice; give each once")
        if not isinstance(actions, bool):
            raise TypeError(f"actions is {shown(actions)}; it must be True or False")
        if token is not None and not isinstance(token, str):
            raise TypeError(f"token is a {type(token).__name__}; it must be a str")
        if token is not None and not token.strip():
            raise ValueError("token is empty; give a secret, such as secrets.token_urlsafe()")
        if actions and token is None:
            raise ValueError(
                "actions need a token, or anybody who sees the page could drain the fleet; give "
                "one, such as token=secrets.token_urlsafe()"
            )
        feed = StatusFeed([(each, str(each.status_dict()["strategy"])) for each in balancers])
        site = Site(feed, Actions(balancers, token if actions else None))
        self._balancers = balancers
        self._asgi = AsgiPage(site)
        self._wsgi = WsgiPage(site)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection, as an ASGI server asks for it."""
        await self._asgi.serve(scope, receive, send)

    def wsgi(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, as a WSGI server asks for it.

        A viewer is given one event at a time and asks again after a second, so that no worker of
        the server is kept.
        """
        return self._wsgi.serve(environ, start_response)

    def serve(
        self, port: int, *, host: str = "127.0.0.1", allowed_hosts: Collection[str] = ()
    ) -> None:
        """Serve the page alone, until Ctrl-C; then the port is closed, and it returns.

        Beside other work, give it a thread: ``Thread(target=page.serve, args=(8080,),
        daemon=True).start()``.

        Args:
            port: The port, from 0 to 65,535; 0 for one that is free, which the log tells.
            host: The address to listen on. The default is reached from this machine alone.
            allowed_hosts: Names by which the page may be asked for, such as that of a proxy in
                front. On an address of this machine alone, other names than localhost, those
                below it, addresses and `host` are refused with 403: else a foreign site whose
                name leads here could read the page in your browser. On other addresses names are
                checked where some are given.

        Raises:
            TypeError, ValueError: An argument is of the wrong kind or out of range.
            OSError: The port is taken, or may not be used.
        """
        port = whole("port", port, 0)
        if port > _HIGHEST_PORT:
            raise ValueError(f"port is {port}; it must be at most {_HIGHEST_PORT}")
        if not isinstance(host, str):
            raise TypeError(f"host is {shown(host)}; it must be a str such as '127.0.0.1'")
        names = checked_hosts(allowed_hosts)
        with PageServer(host, port) as server:
            if names or is_loopback(server.server_name):
                server.set_app(NamedHosts(self._wsgi.serve, (*names, host.lower())))
            else:
                server.set_app(self._wsgi.serve)
            _log.info("the status page is at http://%s:%d/", host, server.server_port)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                return

    def __repr__(self) -> str:
        return f"<StatusPage of {', '.join(repr(each.name) for each in self._balancers)}>"
