"""The exceptions loadwise raises: one root, and one class per kind of trouble."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from loadwise._text import in_seconds, visible, visible_lines

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

__all__ = [
    "LoadwiseError",
    "MissingHashKey",
    "NoNodeAvailable",
    "UnknownIndex",
    "UnknownNode",
]


_IN_WORDS = {"rate_limited": "rate limited", "queue": "waited for by too many"}


class LoadwiseError(Exception):
    """The root of every exception that loadwise defines.

    Wrong arguments are plain ``ValueError`` and ``TypeError``, raised where the value is given.

    Its text is safe to show: control characters of names and the like are escaped.
    """

    def __str__(self) -> str:
        return visible_lines(super().__str__())


class MissingHashKey(LoadwiseError, ValueError):  # noqa: N818 - names the fact, as KeyError does
    """A strategy that maps keys to nodes was asked without a ``hash_key``."""


class UnknownIndex(LoadwiseError, IndexError, ValueError):  # noqa: N818 - as KeyError does
    """An index was given that none of the nodes has."""


class UnknownNode(LoadwiseError, KeyError):  # noqa: N818 - names the fact, as KeyError does
    """An id was named that is not a member.

    Attributes:
        node_id: The id that was not found.
    """

    def __init__(self, node_id: Hashable, place: str, known: Iterable[Hashable] = ()) -> None:
        self.node_id = node_id
        self.place = place
        self.hint = nearest(node_id, known)
        super().__init__(node_id, place)

    def __str__(self) -> str:
        return visible(f"{self.place} has no node with id {self.node_id!r}{self.hint}")


class NoNodeAvailable(LoadwiseError):  # noqa: N818 - names the fact, as KeyError does
    """No node could be given, and why.

    Attributes:
        balancer: Name of the balancer that was asked.
        total: How many members the balancer has; 0 means that it is empty.
        reasons: How many members were ruled out by each reason: ``"drained"``, ``"unhealthy"``,
            ``"rate_limited"``, ``"quota"``, ``"full"``, ``"recovering"``, ``"filtered"``,
            ``"excluded"``, ``"queue"`` when too many wait for them already, or ``"declined"`` when
            the strategy itself returned nothing.
        retry_after: Seconds until the next probe or quota slot may free a node; ``None`` when no
            passing of time is known to help, or when the end of a request would: nobody knows when
            a full node has room.
        filters: The filters that ruled any out, that of the balancer first, as they show
            themselves.

    Example:
        >>> from loadwise import Balancer, NoNodeAvailable
        >>> try:
        ...     Balancer([], name="search").pick()
        ... except NoNodeAvailable as error:
        ...     print(error)
        no node available in balancer 'search': it has no nodes
    """

    def __init__(
        self,
        balancer: str,
        total: int,
        reasons: Mapping[str, int],
        retry_after: float | None = None,
        filters: Iterable[str] = (),
    ) -> None:
        self.filters = tuple(filters)
        self.balancer = balancer
        self.total = total
        self.reasons = MappingProxyType(dict(reasons))
        self.retry_after = retry_after
        # Not super(): a client's own exception beside this one takes other arguments.
        LoadwiseError.__init__(self, balancer, total, dict(reasons), retry_after, self.filters)

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        # A mapping proxy does not pickle; the constructor makes a new one.
        return (type(self), self.args)

    @property
    def reason(self) -> str:
        """The reason that ruled out most nodes; ``"empty"`` when there are no members at all.

        It is ``"queue"`` whenever the request would have waited, but too many do.
        """
        if not self.total:
            return "empty"
        if "queue" in self.reasons:
            return "queue"
        return max(self.reasons, key=self.reasons.__getitem__, default="declined")

    def __str__(self) -> str:
        start = f"no node available in balancer {self.balancer!r}"
        if not self.total:
            return f"{start}: it has no nodes"
        filters = f" by {' and '.join(self.filters)}" if self.filters else ""
        counts = ", ".join(
            f"{count} {_IN_WORDS.get(reason, reason)}{filters if reason == 'filtered' else ''}"
            for reason, count in sorted(self.reasons.items(), key=lambda item: -item[1])
        )
        text = f"{start}: of {self.total} node{'s' if self.total > 1 else ''} {counts}"
        if self.retry_after is not None:
            text += f"; retry after {in_seconds(self.retry_after)}"
        return visible(text)


def nearest(name: object, known: Iterable[object]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name closest to ``name``, or nothing."""
    from difflib import get_close_matches  # noqa: PLC0415 - costs every import, helps few

    by_text = {str(other): other for other in known}
    match = get_close_matches(str(name), by_text, n=1)
    return f"; did you mean {by_text[match[0]]!r}?" if match else ""
