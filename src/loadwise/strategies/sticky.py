"""Sticky sessions: a key keeps the node that it was first given."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar, cast
from weakref import WeakSet

from loadwise._membership import Membership
from loadwise._native import mypyc_attr
from loadwise._numbers import finite, shown, whole
from loadwise.clock import Clock
from loadwise.context import EMPTY, HashKey, SelectionContext, as_hash_key
from loadwise.errors import MissingHashKey, UnknownNode
from loadwise.load import InFlight, LoadMeasure
from loadwise.node_set import NodeSet
from loadwise.nodes import node_id
from loadwise.strategies._planned import check_excluded
from loadwise.strategies.adapter import adapt, share_measures, strategy_name
from loadwise.strategies.protocols import KeyOrder, Strategy

__all__ = ["SavedPin", "Sticky"]

N = TypeVar("N")

_FEW = 2
"""Pins that have lapsed, of which as many are dropped with each that is made."""

_Fate = Literal["there", "elsewhere", "lost"]


class SavedPin(NamedTuple):
    """A pin as it is saved: plain values, for any store.

    Attributes:
        key: The hash key.
        node_id: The id of its node.
        idle: Seconds since its last use.
    """

    key: str | bytes | int
    node_id: Hashable
    idle: float


class _Pin:
    """The node of a key, by id, and when it was last used."""

    __slots__ = ("node_id", "used")

    def __init__(self, identity: Hashable, used: float) -> None:
        self.node_id = identity
        self.used = used


class _TimedInFlight(InFlight):
    """Counts as `InFlight` does, and so learns the clock of the balancer that feeds it."""

    def __init__(self) -> None:
        super().__init__()
        self.now: Clock = monotonic
        self._given = False

    def use_clock(self, clock: Clock) -> None:
        """Take the time from ``clock``, unless there is a clock by now.

        The first balancer's stays; one that goes by another clock refuses the measure.
        """
        if not self._given:
            self._given = True
            self.now = clock

    @property
    def clock(self) -> Clock:
        """The clock."""
        return self.now


@mypyc_attr(allow_interpreted_subclasses=True)
class Sticky(Generic[N]):
    """Keeps each key on the node that ``inner`` first chose for it: session affinity.

    Use it where moving a session costs more than an uneven load: a key stays where it is also when
    members join, which the hash family moves some keys for.

    A key is given another node for good only when its own has left, is drained or is down. Where a
    request excludes that node, filters it out, or finds it on cooldown or full, ``inner`` chooses
    another for this request alone. In panic a key stays on its node as long as no better is to be
    had. A request without a key is the inner strategy's alone.

    Args:
        inner: Chooses for keys that have no node: any strategy.
        ttl: Seconds after its last use in which a key keeps its node, > 0; by the balancer's clock.
        max_keys: How many keys are kept, >= 1; those unused for longest are dropped first.

    Which node was refused a request, because it was full say, it does not hear: a new key is pinned
    to the first choice, and goes there from the next request on.

    Raises:
        TypeError: ``inner`` is not a strategy, or a number is of the wrong kind.
        ValueError: ``ttl`` or ``max_keys`` is out of range.

    Thread-safety: lock-free. Two threads that bring a new key at once agree on its node. Processes
    do not share pins; a forked child goes on with a copy. See `snapshot` for restarts.

    Cost: O(1) and that of ``inner`` for keys that have no node; some 200 bytes a key.

    Example:
        >>> from loadwise import Balancer, Random
        >>> balancer = Balancer(["a", "b", "c"], sessions := Sticky(Random()))
        >>> home = balancer.pick(hash_key="user-42")
        >>> balancer.add("d")
        >>> {balancer.pick(hash_key="user-42") for _ in range(20)} == {home}
        True
        >>> sessions.pin("user-7", "b")
        >>> balancer.pick(hash_key="user-7"), sessions.pinned("user-7")
        ('b', 'b')
    """

    needs_all_nodes: ClassVar[bool] = True
    """Tells that it cannot choose within a group of nodes: each would keep keys for itself."""

    def __init__(self, inner: Strategy[N], ttl: float = 3600.0, max_keys: int = 100_000) -> None:
        self._inner = adapt(inner)
        self._ttl = finite("ttl", ttl)
        if not self._ttl > 0:
            raise ValueError(f"ttl is {shown(ttl)}; it must be finite and above 0, in seconds")
        self._max_keys = whole("max_keys", max_keys, 1)
        self._timed = _TimedInFlight()
        # The least recently used first.
        self._pins: OrderedDict[HashKey, _Pin] = OrderedDict()
        self._members: WeakSet[Membership[Any]] = WeakSet()

    @property
    def measures(self) -> tuple[LoadMeasure, ...]:
        """The load measures that the inner strategy consults, and what brings the clock."""
        return (*self._inner.measures, self._timed)

    def share_measures(self, measures: Sequence[LoadMeasure]) -> None:
        """Have the inner strategy consult these measures in the place of its own."""
        share_measures(self._inner, measures[:-1])

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index of the key's node, or of another for this request, or ``None``."""
        key = context.hash_key
        if key is None:
            return self._inner.select(candidates, context)
        now = self._timed.now()
        pin = self._pins.get(key)
        if pin is not None and now - pin.used < self._ttl:
            return self._stay(candidates, context, pin, now)
        chosen = self._inner.select(candidates, context)
        if chosen is None:
            return None
        fresh = _Pin(_id_at(candidates, chosen), now)
        if pin is not None:
            self._keep(key, fresh)
            return chosen
        # Another thread may have been quicker: then its choice holds.
        kept = self._pins.setdefault(key, fresh)
        self._put_last(key, now)
        return chosen if kept is fresh else self._stay(candidates, context, kept, now)

    def _stay(
        self, candidates: Sequence[N], context: SelectionContext, pin: _Pin, now: float
    ) -> int | None:
        """Return the index of the node of a pin, or find another, for good or for this request."""
        key = context.hash_key
        pin.used = now
        self._put_last(key, now)
        index, fate = _look_up(candidates, context, pin.node_id)
        if fate == "there":
            return index
        other = self._inner.select(candidates, context)
        if fate == "elsewhere" or other is None:
            return other
        if index is not None and _is_down(candidates, other):
            # All are down, and this one may be chosen: it is no worse than the other.
            return index
        self._keep(key, _Pin(_id_at(candidates, other), now))
        return other

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return, changing nothing."""
        identity = None if context.hash_key is None else self.pinned(context.hash_key)
        if identity is not None:
            index, fate = _look_up(candidates, context, identity)
            if fate == "there":
                return index
            other = self._inner.peek(candidates, context)
            stays = fate == "lost" and index is not None and other is not None
            return index if stays and other is not None and _is_down(candidates, other) else other
        return self._inner.peek(candidates, context)

    def prepare(self, nodes: NodeSet[N]) -> None:
        """Have the inner strategy prepare for ``nodes``, and know them as members."""
        self._inner.prepare(nodes)
        self._members.add(nodes.membership)

    def facts(self, nodes: NodeSet[N]) -> Mapping[str, Sequence[float]]:
        """Return what the inner choice is based on, and how many keys each node has. O(keys)."""
        pins = [0] * len(nodes)
        for saved in self.snapshot():
            index = nodes.index_of(saved.node_id)
            if index is not None:
                pins[index] += 1
        return {**self._inner.facts(nodes), "pins": pins}

    def owner(self, candidates: Sequence[N], hash_key: HashKey) -> int | None:
        """Return the index of the node that a request with this key would go to; pin nothing.

        Args and errors: as for `ConsistentHash.owner`.
        """
        return self.peek(candidates, SelectionContext(_checked(hash_key)))

    def owners(self, candidates: Sequence[N], hash_key: HashKey, k: int) -> list[int]:
        """Return the indices of the first ``k`` nodes for a key: its own, then as ``inner`` does.

        Raises:
            TypeError: ``inner`` has no order of nodes for a key.
        """
        return self._ranked(candidates, hash_key, whole("k", k, 0))

    def _ranked(self, candidates: Sequence[N], hash_key: HashKey, count: int) -> list[int]:
        inner: object = self._inner
        if not isinstance(inner, KeyOrder):
            raise TypeError(
                f"owners() needs an order of nodes for a key, but inner is "
                f"{strategy_name(self._inner)}; give Sticky one of the hash family"
            )
        first = self.owner(candidates, hash_key)
        if first is None or not count:
            return []
        order: Iterator[int] = inner.ranking(candidates, hash_key)
        found = [first]
        while len(found) < count:
            index = next(order, None)
            if index is None:
                break
            if index != first:
                found.append(index)
        return found

    def pin(self, key: str | bytes | int, id: Hashable) -> None:  # noqa: A002 - as in Balancer
        """Give a key a node, from now on.

        Args:
            key: The hash key.
            id: The node's id, or the node.

        Raises:
            UnknownNode: No member has this id, of the balancers that use the strategy. Before there
                is one, nobody knows, and a node that never joins is given up at the first request.
            TypeError: ``key`` is no str, bytes or int.
        """
        identity = node_id(id)
        members = list(self._members)
        if members and all(each.index_of(identity) is None for each in members):
            raise UnknownNode(identity, "Sticky", members[-1].ids)
        self._keep(_checked(key), _Pin(identity, self._timed.now()))

    def pinned(self, key: str | bytes | int) -> Hashable | None:
        """Return the id of the node that a key has; ``None`` if it has none. It is no use of it."""
        pin = self._pins.get(_checked(key))
        return None if pin is None or self._timed.now() - pin.used >= self._ttl else pin.node_id

    def snapshot(self) -> list[SavedPin]:
        """Return all pins that have not lapsed, the least recently used first. O(keys).

        Ids of a few nodes and keys in plain values: put them into a `StateStore`, a file or a
        database, and `restore` them after a restart.
        """
        now = self._timed.now()
        return [
            SavedPin(key, pin.node_id, max(0.0, now - pin.used))
            for key, pin in list(self._pins.items())
            if key is not None and now - pin.used < self._ttl
        ]

    def restore(self, pins: Iterable[Sequence[Any]]) -> None:
        """Give keys back the nodes that they had. O(keys).

        Keys that have a node by now keep it. Those idle for as long as the ttl are left out, and so
        are those beyond ``max_keys`` that were idle for longest. The time between `snapshot` and
        this does not count. Nodes that are no members any more are given up at the next request.

        Args:
            pins: What `snapshot` returned, in any order; lists as of JSON will do.

        Raises:
            TypeError: An entry is no such sequence, a key no str, bytes or int, an id not hashable,
                or a time no number.
            ValueError: An entry has not three parts; a time is negative, or not finite.
        """
        now = self._timed.now()
        found: list[tuple[float, HashKey, Hashable]] = []
        for entry in pins:
            given, identity, idle = _parts(entry)
            key, seconds = _checked(given), finite("idle", idle)
            if not seconds >= 0:
                raise ValueError(
                    f"idle is {shown(idle)} for key {shown(given)}; it must be finite and >= 0"
                )
            if seconds < self._ttl:
                found.append((seconds, key, identity))
        found.sort(key=lambda pin: pin[0])
        room = max(0, self._max_keys - len(self._pins))
        for seconds, key, identity in found[:room]:
            if self._pins.setdefault(key, pin := _Pin(identity, now - seconds)) is pin:
                self._pins.move_to_end(key, last=False)

    def _keep(self, key: HashKey, pin: _Pin) -> None:
        self._pins[key] = pin
        self._put_last(key, pin.used)

    def _put_last(self, key: HashKey, now: float) -> None:
        """Note that a key was used last, and drop those that were not for longest."""
        pins = self._pins
        with suppress(KeyError):  # another thread may have dropped it
            pins.move_to_end(key)
        for _ in range(_FEW):
            oldest = _oldest(pins)
            if oldest is None or (len(pins) <= self._max_keys and now - oldest[1].used < self._ttl):
                return
            pins.pop(oldest[0], None)


def _oldest(pins: OrderedDict[HashKey, _Pin]) -> tuple[HashKey, _Pin] | None:
    try:
        return next(iter(pins.items()), None)
    except RuntimeError:  # another thread came in between, and sees to it
        return None


def _parts(entry: Sequence[Any]) -> tuple[Any, Hashable, Any]:
    """Return key, id and time of a saved pin."""
    told = "it must have a key, the id of its node and the seconds idle, as snapshot() returns them"
    if isinstance(entry, str | bytes) or not isinstance(cast("object", entry), Sequence):
        raise TypeError(f"a pin is {shown(entry)}; {told}")
    if len(entry) != len(SavedPin._fields):
        raise ValueError(f"a pin is {shown(entry)}; {told}")
    key, identity, idle = entry
    try:
        hash(identity)
    except TypeError:
        raise TypeError(
            f"the id of the node of key {shown(key)} is {shown(identity)}, which is not hashable; "
            f"give it as the node has it: JSON makes a list of a tuple"
        ) from None
    return key, identity, idle


def _checked(key: object) -> HashKey:
    if key is None:
        raise MissingHashKey("Sticky keeps keys, but this hash_key is None; give a str or bytes")
    return as_hash_key(key)


def _look_up(
    candidates: Sequence[N], context: SelectionContext, identity: Hashable
) -> tuple[int | None, _Fate]:
    """Return the index of a key's node if it may be chosen, and what has become of it."""
    nodes = candidates if isinstance(candidates, NodeSet) else NodeSet(candidates)
    if context.exclude:
        check_excluded(context.exclude, len(nodes))
    index = nodes.index_of(identity)
    if index is None:
        return None, "lost"
    found = index if nodes.mask[index] and index not in context.exclude else None
    standing = nodes.standing
    if not nodes.weights[index]:
        return None, "lost"
    if standing is not None:
        if index in standing.down and index not in standing.ailing:
            return found, "lost"
        if standing.outside.get(index) == "drained":
            return None, "lost"
    return found, "elsewhere" if found is None else "there"


def _is_down(candidates: Sequence[N], index: int) -> bool:
    standing = candidates.standing if isinstance(candidates, NodeSet) else None
    return standing is not None and index in standing.down


def _id_at(candidates: Sequence[N], index: int) -> Hashable:
    # As it was when the node joined, for a member.
    if isinstance(candidates, NodeSet):
        return candidates.ids[index]
    return node_id(candidates[index])
