"""Opening of a host's file: whose it is, what it must look like, and who may build it anew."""

from __future__ import annotations

import mmap
import os
import stat
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from loadwise.errors import LoadwiseError
from loadwise.shared_memory._layout import ENTRY, PAGE, RING, VERSION, MemoryLayout
from loadwise.shared_memory._locks import ALL_ROWS, OPENING, ROWS, ByteLocks, why_no_locks
from loadwise.shared_memory._memory import HostMemory

__all__ = ["Unshareable", "open_shared", "what_has_become_of"]

_PATIENCE: Final = 1.0
_PAUSE: Final = 0.001
_TRIES: Final = 16
_OWN: Final = 0o600
_FLAGS: Final = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


class Unshareable(LoadwiseError):  # noqa: N818 - a state of affairs, that is no error of anybody
    """The file cannot be shared, so that the process goes on alone; says why."""


def open_shared(path: str, processes: int, nodes: int) -> HostMemory:
    """Return the memory that processes share by a file, with a row of this process's own.

    Args:
        path: The file; made where it is missing, and built anew where nobody holds it.
        processes: How many processes may take part, where it is built.
        nodes: How many nodes there is room for, where it is built.

    Raises:
        Unshareable: It cannot be shared; if it is somebody else's, nothing was written to it.
    """
    lacking = why_no_locks()
    if lacking is not None:
        raise Unshareable(lacking)
    try:
        for _ in range(_TRIES):
            locks = ByteLocks(os.open(path, _FLAGS | os.O_CREAT | os.O_NONBLOCK, _OWN))
            try:
                memory = _open_locked(path, locks, MemoryLayout(processes, nodes))
            except BaseException:
                locks.close()
                raise
            if memory is not None:
                return memory
            locks.close()  # somebody has deleted the file meanwhile
    except PermissionError as error:
        raise Unshareable(_whose(path) or f"it cannot be opened: {error.strerror}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Unshareable(f"it cannot be opened: {reason}") from error
    raise Unshareable("it is deleted again and again")


def _whose(path: str) -> str | None:
    with suppress(OSError):
        owner = Path(path).lstat().st_uid
        if owner != os.geteuid():
            return f"it belongs to another user (uid {owner})"
    return None


def _open_locked(path: str, locks: ByteLocks, wanted: MemoryLayout) -> HostMemory | None:
    found = os.fstat(locks.file)
    if not stat.S_ISREG(found.st_mode):
        raise Unshareable("it is no regular file")
    if found.st_uid != os.geteuid():
        raise Unshareable(f"it belongs to another user (uid {found.st_uid})")
    until = time.monotonic() + _PATIENCE
    while not locks.take(OPENING):
        if time.monotonic() > until:
            raise Unshareable(f"another process has been opening it for {_PATIENCE:g} s")
        time.sleep(_PAUSE)
    try:
        mapped = os.open(path, _FLAGS | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        if not os.path.samestat(os.fstat(mapped), os.fstat(locks.file)):
            return None
        layout = _agreed(locks, wanted)
        if stat.S_IMODE(found.st_mode) != _OWN:
            os.fchmod(locks.file, _OWN)
        row = _free_row(locks, layout)
        # What is written to later must have room now: a full disk would end the process.
        os.posix_fallocate(mapped, 0, layout.rings)
        os.posix_fallocate(mapped, layout.rings + RING * ENTRY * row, RING * ENTRY)
        # The mapping keeps a copy of the descriptor, so it has one of its own, without locks.
        memory = HostMemory(layout, mmap.mmap(mapped, layout.size), locks, row)
    finally:
        os.close(mapped)
    memory.clear_row(row)
    memory.sign(time.monotonic())
    locks.free(OPENING)
    return memory


def _agreed(locks: ByteLocks, wanted: MemoryLayout) -> MemoryLayout:
    """Return the layout that the file has, or is given now.

    Raises:
        Unshareable: It is somebody else's, or others hold it and it is not as it must be.
    """
    size = os.fstat(locks.file).st_size
    header = os.pread(locks.file, PAGE, 0).ljust(PAGE, b"\0")
    held = locks.held(ROWS, ALL_ROWS)
    boot = host_identity()
    parsed = MemoryLayout.parse(header)
    if parsed is None:
        if any(header):
            raise Unshareable("it is no file of loadwise")
        if held:
            raise Unshareable("it was emptied while others held it")
        return _built(locks, wanted, boot)
    version, processes, nodes, booted = parsed
    if version != VERSION:
        raise Unshareable(
            f"it was written by another release of loadwise (layout {version}, here {VERSION})"
        )
    if not held:
        if (processes, nodes, booted) == (wanted.processes, wanted.nodes, boot) and (
            size == wanted.size and header.startswith(wanted.header(boot))
        ):
            return wanted
        return _built(locks, wanted, boot)
    if booted != boot:
        raise Unshareable("those who hold it have another clock: it is another host's, or boot's")
    if not 0 < processes <= ALL_ROWS or not 0 < nodes <= 2**24:
        raise Unshareable("its sizes were damaged while others held it")
    layout = MemoryLayout(processes, nodes)
    if size != layout.size or not header.startswith(layout.header(boot)):
        raise Unshareable("it was damaged while others held it")
    return layout


def _built(locks: ByteLocks, layout: MemoryLayout, boot: bytes) -> MemoryLayout:
    """Build the file anew, for who knows that nobody holds it."""
    os.ftruncate(locks.file, 0)
    os.ftruncate(locks.file, layout.size)
    os.pwrite(locks.file, layout.header(boot), 0)
    return layout


def _free_row(locks: ByteLocks, layout: MemoryLayout) -> int:
    for row in range(layout.processes):
        if locks.take(ROWS + row):
            return row
    raise Unshareable(
        f"all its {layout.processes} rows are taken; give max_processes of more in all processes"
    )


@cache
def host_identity() -> bytes:
    """Return what is the same in all processes that have the same monotonic clock."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    # Containers may have clocks of their own.
    clock = ""
    with suppress(OSError):
        clock = str(Path("/proc/self/ns/time").readlink())
    return f"{boot}{clock}".encode()[:64]


def what_has_become_of(path: str, memory: HostMemory) -> str | None:
    """Tell what is wrong with a file that is mapped, if anything; three system calls."""
    if memory.locks is None:
        return None
    wrong = _what_is_wrong(path, memory.locks.file, memory.layout.size)
    if wrong is None and not memory.header().startswith(memory.layout.header(host_identity())):
        return "somebody has written over it"
    return wrong


def _what_is_wrong(path: str, file: int, size: int) -> str | None:
    try:
        own = os.fstat(file)
        if own.st_size != size:
            return f"somebody has changed its size to {own.st_size} bytes"
        if not os.path.samestat(own, Path(path).lstat()):
            return "somebody has put another file in its place"
    except FileNotFoundError:
        return "somebody has deleted it"
    except OSError as error:
        return f"it cannot be looked at: {error.strerror}"
    return None
