"""Source that is a file: TOML or JSON, read again whenever it changes."""

from __future__ import annotations

import json
import os
import stat
import threading
import tomllib
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from loadwise._numbers import finite, shown
from loadwise._threads import threads_are_greenlets
from loadwise.discovery.source import Feed, Found, SourceError
from loadwise.errors import nearest
from loadwise.node_list import NodeListError, nodes_in
from loadwise.nodes import Endpoint

__all__ = ["FileSource"]

Signature: TypeAlias = tuple[int, ...] | None

_MOST_BYTES: Final = 64 * 1024 * 1024
_SETTLE: Final = 0.05
"""Seconds for which a file that changes must have been left alone before it is read."""
_MOST_SETTLING: Final = 20
"""Looks at a file that is written all the time, until it is read all the same."""


class FileSource:
    """Nodes that a TOML or JSON file lists.

    Args:
        path: The file: JSON if its name ends with ``.json``, else TOML. It need not be there yet.
        interval: Seconds between two looks at it, finite and > 0. With watchfiles, changes
            are seen at once besides: ``pip install 'loadwise[files]'``.

    Raises:
        TypeError: ``path`` is no path, or ``interval`` is not a number.
        ValueError: The name says that it is YAML, or ``interval`` is out of range.

    The file holds ``nodes`` alone: a list of ids, such as ``"10.0.0.1:8080"``, or of tables with
    an ``id`` and any of ``weight``, ``zone``, ``priority`` and ``tags``. Each becomes an
    `Endpoint`. A file that is wrong in any way, or is gone, changes nothing: the log says what is
    wrong with it, once, and it is read again when it has changed.

    Replace it by a rename (``mv nodes.new nodes.toml``), so that nobody ever reads half of it. A
    file that is written in place is read when it has been left alone for 50 ms. Links are
    followed, so ConfigMaps of Kubernetes will do.

    Thread-safety: immutable.

    Cost: one ``stat`` per look, and O(n) when the file has changed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "nodes.toml")
        ...     _ = path.write_text('nodes = ["10.0.0.1:80", {id = "10.0.0.2:80", weight = 2}]')
        ...     [node.weight for node in FileSource(path).open().fetch().nodes]
        [1, 2]
    """

    def __init__(self, path: str | os.PathLike[str], interval: float = 1.0) -> None:
        try:
            self._path = Path(path)
        except TypeError:
            raise TypeError(f"path is {shown(path)}; it must be the path of a file") from None
        if self._path.suffix.lower() in {".yaml", ".yml"}:
            raise ValueError(
                f"path is {str(path)!r}, which is YAML by its name; a file of nodes is TOML or JSON"
            )
        seconds = finite("interval", interval)
        if not seconds > 0:
            raise ValueError(
                f"interval is {interval!r}; it must be a finite number of seconds above 0"
            )
        self._interval = seconds

    def open(self) -> Feed[Endpoint]:
        """Return a new feed."""
        return _FileFeed(self._path, self._interval)

    def __repr__(self) -> str:
        return f"FileSource({str(self._path)!r})"


