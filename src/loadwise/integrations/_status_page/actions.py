"""Actions of a page: drain, resume and lift, for those who have the token."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, urlsplit

from loadwise._text import visible
from loadwise.errors import UnknownNode
from loadwise.integrations._status_page.answers import PageAnswer, PageRequest
from loadwise.integrations._status_page.facts import text_of
from loadwise.integrations._status_page.page import policy, said
from loadwise.nodes import node_id

__all__ = ["ACTIONS", "MOST_BODY", "Actions", "Steered"]

_log = logging.getLogger("loadwise")

MOST_BODY: Final = 8192
"""Bytes of a form; more are refused."""
_MOST_FIELDS: Final = 20
_FORM: Final = "application/x-www-form-urlencoded"
_PORTS: Final = {"http": 80, "https": 443}


class Steered(Protocol):
    """Balancer, as far as an action steers it."""

    name: str

    @property
    def nodes(self) -> tuple[Any, ...]:
        """The members."""
        ...

    def drain(self, id: Hashable) -> None:  # noqa: A002 - as the balancer has it
        """Give a member no new requests."""
        ...

    def resume(self, id: Hashable) -> None:  # noqa: A002 - as the balancer has it
        """End a drain."""
        ...

    def lift(self, id: Hashable) -> bool:  # noqa: A002 - as the balancer has it
        """End a cooldown and an ejection."""
        ...


def _drain(balancer: Steered, identity: Hashable) -> str:
    balancer.drain(identity)
    return "is drained: it gets no new requests"


def _resume(balancer: Steered, identity: Hashable) -> str:
    balancer.resume(identity)
    return "is no longer drained"


def _lift(balancer: Steered, identity: Hashable) -> str:
    if balancer.lift(identity):
        return "is lifted: its cooldown or ejection has ended"
    return "was neither on a cooldown nor ejected"


ACTIONS: Final[Mapping[str, Callable[[Steered, Hashable], str]]] = {
    "drain": _drain,
    "resume": _resume,
    "lift": _lift,
}
"""The actions by name; each returns what it did."""


class _RefusedError(Exception):
    """Refusal of an action, with the status that says so."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Actions:
    """Checks who wants an action, and carries it out.

    A form counts if it comes from this page or from no page at all, and has the token. A browser
    says where a form comes from: in ``Origin``, which must be this host's own, and in
    ``Sec-Fetch-Site``.

    Args:
        balancers: The balancers, in the order of the page.
        token: What a form must have; ``None`` to refuse every action.

    Thread-safety: that of the balancers. Cost: O(nodes) for an action.
    """

    def __init__(self, balancers: Sequence[Steered], token: str | None) -> None:
        self._balancers = tuple(balancers)
        self._token = None if token is None else token.encode("utf-8", "surrogatepass")

    @property
    def allowed(self) -> bool:
        """True if there are actions at all."""
        return self._token is not None

    def answer(self, name: str, request: PageRequest) -> PageAnswer:
        """Return the answer to a POST for the action of this name, which is carried out."""
        try:
            self._check_origin(request)
            self._check_token(request)
            text = self._done(name, request)
        except _RefusedError as refusal:
            _log.warning(
                "status page: %s asked by %s is refused: %s",
                name,
                visible(request.client) or "somebody",
                visible(str(refusal)),
            )
            return _told(refusal.status, f"Refused: {refusal}", done=False)
        _log.info("status page: %s asked by %s: %s", name, visible(request.client), visible(text))
        return _told(200, text, done=True)

    def _check_origin(self, request: PageRequest) -> None:
        if self._token is None:
            raise _RefusedError(403, "this page has no actions; they need StatusPage(actions=True)")
        origin, host = request.headers.get("origin"), request.headers.get("host", "")
        if origin is not None and not _is_same(origin, host):
            raise _RefusedError(
                403,
                f"the form comes from {origin[:200]!r}, and this page is at {host[:200]!r}; a "
                f"proxy in between must pass on the header Host",
            )
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise _RefusedError(403, "the form comes from another site")

    def _check_token(self, request: PageRequest) -> None:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
            raise _RefusedError(415, f"an action is a form, of the type {_FORM}")
        if len(request.body) > MOST_BODY:
            raise _RefusedError(413, f"the form has more than {MOST_BODY} bytes")
        try:
            fields = parse_qs(
                request.body.decode("ascii"), max_num_fields=_MOST_FIELDS, errors="surrogateescape"
            )
        except ValueError:
            raise _RefusedError(400, "the form cannot be read") from None
        given = fields.get("token", [])
        if not given:
            raise _RefusedError(403, "the token is missing")
        # As bytes, for texts are compared in constant time only where they are ASCII.
        told = given[0].encode("utf-8", "surrogateescape")
        if self._token is None or len(given) > 1 or not hmac.compare_digest(told, self._token):
            raise _RefusedError(403, "the token is wrong")

    def _done(self, name: str, request: PageRequest) -> str:
        """Carry out an action, and tell what was done."""
        try:
            fields = parse_qs(request.query, max_num_fields=_MOST_FIELDS, errors="surrogatepass")
        except ValueError:
            raise _RefusedError(400, "the address cannot be read") from None
        place, text = fields.get("balancer", ["1"])[0], fields.get("node", [""])[0]
        if not (place.isascii() and place.isdigit() and len(place) < 6):  # noqa: PLR2004
            raise _RefusedError(404, "balancer must be its number on the page, from 1")
        if not 1 <= int(place) <= len(self._balancers):
            raise _RefusedError(404, f"there is no balancer number {place}")
        balancer = self._balancers[int(place) - 1]
        found = [each for each in map(node_id, balancer.nodes) if text_of(each) == text]
        if not found and not text:
            raise _RefusedError(404, "the address names no node: add ?balancer=1&node=its-id")
        if not found:
            raise _RefusedError(404, f"balancer {balancer.name!r} has no node {text[:200]!r}")
        if len(found) > 1:
            raise _RefusedError(409, f"several nodes have an id that reads {text[:200]!r}")
        try:
            did = ACTIONS[name](balancer, found[0])
        except UnknownNode:  # it left in this moment
            raise _RefusedError(404, f"node {text[:200]!r} has left") from None
        except TypeError as error:  # a source of quotas that cannot lift
            raise _RefusedError(409, str(error)) from None
        return f"Node {text[:200]!r} of balancer {balancer.name!r} {did}."


def _is_same(origin: str, host: str) -> bool:
    """Tell whether an origin is that of a page on this host.

    The scheme may differ: a proxy may have taken off TLS.
    """
    try:
        ours = urlsplit(f"//{host}")
        theirs = urlsplit(origin)
        default = _PORTS.get(theirs.scheme)
        return (
            default is not None
            and bool(theirs.hostname)
            and theirs.hostname == ours.hostname
            and (theirs.port or default) == (ours.port or default)
        )
    except ValueError:  # such as a port that is none
        return False


def _told(status: int, text: str, *, done: bool) -> PageAnswer:
    body = said(text, done=done).encode()
    headers = ("content-security-policy", policy())
    return PageAnswer.of(status, "text/html; charset=utf-8", body, headers)
