"""Table of the nodes in a host's memory, by id."""

from __future__ import annotations

import os
import time
from collections.abc import Hashable
from contextlib import suppress
from threading import RLock
from typing import Final, cast

from xxhash import xxh3_128_hexdigest

from loadwise.shared_memory._layout import KEY
from loadwise.shared_memory._locks import NODES
from loadwise.shared_memory._memory import HostMemory

__all__ = ["HostNodes", "id_of", "key_of"]

_LONGEST: Final = KEY - 8
_KEPT: Final = _LONGEST - 32
_OF_DIGEST: Final = 8
_PATIENCE: Final = 0.1
_PAUSE: Final = 0.0005


def key_of(node_id: Hashable) -> bytes | None:
    """Return the bytes by which other processes know a node; ``None`` if they could not.

    Ids that are equal have the same bytes: str, bytes, int and float, ``None``, and tuples of them.

    Example:
        >>> key_of("a"), key_of(("a", 1)), key_of(object())
        (b's1:a', b't2:s1:ai1:1', None)
    """
    key = _encoded(node_id)
    if key is not None and len(key) > _LONGEST:
        return key[:_KEPT] + xxh3_128_hexdigest(key).encode()
    return key


def _encoded(value: object) -> bytes | None:
    if isinstance(value, str):
        kind, text = b"s", str.encode(value, "utf-8", "surrogatepass")
    elif isinstance(value, bytes):
        kind, text = b"b", bytes(value)
    elif isinstance(value, float) and not value.is_integer():
        kind, text = b"f", float.__repr__(value).encode()
    elif isinstance(value, (int, float)):  # 1, 1.0 and True are the same id
        kind, text = b"i", str(int(value)).encode()
    elif value is None:
        kind, text = b"n", b""
    elif type(value) is tuple:
        parts = [_encoded(each) for each in cast("tuple[object, ...]", value)]
        known = [part for part in parts if part is not None]
        return b"t%d:" % len(parts) + b"".join(known) if len(known) == len(parts) else None
    else:
        return None
    return kind + b"%d:" % len(text) + text


def id_of(key: bytes) -> Hashable:
    """Return the id of a node from its key; of one too long for a key, its beginning as a text.

    Example:
        >>> id_of(b"s1:a"), id_of(b"t2:s1:ai1:1"), id_of(key_of("a" * 200))[-10:]
        ('a', ('a', 1), 'a…7f57dfff')
    """
    try:
        value, rest = _decoded(key)
        if not rest:
            return value
    except ValueError:
        pass
    if len(key) < _LONGEST:  # forged
        return repr(key)
    begin, digest = key[:_KEPT], key[_KEPT:].decode("ascii", "replace")
    text = begin.partition(b":")[2] if begin.startswith(b"s") else begin
    return f"{text.decode('utf-8', 'replace')}…{digest[:_OF_DIGEST]}"


def _decoded(key: bytes) -> tuple[Hashable, bytes]:
    """Return the value that bytes begin with, and the bytes after it."""
    kind = key[:1]
    size, colon, rest = key[1:].partition(b":")
    length = int(size)
    if kind == b"t":
        parts: list[Hashable] = []
        for _ in range(length):
            part, rest = _decoded(rest)
            parts.append(part)
        return tuple(parts), rest
    text, rest = rest[:length], rest[length:]
    if not colon or len(text) != length:
        raise ValueError(f"{key!r} is cut off")
    if kind == b"s":
        return text.decode("utf-8", "surrogatepass"), rest
    if kind == b"b":
        return text, rest
    if kind == b"n":
        return None, rest
    return (float(text) if kind == b"f" else int(text)), rest


class HostNodes:
    """Nodes with a block in a host's memory, by id.

    A block belongs to a node for as long as a process has it, and until another node needs it.

    Args:
        memory: Where they are.

    Thread-safety: a lock of the process's, and one of the file; held for moments.

    Cost: O(1) amortised; O(nodes) where all blocks have been used.
    """

    def __init__(self, memory: HostMemory) -> None:
        self.memory = memory
        self._known: dict[bytes, int] = {}
        self._renewals = 0
        # Re-entrant: the collector may strike while it is held.
        self._lock = RLock()

    def take(self, key: bytes) -> int | None:
        """Return the number of a node's block, held by this process; ``None`` if there is none."""
        locks = self.memory.locks
        with self._lock:
            if locks is None:
                return self._take(key)
            until = time.monotonic() + _PATIENCE
            while not locks.take(NODES):
                if time.monotonic() > until:  # whoever has it is frozen
                    return None
                time.sleep(_PAUSE)
            try:
                return self._take(key)
            finally:
                locks.free(NODES)

    def _take(self, key: bytes) -> int | None:
        self._refresh()
        memory, index = self.memory, self._known.get(key)
        if index is None:
            index = self._add(key)
            if index is None:
                return None
        elif not self._is_held(index):
            self._clear(index)  # nobody has known it for a while
        memory.raw[self._holds(index) + memory.row] = 1
        return index

    def items(self) -> dict[bytes, int]:
        """Return all nodes that some process has, by their keys."""
        with self._lock:
            self._refresh()
            return {key: index for key, index in self._known.items() if self._is_held(index)}

    def _refresh(self) -> None:
        memory = self.memory
        layout, used = memory.layout, memory.used
        renewals = memory.words[layout.renewed // 8]
        if renewals != self._renewals or used < len(self._known):
            self._known = {}
            self._renewals = renewals
        raw = memory.raw
        for index in range(len(self._known), used):
            place = layout.key_of(index)
            size = min(raw[place], _LONGEST)
            key = raw[place + 8 : place + 8 + size].tobytes()
            if key in self._known:  # forged: nobody writes a key twice
                key += b"\0%d" % index
            self._known[key] = index

    def _add(self, key: bytes) -> int | None:
        memory = self.memory
        layout, index, renews = memory.layout, memory.used, False
        if index >= layout.nodes:
            free = next((i for i in range(layout.nodes) if not self._is_held(i)), None)
            if free is None:
                return None
            index, renews = free, True
        if not self._is_allocated(index):
            return None
        place = layout.key_of(index)
        self._clear(index)
        if renews:
            # Before the key: who dies in between leaves a block of no node.
            memory.words[layout.renewed // 8] += 1
            self._known = {known: i for known, i in self._known.items() if i != index}
            self._renewals = memory.words[layout.renewed // 8]
        memory.raw[place : place + KEY] = bytes([len(key)]).ljust(8, b"\0") + key.ljust(
            _LONGEST, b"\0"
        )
        if not renews:
            memory.words[layout.used // 8] = index + 1
        self._known[key] = index
        return index

    def _is_allocated(self, index: int) -> bool:
        """Have room made for a node on the disk; ``False`` if it is full."""
        memory = self.memory
        if memory.locks is None:
            return True
        layout = memory.layout
        with suppress(OSError):
            os.posix_fallocate(memory.locks.file, layout.key_of(index), KEY)
            os.posix_fallocate(memory.locks.file, layout.block_of(index), layout.block)
            return True
        return False

    def _holds(self, index: int) -> int:
        return self.memory.layout.block_of(index) + self.memory.layout.holds

    def _is_held(self, index: int) -> bool:
        place = self._holds(index)
        return any(self.memory.raw[place : place + self.memory.layout.rows].tobytes())

    def _clear(self, index: int) -> None:
        layout = self.memory.layout
        place = layout.block_of(index)
        self.memory.raw[place : place + layout.block] = bytes(layout.block)
