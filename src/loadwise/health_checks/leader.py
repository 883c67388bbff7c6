"""Leader among processes: the one that checks, so that the others need not."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, cast

from loadwise._callables import refuse_async, refuse_async_methods, refuse_awaitable
from loadwise._log import log_exception
from loadwise._numbers import shown
from loadwise.health_checks.host_leader import HostLeader

__all__ = ["Lead", "Leader", "LeaderArgument", "as_leader"]

_ASKED_NOW = "a checker cannot wait for it: make it a plain function that returns a bool"


class Leader(Protocol):
    """Tells whether this process is the one that checks.

    Both methods are called in the checker's thread or event loop, so they must not wait.
    """

    def leads(self) -> bool:
        """Tell whether this process is to check now. It is asked about twice a second."""
        ...

    def resign(self) -> None:
        """Let another process check: this one's checker was stopped. `leads` may follow again."""
        ...


LeaderArgument = str | os.PathLike[str] | Callable[[], bool] | Leader


class Lead:
    """This process's lead, as far as it is known.

    Args:
        leader: Tells who leads; ``None`` if every process does.

    Attributes:
        leads: Whether this process leads.

    Not thread-safe: it belongs to one plan.
    """

    def __init__(self, leader: Leader | None) -> None:
        self._leader = leader
        self._complaints = [None]
        self._asked = False
        self.leads = leader is None

    def ask(self) -> None:
        """Ask the leader. Where it fails this process leads, which is logged once."""
        if self._leader is None:
            return
        self._asked = True
        try:
            self.leads = self._leader.leads()
        except Exception:  # noqa: BLE001 - a function of the user's may raise what it likes
            # To check what others check, too, is better than that nobody does.
            self.leads = True
            with suppress(IndexError):
                self._complaints.pop()
                log_exception("the leader failed, so this process checks; this is logged once")

    def resign(self) -> None:
        """Let another process lead. Does nothing where it has not asked since."""
        if self._leader is not None and self._asked:
            self._asked = self.leads = False
            try:
                self._leader.resign()
            except Exception:  # noqa: BLE001 - as above
                log_exception("the leader could not resign")


class _Asked:
    """A leader that is a function."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def leads(self) -> bool:
        """Ask the function."""
        answer = self._function()
        refuse_awaitable("leader", answer, _ASKED_NOW)
        return bool(answer)

    def resign(self) -> None:
        """Leave it: a function is told nothing."""


def as_leader(given: object) -> Leader | None:
    """Return the leader that a checker's argument says.

    Raises:
        OSError: It is a path at which no file can be opened.
        TypeError: It is nothing of the kind, or to be awaited.
    """
    if given is None:
        return None
    if isinstance(given, (str, os.PathLike)):
        return HostLeader(cast("str | os.PathLike[str]", given))
    if isinstance(given, type):
        raise TypeError(f"leader is the class {given.__name__}; give an instance")
    candidate: Any = given
    if callable(getattr(candidate, "leads", None)) and callable(getattr(candidate, "resign", None)):
        refuse_async_methods("leader", candidate, ("leads", "resign"), _ASKED_NOW)
        return cast("Leader", candidate)
    if callable(candidate):
        refuse_async("leader", candidate, _ASKED_NOW)
        return _Asked(candidate)
    raise TypeError(
        f"leader is {shown(given)}; it must be the path of a lock file, a function that returns a "
        f"bool, or an object with leads() and resign()"
    )