class _FileFeed:
    """Feed of one file."""

    def __init__(self, path: Path, interval: float) -> None:
        self._path = path
        self._interval = interval
        self._is_first = True
        self._content: bytes | None = None
        self._fault: str | None = None  # why there is no content
        self._read_as: Signature = None
        # What the file lists as it was last read, unless that was wrong.
        self._found: Found[Endpoint] | None = None
        # Whether it is read once more at the next look, whatever the file system says of it: one
        # that is written twice within a tick of its clock looks the same afterwards.
        self._once_more = False
        self._closed = threading.Event()
        self._news: Generator[object, None, None] | None = None

    def fetch(self) -> Found[Endpoint]:
        """Return what the file lists: at first at once, later when it has been looked at again.

        While nothing has changed that is the same `Found`, for the file is as it should be.

        Raises:
            SourceError: It cannot be read, or is wrong. That is said once for each content.
        """
        if self._is_first:
            self._is_first = False
            return self._read()
        while not self._closed.is_set():
            self._wait()
            signature = self._signature()
            is_same = signature == self._read_as
            was_unreadable = self._content is None and signature is not None
            if not is_same or self._once_more or was_unreadable:
                self._once_more = not is_same
                if not is_same:
                    signature = self._settled(signature)
                before = self._content, self._fault
                self._content, self._fault = self._bytes(signature)
                if (self._content, self._fault) != before:
                    return self._parsed()
            if self._found is not None and not self._closed.is_set():
                return self._found
        raise SourceError(f"{self._path}: the watcher was stopped")

    def close(self) -> None:
        """Let go of the file."""
        self._closed.set()

    def _read(self) -> Found[Endpoint]:
        self._content, self._fault = self._bytes(self._signature())
        return self._parsed()

    def _wait(self) -> None:
        """Wait for news of the file, but not long, because not every file system has any."""
        if self._news is None:
            self._news = _notices(self._path.parent, self._interval, self._closed)
        if self._news is None:
            self._closed.wait(self._interval)
            return
        try:
            next(self._news)
        except (StopIteration, OSError, RuntimeError):  # the folder is gone, or may not be watched
            self._news = None
            self._closed.wait(self._interval)

    def _settled(self, signature: Signature) -> Signature:
        """Wait until the file is left alone, and return what it looks like then."""
        for _ in range(_MOST_SETTLING):
            self._closed.wait(_SETTLE)
            before, signature = signature, self._signature()
            if signature == before:
                break
        return signature

    def _signature(self) -> Signature:
        """Return what tells one state of the file from another; ``None`` if it is not there."""
        try:
            found = self._path.stat()
        except (OSError, ValueError):
            return None
        return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev)

    def _bytes(self, signature: Signature) -> tuple[bytes | None, str | None]:
        """Read the file, and return its content, or what is wrong."""
        self._read_as = signature
        try:
            if not stat.S_ISREG(self._path.stat().st_mode):
                return None, "it is not a regular file"
            with self._path.open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            return None, f"it cannot be read: {reason}"
        if len(content) > _MOST_BYTES:
            return None, f"it has more than {_MOST_BYTES // 2**20} MiB"
        return content, None

    def _parsed(self) -> Found[Endpoint]:
        self._found = None
        if self._content is None:
            raise SourceError(f"{self._path}: {self._fault}", again=0.0)
        try:
            self._found = Found(_nodes(self._path, self._content))
        except NodeListError as error:
            raise SourceError(str(error), again=0.0) from None
        return self._found


def _nodes(path: Path, content: bytes) -> tuple[Endpoint, ...]:
    table = _table(path, content)
    for key in table:
        if key != "nodes":
            raise NodeListError(
                f"{path}: there is no key {shown(key)}{nearest(key, ['nodes'])} (a file of nodes "
                f"has the key nodes alone)"
            )
    if "nodes" not in table:
        raise NodeListError(f'{path}: there are no nodes; write nodes = ["10.0.0.1:8080"]')
    return nodes_in(table["nodes"], origin=str(path))


def _table(path: Path, content: bytes) -> dict[str, Any]:
    is_json = path.suffix.lower() == ".json"
    try:
        text = content.decode("utf-8-sig")
        raw: object = json.loads(text) if is_json else tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise NodeListError(f"{path}, line {line}: this is not UTF-8") from None
    except RecursionError:
        raise NodeListError(f"{path}: its lists are nested too deeply") from None
    except ValueError as error:
        kind = "JSON" if is_json else "TOML"
        raise NodeListError(f"{path}: this is not {kind}: {error}") from None
    if not isinstance(raw, dict):
        raise NodeListError(
            f'{path} holds {shown(raw)}; it must be a table, such as {{"nodes": []}}'
        )
    return cast("dict[str, Any]", raw)


def _notices(
    folder: Path, interval: float, stop: threading.Event
) -> Generator[object, None, None] | None:
    """Return what yields whenever something in a folder has changed, or the interval is over.

    There is nothing of that without watchfiles; and with gevent, whose greenlets would all wait.
    """
    if threads_are_greenlets():
        return None
    try:
        from watchfiles import watch  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    try:
        return watch(
            folder,
            watch_filter=None,
            debounce=50,
            step=25,
            stop_event=stop,
            rust_timeout=max(1, int(interval * 1000)),
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=False,
        )
    except (OSError, RuntimeError):
        return None
