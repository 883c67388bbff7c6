"""Leader among the processes of one host, by a lock on a file."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from threading import Lock
from weakref import WeakSet, WeakValueDictionary

from loadwise._fork import ForkAware, reset_in_child

if sys.platform != "win32":
    import fcntl

__all__ = ["HostLeader"]


class _FileLock(ForkAware):
    """The lock on one file, as far as this process has it.

    It is one for the process, because two locks of one process on one file would exclude each
    other. The kernel frees it when the process ends, however it ends.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._holders: WeakSet[HostLeader] = WeakSet()
        self._lock = Lock()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = Lock()
        self._holders = WeakSet()
        # The child's copy would keep the lock after the parent's end.
        self._close()

    def hold(self, holder: HostLeader) -> bool:
        """Tell whether this process has the lock; take it where it is free."""
        with self._lock:
            if self._file is not None and not self._is_in_place(self._file):
                # Somebody has deleted the file, and others lock a new one.
                self._close()
            if self._file is None:
                self._file = self._take()
            if self._file is None:
                return False
            self._holders.add(holder)
            return True

    def release(self, holder: HostLeader) -> None:
        """Free the lock, unless others of this process hold it, too."""
        with self._lock:
            self._holders.discard(holder)
            if not self._holders:
                self._close()

    def open(self) -> int:
        """Return a descriptor of the file, which is made where it is missing."""
        # To read is all that a lock needs, so that processes of several users may share it.
        return os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _take(self) -> int | None:
        file = self.open()
        try:
            if sys.platform != "win32":  # elsewhere no leader is made
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        except BaseException:
            os.close(file)
            raise
        return file

    def _is_in_place(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            self._close()


_locks: WeakValueDictionary[Path, _FileLock] = WeakValueDictionary()


class HostLeader:
    """Makes one of a host's processes the one that checks, by a lock on a file.

    Args:
        path: The file, in a directory of the host's own, not on a network. It is made where it is
            missing, stays empty and stays there. Give each set of processes that check the same
            nodes a file of its own.

    Raises:
        NotImplementedError: The system has no ``flock``, as Windows.
        OSError: The file cannot be opened.
        TypeError: ``path`` is no path.

    The lock is the kernel's, which frees it in the moment in which the process ends, killed or
    not. It is never waited for. In a forked child it is not held.

    Thread-safety: all methods may be called from any thread. In one process any number of leaders
    may have the same file, and lead together.

    Cost: two system calls.

    Example:
        >>> import os, tempfile
        >>> leader = HostLeader(os.path.join(tempfile.mkdtemp(), "checks.lock"))
        >>> leader.leads()
        True
        >>> leader.resign()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if sys.platform == "win32":
            raise NotImplementedError(
                "this system has no flock; give the checker leader= a function of your own"
            )
        self._path = Path(path).resolve()
        self._lock = _locks.setdefault(self._path, _FileLock(self._path))
        os.close(self._lock.open())  # what is wrong with it is told now

    def leads(self) -> bool:
        """Tell whether this process has the lock; take it where it is free."""
        return self._lock.hold(self)

    def resign(self) -> None:
        """Free the lock, as far as this leader holds it."""
        self._lock.release(self)

    def __repr__(self) -> str:
        return f"HostLeader({str(self._path)!r})"
