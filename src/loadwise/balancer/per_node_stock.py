"""Objects of a `PerNode`, by member and event loop, and how they are closed."""

from __future__ import annotations

import sys
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from threading import Event, RLock, get_ident
from typing import TYPE_CHECKING, Any, cast

from loadwise._callables import is_async
from loadwise._fork import ForkAware, reset_in_child
from loadwise._log import log_exception, log_warning
from loadwise.balancer.lease import Lease
from loadwise.balancer.slot import Further, Slot
from loadwise.errors import LoadwiseError
from loadwise.load.pending_tokens import Prefills

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Hashable

__all__ = ["NOTHING", "Holders", "Making", "Stock", "StoredObject", "running_loop"]

NOTHING: Any = object()
_Job = Callable[[], Awaitable[object]]


class Making:
    """An object that is being made, for the threads that wait for it."""

    __slots__ = ("done", "error", "thread")

    def __init__(self) -> None:
        self.done = Event()
        self.error: Exception | None = None
        self.thread = get_ident()


class StoredObject:
    """The object of one member, in one event loop; there or to come.

    Attributes:
        value: The object, once it is made.
        making: Tells threads when it is.
        task: Tells tasks.
        gone: Whether nobody will need it any more.
        watch: Tells when the member is forgotten, so that nobody else will.
    """

    __slots__ = ("__weakref__", "gone", "loop", "making", "node_id", "task", "value", "watch")

    def __init__(self, node_id: Hashable, loop: AbstractEventLoop | None) -> None:
        self.node_id = node_id
        self.loop = loop
        self.value: Any = NOTHING
        self.making: Making | None = None
        self.task: Task[object] | None = None
        self.gone = False
        self.watch: weakref.ref[Holders] | None = None


class Holders(Further):
    """The open leases of one member whose objects are kept, beside what is counted anyway.

    A slot tells it of the begin and end of each request, in the place of what it told before.

    Attributes:
        open: Those that began since, or asked for an object, by token.
        earlier: As many entries as there are others, as far as that is known: a member that was
            removed and added again counts requests together with its former self.
        entries: The objects.
    """

    def __init__(self, slot: Slot) -> None:
        super().__init__((), ())
        self._before = slot.tokens
        self._begin = slot.begin
        self._in_flight = slot.in_flight
        self.open: dict[int, None] = {}
        self.earlier: list[None] = slot.in_flight.copy()
        self.entries: dict[tuple[Stock, AbstractEventLoop | None], StoredObject] = {}

    def begin(self, first: Any, token: int, started: float) -> None:  # noqa: ANN401 - any measure's
        """Record that a request begins."""
        self.open[token] = None
        if self._begin is not None:
            self._begin(first, token, started)

    def first_byte(self, token: int, now: float) -> None:
        """Let a request age no more."""
        if isinstance(self._before, (Further, Prefills)):
            self._before.first_byte(token, now)
        elif self._before is not None:
            self._before.pop(token, None)

    def pop(self, token: int, _: None) -> None:
        """Record that a request ends. It takes no lock: collection may strike anywhere."""
        if self._before is not None:
            self._before.pop(token, None)
        if self.open.pop(token, NOTHING) is NOTHING:
            self._one_less()

    def _one_less(self) -> None:
        with suppress(IndexError):
            self.earlier.pop()

    @property
    def busy(self) -> bool:
        """True if a lease is open."""
        return bool(self.open) or bool(self.earlier and self._in_flight)

    def settle(self) -> None:
        """Close what is kept for a member that has left, if no lease is open any more."""
        for stock, _loop in list(self.entries):
            stock.settle(self)

    def join(self, lease: Lease[Any]) -> None:
        """Count a lease that may have begun before this was there."""
        token, under_way = id(lease), lease._open  # noqa: SLF001 - the balancer's own
        if under_way and token not in self.open:
            self.open[token] = None
            self._one_less()
            lease._token = token  # noqa: SLF001 - by which its end is told
        # Asked again, because it may have ended before it was counted.
        if not under_way:
            self.open.pop(token, None)
            raise LoadwiseError(
                f"the lease on {lease.node_id!r} has ended; ask for the object while it is open"
            )


