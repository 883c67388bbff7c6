"""Locks on single bytes of a file, which the kernel frees when the file is closed.

They belong to the open file (``F_OFD_SETLK``), not to the process: so a process can hold one row
and look for others, and whoever dies frees its own. ``flock`` locks whole files, and POSIX's own
locks go when any descriptor of the file is closed.

The bytes lie beyond the end of the file, so locks and contents do not meet.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import Any, Final

if sys.platform != "win32":
    import fcntl

__all__ = [
    "ALL_ROWS",
    "EJECTING",
    "NODES",
    "OPENING",
    "PROBES",
    "ROWS",
    "ByteLocks",
    "why_no_locks",
]

_BASE: Final = 2**40
OPENING: Final = _BASE
"""Held by who opens the file, or takes a row."""
NODES: Final = _BASE + 1
"""Held by who looks up a node."""
EJECTING: Final = _BASE + 2
"""Held by who ejects a node."""
ROWS: Final = _BASE + 2**16
"""The first of the rows' locks."""
ALL_ROWS: Final = 2**16
PROBES: Final = _BASE + 2**24
"""The first of the nodes' locks, taken and freed by who claims a probe, to order claims."""

# l_type, l_whence, l_start, l_len and l_pid, laid out as C does.
_FLOCK: Final = struct.Struct("hhqqi4x")
_EIGHT_BYTES: Final = 2**32


def why_no_locks() -> str | None:
    """Tell why this system cannot lock bytes, or cannot write 8 of them at once; else ``None``."""
    if sys.platform == "win32" or not hasattr(fcntl, "F_OFD_SETLK"):
        return "this system has no F_OFD_SETLK locks"
    if sys.platform != "linux" or sys.maxsize < _EIGHT_BYTES:
        return "only Linux on 64-bit processors is supported"
    return None


class ByteLocks:
    """Locks on bytes of one open file.

    Args:
        file: Its descriptor, which belongs to this object from then on. It must not be duplicated:
            a copy would keep the locks.

    Raises nothing but `OSError`, where the file system has no locks.

    Thread-safety: system calls; whose lock it is within a process is for others to sort out.
    """

    def __init__(self, file: int) -> None:
        self.file = file

    def take(self, place: int) -> bool:
        """Take the lock of a byte, if nobody else has it."""
        return self._set("F_WRLCK", place)

    def free(self, place: int) -> None:
        """Free the lock of a byte."""
        self._set("F_UNLCK", place)

    def held(self, place: int, length: int) -> bool:
        """Tell whether others have the lock of any of these bytes."""
        if sys.platform == "win32":
            return False
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, place, length, 0)
        found = fcntl.fcntl(self.file, self._command("F_OFD_GETLK"), asked)
        return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)

    def close(self) -> None:
        """Close the file, and with it free all locks."""
        file, self.file = self.file, -1
        if file >= 0:
            os.close(file)

    def _set(self, kind: str, place: int) -> bool:
        if sys.platform == "win32":
            return False
        request = _FLOCK.pack(getattr(fcntl, kind), os.SEEK_SET, place, 1, 0)
        try:
            fcntl.fcntl(self.file, self._command("F_OFD_SETLK"), request)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: somebody has it
            return False
        return True

    @staticmethod
    def _command(name: str) -> int:
        module: Any = fcntl  # not on every system
        number: int = getattr(module, name)
        return number
