"""Claims on balancers: one watcher at a time keeps the nodes of each."""

from __future__ import annotations

from threading import Lock
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary, ref

from loadwise._fork import ForkAware, reset_in_child
from loadwise.balancer import Balancer
from loadwise.discovery.keeper import Keeper
from loadwise.errors import LoadwiseError

__all__ = ["claim"]


class Claimant(Protocol):
    """A run of a watcher, as far as its claim goes."""

    @property
    def ended(self) -> bool:
        """True if it changes nothing any more."""
        ...


class _Claim(NamedTuple):
    run: ref[Claimant]  # which has the balancer, that must not live on for its claim
    keeper: ref[Keeper[Any]]
    source: str


class _Claims(ForkAware):
    """All claims of this process. The child of a fork begins with none. Thread-safe."""

    def __init__(self) -> None:
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = Lock()
        self._claims: WeakKeyDictionary[Balancer[Any], _Claim] = WeakKeyDictionary()

    def add(self, run: Claimant, keeper: Keeper[Any]) -> None:
        balancer = keeper.balancer
        with self._lock:
            first = self._claims.get(balancer)
            holder = None if first is None else first.run()
            if (
                first is not None
                and holder is not None
                and not holder.ended
                and first.keeper() is not keeper
            ):
                raise LoadwiseError(
                    f"balancer {balancer.name!r} cannot be given the nodes of {keeper.source}, for "
                    f"a watcher gives it those of {first.source}, and each would undo what the "
                    f"other did: stop that watcher first, or join both lists in the function of "
                    f"one CallableSource"
                )
            self._claims[balancer] = _Claim(ref(run), ref(keeper), keeper.source)


_claims = _Claims()


def claim(run: Claimant, keeper: Keeper[Any]) -> None:
    """Claim a keeper's balancer for a run, until that has ended or is no more. O(1).

    A watcher may claim again what it has claimed.

    Raises:
        LoadwiseError: Another watcher's run has it.
    """
    _claims.add(run, keeper)
