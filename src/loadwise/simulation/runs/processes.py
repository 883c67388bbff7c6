"""Processes that work through a list, and never outlive it.

They are spawned and not forked, so that none inherits a thread's lock or a socket. Each has a pipe
of its own: it can be killed at any moment, in the middle of an answer too, and all that comes of it
is a pipe that ends. (The queue of a ``ProcessPoolExecutor`` is shared and stays open, and its
thread would wait for the rest of that answer for ever.) A process whose parent is killed ends at
once.
"""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from loadwise.errors import LoadwiseError

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

__all__ = ["WorkerLost", "work_through"]

_LONGEST_WAIT = 0.5

T = TypeVar("T")
R = TypeVar("R")

_Pipe = Any  # a Connection, which takes type parameters for the type checker only


class WorkerLost(LoadwiseError, RuntimeError):  # noqa: N818 - names the fact, as KeyError does
    """A process ended before its work: it was killed, or memory ran out."""


def work_through(
    tasks: Sequence[T], work: Callable[[T], R], jobs: int
) -> Generator[tuple[int, R], None, None]:
    """Do the work for each task in other processes, and yield each place and result as they come.

    Close the generator to give up: the processes are killed and waited for.

    Args:
        tasks: What to work on; each must pickle.
        work: What to do; a function at the top level of a module.
        jobs: How many processes there are.

    Raises:
        WorkerLost: A process ended before its work.
        Exception: Whatever ``work`` raises.
    """
    processes: list[SpawnProcess] = []
    pipes: dict[_Pipe, int] = {}
    following = iter(enumerate(tasks))
    try:
        with _without_interrupts():
            for _ in range(jobs):
                process, pipe = _start(work)
                processes.append(process)
                pipes[pipe] = -1
        for pipe in [*pipes]:
            _hand_over(pipe, following, pipes)
        while pipes:
            # Not for ever: an interrupt given to another thread shows when this one goes on.
            for pipe in wait([*pipes], _LONGEST_WAIT):
                place = pipes[pipe]
                result: R = _receive(pipe)
                _hand_over(pipe, following, pipes)
                yield place, result
    finally:
        for pipe in pipes:
            pipe.close()
        # Those that are done end by themselves when their pipes do.
        for process in processes if pipes else ():
            process.kill()
        for process in processes:
            process.join()
            process.close()


def _start(work: Callable[[Any], object]) -> tuple[SpawnProcess, _Pipe]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _hand_over(pipe: _Pipe, tasks: Iterator[tuple[int, object]], pipes: dict[_Pipe, int]) -> None:
    """Give a process its next task, or let it go."""
    for place, task in tasks:
        pipes[pipe] = place
        # One that is gone shows when its answer is awaited.
        with suppress(OSError):
            pipe.send(task)
        return
    del pipes[pipe]
    pipe.close()


def _receive(pipe: _Pipe) -> Any:  # noqa: ANN401 - whatever the work returns
    try:
        good, answer = pickle.loads(pipe.recv_bytes())  # noqa: S301 - from our own process
    except (EOFError, OSError):
        raise WorkerLost(
            "a process ended before its work: was it killed, did memory run out, or does the "
            "script lack its if __name__ == '__main__'? jobs=1 takes no processes"
        ) from None
    if good:
        return answer
    raise answer


def _serve(pipe: Connection, work: Callable[[Any], object]) -> None:
    """Work on what comes through the pipe until it ends."""
    # Ctrl-C is for the parent, which decides what becomes of this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send_bytes(_answer(work, task))


def _answer(work: Callable[[Any], object], task: object) -> bytes:
    try:
        return pickle.dumps((True, work(task)))
    except Exception as error:  # noqa: BLE001 - it is raised in the parent
        where = traceback.format_exc()
        error.add_note(f"in another process:\n{where}")
        try:
            parcel = pickle.dumps((False, error))
            pickle.loads(parcel)  # noqa: S301 - just packed; some exceptions do not come back
        except Exception:  # noqa: BLE001 - then its text must do
            parcel = pickle.dumps((False, RuntimeError(f"{error!r}\n{where}")))
        return parcel


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _without_interrupts() -> Generator[None, None, None]:
    """Keep Ctrl-C away from processes that begin here, and from this one until they have.

    A terminal sends it to all; a process that is only just being set up would print where it was.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Begun ahead of the processes, because it lets signals in when it begins.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
