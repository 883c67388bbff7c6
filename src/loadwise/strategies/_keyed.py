"""Base of the strategies that map keys to nodes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice

from xxhash import xxh64_intdigest

from loadwise._native import mypyc_attr
from loadwise._numbers import shown, whole
from loadwise.context import HashKey, as_hash_key
from loadwise.errors import MissingHashKey
from loadwise.strategies._planned import N, P, Planned, S

__all__ = ["Keyed", "half_a_character"]


@mypyc_attr(allow_interpreted_subclasses=True)
class Keyed(Planned[N, S, P]):
    """Base of the strategies that map keys to nodes.

    Each has an order of all nodes for every key: the first is the owner. What may not be chosen is
    passed over, so a node that goes down moves its own keys only.
    """

    def owner(self, candidates: Sequence[N], hash_key: HashKey) -> int | None:
        """Return the index of the node that a key belongs to, or ``None`` when there is none.

        Use it where there is no request to describe, to shard data or to look up where a key is
        kept: it is ``select(candidates, SelectionContext(hash_key))`` for less.

        Args:
            candidates: As for `select`.
            hash_key: As in a `SelectionContext`.

        Raises:
            MissingHashKey: ``hash_key`` is ``None``.
            TypeError: It is no str, bytes or int.
            ValueError: It is an int out of range, or a str that UTF-8 cannot express.

        Thread-safety and cost: those of `select`.

        Example:
            >>> from loadwise import Maglev, NodeSet
            >>> shards = NodeSet(["shard-0", "shard-1", "shard-2"])
            >>> table = Maglev()
            >>> [shards[table.owner(shards, name)] for name in ("ada", "grace", "edsger")]
            ['shard-2', 'shard-1', 'shard-1']
        """
        return self._first(self._plan_for(candidates), self._hash(hash_key))

    def owners(self, candidates: Sequence[N], hash_key: HashKey, k: int) -> list[int]:
        """Return the indices of the first ``k`` nodes for a key, in order, for replicas.

        The first is the owner; each next one takes over where those before it may not be chosen.

        Args:
            candidates: As for `select`.
            hash_key: As in a `SelectionContext`.
            k: How many, >= 0. Where fewer may be chosen, all of them are returned.

        Raises:
            MissingHashKey: ``hash_key`` is ``None``.
            TypeError: It is no str, bytes or int, or ``k`` is no int.
            ValueError: The key is an int out of range, or a str that UTF-8 cannot express; or
                ``k`` is negative.

        Thread-safety: that of `select`. Cost: that of ``k`` look-ups, expected.

        Example:
            >>> from loadwise import Maglev, NodeSet
            >>> shards = NodeSet(["shard-0", "shard-1", "shard-2", "shard-3"])
            >>> Maglev().owners(shards, "ada", 2)
            [3, 2]
        """
        return list(islice(self.ranking(candidates, hash_key), whole("k", k, 0)))

    def ranking(self, candidates: Sequence[N], hash_key: HashKey) -> Iterator[int]:
        """Give the indices of all nodes that may be chosen, in a key's order, one by one.

        Args and errors: as for `owner`. It goes on with the candidates as they are now.
        """
        return self._order(self._plan_for(candidates), self._hash(hash_key))

    def _first(self, plan: P, hashed: int) -> int | None:
        """Return the first index in the order of a hash, or ``None`` when there is none."""
        return next(self._order(plan, hashed), None)

    @abstractmethod
    def _order(self, plan: P, hashed: int) -> Iterator[int]:
        """Give the indices of all that may be chosen, in the order of a hash, each once."""

    def _plan_for(self, candidates: Sequence[N]) -> P:
        source, plan = self._hot
        return plan if source is candidates else self._resolve(candidates)

    @property
    def _bits(self) -> int:
        """Bits of a hash; a key that is an int has no more."""
        return 64

    def _hash_of(self, data: bytes) -> int:
        """Return the hash of a key."""
        return xxh64_intdigest(data)

    def _hash(self, key: object) -> int:
        """Return the hash of a key, whatever its kind."""
        if isinstance(key, int) and not isinstance(key, bool):
            bits = self._bits
            if not 0 <= key < 2**bits:
                raise ValueError(
                    f"hash_key is {shown(key)}; an int is taken as the {bits}-bit hash itself and "
                    f"must be in 0..2^{bits}-1 (give a str or bytes to have it hashed)"
                )
            return key << 64 - bits
        if isinstance(key, str):
            try:
                return self._hash_of(key.encode())
            except UnicodeEncodeError:
                raise half_a_character(key) from None
        if isinstance(key, bytes):
            return self._hash_of(key)
        if key is not None:
            return self._hash(as_hash_key(key))
        raise MissingHashKey(
            f"{type(self).__name__} maps a key to a node, but the request has no hash_key; give "
            f"one, such as select(nodes, SelectionContext(hash_key='user-42')) or "
            f"balancer.acquire(hash_key='user-42')"
        )


def half_a_character(key: object) -> ValueError:
    """Return the error of a key that cannot be written in UTF-8."""
    return ValueError(
        f"hash_key is {shown(key)}, which has a lone surrogate (half a character) and so cannot be "
        f"written in UTF-8; give bytes, such as key.encode('utf-8', 'surrogatepass')"
    )
