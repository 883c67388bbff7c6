"""Subsets of a fleet: which of many nodes one client of many uses.

Where each of many clients talks to each of many nodes there are clients times nodes connections,
and each client knows little of each node. With a subset it talks to a few.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from heapq import nlargest
from typing import TypeVar

from xxhash import xxh64_intdigest

from loadwise._membership import Content, Membership
from loadwise._numbers import shown, whole
from loadwise.node_set import NodeSet
from loadwise.nodes import check_id, node_id

__all__ = ["Aperture", "RendezvousSubset"]

N = TypeVar("N")


class RendezvousSubset:
    """Subset that changes least: a few nodes for each client, by a hash of the two.

    Use it where nodes come and go, or clients cannot be numbered. A node more or less changes at
    most one of the ``size``. Clients are spread over the nodes at random, so a node of n has
    ``clients * size / n`` of them on average, and some have a good many more or less: for a subset
    without such differences see `Aperture`.

    Args:
        client: What tells this client from others, such as a host's name: its text is hashed.
        size: How many nodes, >= 1; of fewer than that all are used.

    Raises:
        TypeError: ``client`` is not hashable, or ``size`` is no int.
        ValueError: ``size`` is below 1.

    The nodes are those whose ``xxh64(f"{client}_{id}")`` is highest; they keep their order.

    Immutable, so thread-safe. Cost: O(n), once per membership.

    Source: D. Thaler and C. Ravishankar, "Using name-based mappings to increase hit rates",
    IEEE/ACM Transactions on Networking 6(1), 1998.

    Example:
        >>> from loadwise import Balancer
        >>> servers = [f"10.0.0.{number}" for number in range(100)]
        >>> balancer = Balancer(servers, subset=RendezvousSubset("worker-7", size=3))
        >>> balancer.nodes
        ('10.0.0.6', '10.0.0.26', '10.0.0.64')
    """

    def __init__(self, client: Hashable, size: int = 12) -> None:
        check_id(client, self)
        self._prefix = f"{client}_"
        self._size = whole("size", size, 1)

    def __call__(self, nodes: Sequence[N]) -> NodeSet[N]:
        """Return the nodes of this client."""
        ids = map(node_id, nodes)
        hashes = [_hashed(f"{self._prefix}{identity}") for identity in ids]
        chosen = nlargest(self._size, range(len(hashes)), hashes.__getitem__)
        return NodeSet([nodes[index] for index in sorted(chosen)])

    def __repr__(self) -> str:
        return f"RendezvousSubset({self._prefix[:-1]!r}, size={self._size})"


def _hashed(text: str) -> int:
    return xxh64_intdigest(text.encode("utf-8", "surrogatepass"))


class Aperture:
    """Subset that burdens all nodes alike: Finagle's deterministic aperture.

    Use it where clients are alike and can be numbered, such as the replicas of one service. Clients
    and nodes lie evenly on a ring, and each client uses the nodes within the same width from its
    own place on. A node at an edge counts with the part of it that is within. So over all clients
    each node has the same weight, to the last bit of a float; but a node or a client more or less
    moves all edges, and with them more nodes than a `RendezvousSubset` does.

    Args:
        client: The number of this client, from 0.
        clients: How many there are, >= 1; the same for all of them.
        size: How many nodes at least, >= 1; of fewer than that all are used.

    Raises:
        TypeError: An argument is no int.
        ValueError: An argument is out of range.

    All clients must be given the nodes in the same order, such as sorted by id. The strategy must
    go by weights: `PowerOfTwoChoices`, `LeastLoad`, `WeightedRoundRobin` or `WeightedRandom`.

    Immutable, so thread-safe. Cost: O(n), once per membership.

    Source: the deterministic aperture load balancers of Twitter's Finagle.

    Example:
        >>> servers = NodeSet([f"server-{number}" for number in range(24)])
        >>> mine = Aperture(client=0, clients=12, size=12)(servers)
        >>> [servers.index_of(identity) for identity in mine.ids]
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
        >>> Aperture(client=1, clients=4, size=12).width(18)
        0.75
    """

    def __init__(self, client: int, clients: int, size: int = 12) -> None:
        self._clients = whole("clients", clients, 1)
        self._client = whole("client", client)
        self._size = whole("size", size, 1)
        if not 0 <= self._client < self._clients:
            raise ValueError(
                f"client is {shown(client)} of {self._clients} clients; they are numbered from 0 "
                f"to {self._clients - 1}"
            )

    def width(self, nodes: int) -> float:
        """Return the part of the ring that each client uses, with so many nodes; at most 1."""
        return self._steps(whole("nodes", nodes, 1)) / self._clients

    def _steps(self, nodes: int) -> int:
        """Return the width in distances between two clients: rounded up, so that all overlap."""
        return min(self._clients, -(-self._size * self._clients // nodes))

    def __call__(self, nodes: Sequence[N]) -> NodeSet[N]:
        """Return the nodes of this client, those at the edges with a part of their weight."""
        count, clients = len(nodes), self._clients
        if not count:
            return NodeSet(())
        # In whole numbers: the ring has count * clients of them, and each node as many as clients.
        begin = self._client * count
        end = begin + self._steps(count) * count
        overlap: dict[int, int] = {}
        for place in range(begin // clients, -(-end // clients)):
            within = min(end, (place + 1) * clients) - max(begin, place * clients)
            overlap[place % count] = overlap.get(place % count, 0) + within
        chosen = sorted(overlap)
        return _weighted([nodes[i] for i in chosen], [overlap[i] / clients for i in chosen])

    def __repr__(self) -> str:
        return f"Aperture(client={self._client}, clients={self._clients}, size={self._size})"


def _weighted(nodes: Sequence[N], parts: Sequence[float]) -> NodeSet[N]:
    """Return nodes that have but a part of their weight."""
    found = tuple(nodes)
    content = Content.of(found)
    weights = tuple(
        [
            weight if part == 1 else weight * part
            for weight, part in zip(content.weights, parts, strict=True)
        ]
    )
    kinds = tuple(
        [
            kind if kind is object else type(weight)
            for kind, weight in zip(content.kinds, weights, strict=True)
        ]
    )
    return NodeSet.of_membership(
        Membership(found, Content(content.ids, weights, kinds, content.unweighted))
    )
