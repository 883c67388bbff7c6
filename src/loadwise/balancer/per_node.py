"""Objects of the user's own, one for each node: clients, pools, channels."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, cast, overload

from loadwise._callables import discard, is_async
from loadwise._numbers import shown
from loadwise.balancer.lease import Lease
from loadwise.balancer.per_node_stock import (
    NOTHING,
    Holders,
    Making,
    Stock,
    StoredObject,
    running_loop,
)
from loadwise.errors import LoadwiseError

if TYPE_CHECKING:
    from asyncio import Task

__all__ = ["PerNode"]

N_co = TypeVar("N_co", covariant=True)
N_contra = TypeVar("N_contra", contravariant=True)
M = TypeVar("M")
R = TypeVar("R")
X = TypeVar("X")


class LeasedNode(Protocol[N_co]):
    """A lease, as far as the type of its node goes: one on a ``str`` is one on an ``object``."""

    @property
    def node(self) -> N_co:
        """The node."""
        ...


class PerNode(Generic[N_contra, R]):
    """An object of your own for each node: made at its first lease, closed after its last.

    Args:
        make: Makes the object of a node: ``make(node)``. A plain function, or a coroutine function.
        close: Closes it: ``close(object)``. A plain function or a coroutine function; ``None`` for
            nothing to close.

    Raises:
        TypeError: An argument cannot be called.

    ``per_node(lease)`` returns the object of the lease's node; with a coroutine function as
    ``make`` it is awaited. Whoever comes while it is made waits, and gets the same object, or the
    same error; the next lease tries again. One who is interrupted or cancelled takes nobody along.

    It is closed, once, when its node has left the balancer and the last lease has ended, by the
    thread that does the last of these. A node that is removed and added again is another one; one
    that `Balancer.replace` keeps, by its id, keeps its object. What ``close`` raises is logged.
    Objects of a balancer that is no more are closed at the next use of the `PerNode`.

    Where ``make`` or ``close`` is a coroutine function each event loop has objects of its own. They
    are closed by a task in that loop while it runs, else at the next `aclose` in it. Those of a
    loop that was closed before cannot be closed: use ``async with``.

    In a forked child the parent's objects are neither used nor closed, and new ones are made.

    It keeps no balancer alive, and may serve several.

    Thread-safety: full. Cost: O(1), without a lock once the object is there. Balancers that use
    none pay nothing for it.

    Example:
        >>> from loadwise import Balancer
        >>> class Client:
        ...     def __init__(self, address): self.address = address
        ...     def close(self): print("closed", self.address)
        >>> balancer = Balancer(["10.0.0.1:80"])
        >>> clients = PerNode(Client, close=Client.close)
        >>> with balancer.acquire() as lease:
        ...     clients(lease).address, clients(lease) is clients(lease)
        ('10.0.0.1:80', True)
        >>> balancer.remove("10.0.0.1:80")
        closed 10.0.0.1:80
    """

    @overload
    def __init__(
        self: PerNode[M, Coroutine[Any, Any, X]],
        make: Callable[[M], Coroutine[Any, Any, X]],
        close: Callable[[X], object] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self, make: Callable[[N_contra], R], close: Callable[[R], object] | None = None
    ) -> None: ...
    def __init__(
        self, make: Callable[[Any], Any], close: Callable[[Any], object] | None = None
    ) -> None:
        if not callable(make):
            raise TypeError(f"make is {shown(make)}; it must be a function of a node")
        if close is not None and not callable(close):
            raise TypeError(f"close is {shown(close)}; it must be a function of an object, or None")
        self._make: Callable[[N_contra], Any] = make
        self._later = is_async(make)
        self._by_loop = self._later or is_async(close)
        self._stock = Stock(close)

    def __call__(self, lease: LeasedNode[N_contra]) -> R:
        """Return the object of the lease's node; made now, if this is its first use.

        Args:
            lease: A lease under way.

        Raises:
            LoadwiseError: The lease has ended, or everything was closed by `close` or `aclose`.
            Exception: What ``make`` raises.
        """
        if self._later:
            return cast("R", self._soon(lease))
        entry = self._entry(lease)
        value: R = entry.value
        return cast("R", self._made(entry, lease.node)) if value is NOTHING else value

    async def _soon(self, lease: LeasedNode[N_contra]) -> object:
        import asyncio  # noqa: PLC0415 - whoever is here has imported it

        entry = self._entry(lease)
        if entry.value is not NOTHING:
            return entry.value
        # A task of its own, so that whoever is cancelled does not take the others along. All that
        # wait are in one loop, so between a look and a deed there is nobody else.
        task = entry.task
        if task is not None and task is asyncio.current_task():
            raise _within(entry)
        if task is None or task.done():
            task = entry.task = asyncio.create_task(self._bring(entry, lease.node))
            task.add_done_callback(_heed)
        return await asyncio.shield(task)

    async def _bring(self, entry: StoredObject, node: N_contra) -> object:
        entry.value = value = await self._make(node)
        self._stock.came(entry)
        return value

    def _made(self, entry: StoredObject, node: N_contra) -> object:
        while True:
            with self._stock.lock:
                making, mine = entry.making, False
                if making is None and entry.value is NOTHING:
                    making, mine = Making(), True
                    entry.making = making
            if making is None:
                return entry.value
            if mine:
                return self._carry_out(making, entry, node)
            if making.thread == get_ident():
                raise _within(entry)
            making.done.wait()
            if making.error is not None:
                raise making.error
            # There it is, or its maker was interrupted: then this thread takes its place.

    def _carry_out(self, making: Making, entry: StoredObject, node: N_contra) -> object:
        try:
            entry.value = value = self._vetted(self._make(node), entry)
        except Exception as error:
            making.error = error
            raise
        finally:
            entry.making = None
            making.done.set()
        self._stock.came(entry)
        return value

    def _vetted(self, value: object, entry: StoredObject) -> object:
        if not isinstance(value, Coroutine):
            return value
        discard(cast("object", value))
        raise TypeError(
            f"make is {shown(self._make)}, and returned a coroutine for node {entry.node_id!r}; "
            f"give the coroutine function itself, and await per_node(lease)"
        )

    def _entry(self, lease: LeasedNode[N_contra]) -> StoredObject:
        """Return where the object is, and count the lease among those that hold it."""
        if not isinstance(lease, Lease):
            raise TypeError(f"lease is {shown(lease)}; give the lease, whose node it is about")
        slot = lease._slot  # noqa: SLF001 - the balancer's own
        loop = running_loop() if self._by_loop else None
        holders, stock = slot.tokens, self._stock
        if isinstance(holders, Holders):
            entry = holders.entries.get((stock, loop))
            if entry is not None and not stock.errands:
                holders.join(lease)
                # Counted before it was found alive, so whoever ends it will see the count.
                if slot.alive and not stock.closed:
                    return entry
        return stock.entry(lease, slot, loop)

    def close(self) -> None:
        """Close all objects now, whoever uses them; from then on there are none to be had.

        Raises:
            LoadwiseError: ``close`` is a coroutine function, or ``make``: `aclose` is for those.
        """
        if self._by_loop:
            raise LoadwiseError(
                "these objects belong to event loops: await per_node.aclose(), or use async with"
            )
        self._stock.close()
        if self._stock.waiting:
            raise LoadwiseError(
                f"close returned what is to be awaited for {self._stock.waiting} objects: use "
                f"await per_node.aclose(), or async with"
            )

    async def aclose(self) -> None:
        """Close all objects now, whoever uses them; from then on there are none to be had.

        Those of other event loops are closed by tasks in these, which nobody waits for.
        """
        self._stock.close()
        await self._stock.clear()

    def __enter__(self) -> Self:
        if self._by_loop:
            raise LoadwiseError("these objects belong to event loops: use async with")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<PerNode {shown(self._make)}: {len(self._stock.entries)} nodes>"


def _within(entry: StoredObject) -> LoadwiseError:
    return LoadwiseError(
        f"make, while it made the object of node {entry.node_id!r}, asked for that very object"
    )


def _heed(task: Task[object]) -> None:
    """Retrieve a task's error, so that asyncio does not log it: those who wait for it are told."""
    if not task.cancelled():
        task.exception()
