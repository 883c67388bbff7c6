"""Names by which a page that serves itself may be asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from loadwise._numbers import shown
from loadwise.integrations._status_page.answers import text_answer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

__all__ = ["NamedHosts", "checked_hosts", "is_loopback"]


def is_loopback(address: str) -> bool:
    """Tell whether an address is reached from this machine alone."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def checked_hosts(hosts: Collection[str]) -> tuple[str, ...]:
    """Return the names of `StatusPage.serve`, in small letters.

    Raises:
        TypeError: They are no collection of str.
        ValueError: One of them can be no host's name.
    """
    if isinstance(hosts, (str, bytes)) or not isinstance(hosts, Collection):
        raise TypeError(
            f"allowed_hosts is {shown(hosts)}; it must be a list of names, such as ['ops.test']"
        )
    for host in hosts:
        if not isinstance(host, str):
            raise TypeError(f"allowed_hosts has {shown(host)}; each must be a str: 'ops.test'")
        if not host or host.lower() != _name_in(host):
            raise ValueError(
                f"allowed_hosts has {shown(host)}; give a name alone, without scheme, port, "
                "path or *, such as 'ops.test'"
            )
    return tuple(host.lower() for host in hosts)


class NamedHosts:
    """WSGI application that answers only who asks for it by one of its names.

    A site anywhere can have its own name lead to 127.0.0.1, and its script could then read the
    page in the browser of whoever visits it (DNS rebinding). The browser tells that name in the
    header ``Host``. No such site is called localhost, and none has an address for its name.

    Args:
        app: The application.
        names: Names that are allowed, besides localhost, those below it, and addresses.
    """

    def __init__(self, app: WSGIApplication, names: Iterable[str]) -> None:
        self._app = app
        self._names = frozenset(names)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, or refuse it with 403."""
        host = environ.get("HTTP_HOST")
        # All browsers tell it; an old monitor may not.
        if host is None or self._allows(host):
            return self._app(environ, start_response)
        refused = HTTPStatus.FORBIDDEN
        answer = text_answer(
            refused,
            f"The status page is not known as {host[:200]!r}. Ask for it as localhost or by its "
            f"address, or allow the name: serve(..., allowed_hosts=[{_name_in(host)[:200]!r}]). "
            "Else a foreign site could read it in your browser.",
        )
        start_response(f"{refused.value} {refused.phrase}", list(answer.headers))
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else answer.body]

    def _allows(self, host: str) -> bool:
        name = _name_in(host)
        if name == "localhost" or name.endswith(".localhost") or name in self._names:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True


def _name_in(host: str) -> str:
    """Return a host's name, in small letters; empty where there is none.

    Example:
        >>> _name_in("Ops.Test:8080"), _name_in("[::1]:8080"), _name_in("a/b*"), _name_in("[")
        ('ops.test', '::1', '', '')
    """
    if any(each in host for each in "/?#@*,") or any(each.isspace() for each in host):
        return ""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
    return name.removesuffix(".")