class Stock(ForkAware):
    """All objects of one `PerNode`, and what is left to do with them.

    Attributes:
        lock: Held for moments, never while anything of the user's runs.
        entries: All that are not closed.
        errands: Entries whose member was forgotten, to be closed by whoever comes next.
        closed: Whether there are none to be had any more.
    """

    def __init__(self, close: Callable[[Any], object] | None) -> None:
        self._close = close
        self._closes_later = is_async(close)
        # Taken again where collection strikes inside it, and runs what is the user's.
        self.lock = RLock()
        self.entries: dict[StoredObject, None] = {}
        self.errands: deque[StoredObject] = deque()
        self.closed = False
        # What can be closed in an event loop alone, and that does not run now.
        self._pending: deque[tuple[AbstractEventLoop | None, Hashable, _Job]] = deque()
        self._tasks: set[Task[None]] = set()
        self._loops: set[AbstractEventLoop] = set()
        # Of a parent process. Held, so that not even their finalizers do anything in the child.
        self._inherited: list[object] = []
        reset_in_child(self)

    def _after_fork(self) -> None:
        self.lock = RLock()
        self._inherited += [(e.value, e.task, e.making) for e in self.entries]
        self._inherited += [self._pending, self._tasks, self._loops]
        self._pending, self._tasks, self._loops = deque(), set(), set()
        for entry in self.entries:
            entry.value, entry.task, entry.making = NOTHING, None, None
            holders = None if entry.watch is None else entry.watch()
            if holders is not None:
                holders.open.clear()  # those of other threads end in the parent alone
                holders.earlier.clear()

    def entry(self, lease: Lease[Any], slot: Slot, loop: AbstractEventLoop | None) -> StoredObject:
        """Return the entry for a lease, made if there is none."""
        self._run_errands()
        if loop is not None and loop not in self._loops:
            self._loops.add(loop)
            self._drop_closed_loops()
        with self.lock:
            if self.closed:
                raise LoadwiseError("this PerNode has been closed; make another one")
            holders = slot.tokens
            if not isinstance(holders, Holders):
                holders = Holders(slot)
                # In this order: what begins in between is not counted, and its end does no harm.
                slot.tokens = holders
                slot.begin = holders.begin
            holders.join(lease)
            entry = holders.entries.get((self, loop))
            if entry is None:
                entry = StoredObject(slot.id, loop)
                entry.watch = weakref.ref(holders, _errand(self.errands, entry))
                self.entries[entry] = None
                holders.entries[self, loop] = entry
            return entry

    def settle(self, holders: Holders) -> None:
        """Close the objects of a member that has left, if no lease is open."""
        with self.lock:
            if holders.busy:
                return
            mine = [key for key in holders.entries if key[0] is self]
            taken = [holders.entries.pop(key) for key in mine]
        for entry in taken:
            self._finish(entry)

    def came(self, entry: StoredObject) -> None:
        """Record an object that was made; by now nobody may need it."""
        if self.closed:
            self._finish(entry)
            raise LoadwiseError(
                f"this PerNode was closed while it made the object of node {entry.node_id!r}"
            )
        if entry.gone:
            self._finish(entry)

    def _finish(self, entry: StoredObject) -> None:
        """Close an entry's object, once."""
        entry.gone = True
        with self.lock:
            self.entries.pop(entry, None)
            value, entry.value = entry.value, NOTHING
            entry.watch = None
        close = self._close
        if value is NOTHING or close is None:
            return
        if self._closes_later:
            self._close_in(entry.loop, entry.node_id, partial(_called, close, value))
            return
        try:
            answer = close(value)
        except Exception:  # noqa: BLE001 - whoever ends a lease has nothing to do with it
            log_exception("closing the object of node %r failed", entry.node_id)
            return
        if isinstance(answer, Awaitable):
            self._close_in(entry.loop, entry.node_id, partial(_itself, answer))

    def _close_in(self, loop: AbstractEventLoop | None, node_id: Hashable, job: _Job) -> None:
        running = running_loop()
        if running is not None and loop in (None, running):
            self._start(node_id, job)
            return
        if loop is not None and loop.is_running():
            try:
                loop.call_soon_threadsafe(self._start, node_id, job)
            except RuntimeError:  # it was closed in that moment
                pass
            else:
                return
        self._pending.append((loop, node_id, job))

    def _start(self, node_id: Hashable, job: _Job) -> None:
        """Have a task of the running loop close an object."""
        import asyncio  # noqa: PLC0415 - whoever is here has imported it

        task = asyncio.get_running_loop().create_task(_carry_out(node_id, job))
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Close all there are, as far as that can be done now."""
        with self.lock:
            self.closed = True
        self._run_errands()
        while True:
            with self.lock:
                entry = next(iter(self.entries), None)
            if entry is None:
                return
            self._finish(entry)

    @property
    def waiting(self) -> int:
        """Number of objects that wait for an event loop in which they can be closed."""
        return len(self._pending)

    async def clear(self) -> None:
        """Wait for what is being closed in this loop, and close what waits for one."""
        import asyncio  # noqa: PLC0415 - whoever is here has imported it

        running = asyncio.get_running_loop()
        kept: list[tuple[AbstractEventLoop | None, Hashable, _Job]] = []
        while self._pending:
            loop, node_id, job = self._pending.popleft()
            if loop is None or loop is running:
                await _carry_out(node_id, job)
            elif loop.is_closed():
                _too_late(node_id)
            else:
                kept.append((loop, node_id, job))
        self._pending.extend(kept)
        mine = [task for task in self._tasks if task.get_loop() is running]
        if mine:
            await asyncio.wait(mine)

    def _run_errands(self) -> None:
        while self.errands:
            try:
                entry = self.errands.popleft()
            except IndexError:  # another thread was quicker
                return
            self._finish(entry)

    def _drop_closed_loops(self) -> None:
        """Forget objects of loops that are closed; there is no way left to close them."""
        closed = {loop for loop in list(self._loops) if loop.is_closed()}
        if not closed:
            return
        self._loops -= closed
        with self.lock:
            gone = [entry for entry in self.entries if entry.loop in closed]
            for entry in gone:
                del self.entries[entry]
                entry.gone = True
                holders = None if entry.watch is None else entry.watch()
                entry.watch = None
                if holders is not None:
                    holders.entries.pop((self, entry.loop), None)
        for entry in gone:
            if entry.value is not NOTHING and self._close is not None:
                _too_late(entry.node_id)


def _errand(errands: deque[StoredObject], entry: StoredObject) -> Callable[[object], None]:
    # Collection may strike inside any lock, so it only leaves word.
    return lambda _gone: errands.append(entry)


def running_loop() -> AbstractEventLoop | None:
    """Return the event loop that runs in this thread, if any."""
    asyncio = sys.modules.get("asyncio")
    # Not get_running_loop, whose error where there is none would take a microsecond.
    return None if asyncio is None else asyncio._get_running_loop()  # noqa: SLF001


async def _carry_out(node_id: Hashable, job: _Job) -> None:
    try:
        await job()
    except Exception:  # noqa: BLE001 - whoever ends a lease has nothing to do with it
        log_exception("closing the object of node %r failed", node_id)


def _called(close: Callable[[Any], object], value: object) -> Awaitable[object]:
    return cast("Awaitable[object]", close(value))


def _itself(answer: Awaitable[object]) -> Awaitable[object]:
    return answer


def _too_late(node_id: Hashable) -> None:
    log_warning(
        "the object of node %r cannot be closed: its event loop is closed; call aclose() before, "
        "or use async with",
        node_id,
    )
