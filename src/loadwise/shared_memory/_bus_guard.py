"""Guard against the end of a process whose mapped file is cut short by somebody else.

Memory behind the end of a file cannot be read: the kernel ends the process by SIGBUS. Nothing that
looks beforehand can exclude that, and files with a name cannot be sealed against it. So while a
file is mapped, this signal is caught. Where a guarded file has become shorter than its mapping, the
mapping is replaced in place by private memory, full of zeros: the process goes on, and finds at its
next look that it is alone. In all other cases the handler that was there before takes over.

The handler is Python code, run in the midst of what the thread was doing. That was to copy a few
bytes from or to the mapping, so no structure of the interpreter is half changed.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
from ctypes import CFUNCTYPE, c_char, c_int, c_long, c_size_t, c_void_p
from typing import Any, Final

__all__ = ["guard", "retire"]

_FIXED: Final = 0x10
_FAILED: Final = c_void_p(-1).value


class _Guarded:
    """A mapping, and the file that it is of."""

    __slots__ = ("address", "file", "size")

    def __init__(self, address: int, size: int, file: int) -> None:
        self.address = address
        self.size = size
        self.file = file

    def is_cut(self) -> bool:
        try:
            return os.fstat(self.file).st_size < self.size
        except OSError:
            return False


_guarded: dict[int, _Guarded] = {}
_handler: Any = None
_before: int | None = None
_installed = False
_libc: Any = None


def guard(memory: mmap.mmap, file: int) -> int:
    """Guard a mapping of a file, until `retire` is told the number that is returned."""
    exported = c_char.from_buffer(memory)
    address = ctypes.addressof(exported)
    del exported
    _guarded[address] = _Guarded(address, len(memory), file)
    _install()
    return address


def retire(number: int) -> None:
    """Replace a guarded mapping by private memory, for good; it may be said again.

    Threads that were about to write there do no harm then, and need no guard.
    """
    each = _guarded.pop(number, None)
    if each is not None:
        _replace(each)


def _install() -> None:
    global _handler, _before, _libc, _installed  # noqa: PLW0603 - there is one process
    if _installed or not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = c_void_p
    libc.mmap.argtypes = [c_void_p, c_size_t, c_int, c_int, c_int, c_long]
    libc.signal.restype = c_void_p
    libc.signal.argtypes = [c_int, c_void_p]
    if _handler is None:  # one for good: it must not go while it runs
        _libc, _handler = libc, CFUNCTYPE(None, c_int)(_on_bus_error)
    _installed = True
    _before = libc.signal(signal.SIGBUS, ctypes.cast(_handler, c_void_p))


def _on_bus_error(_number: int) -> None:
    global _installed  # noqa: PLW0603 - as above
    replaced = False
    for each in list(_guarded.values()):
        if each.is_cut() and _replace(each):
            replaced = True
            _guarded.pop(each.address, None)
    if not replaced:
        # Not ours: what was under way is tried again, and fails again, as it would have.
        _libc.signal(signal.SIGBUS, _before)
        _installed = False


def _replace(each: _Guarded) -> bool:
    """Put private memory in the place of a mapping."""
    how = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _FIXED
    what = mmap.PROT_READ | mmap.PROT_WRITE
    found = _libc.mmap(each.address, each.size, what, how, -1, 0)
    return bool(found != _FAILED)
