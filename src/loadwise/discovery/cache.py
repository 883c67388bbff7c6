"""Cache file: the last good answer of a source, kept over a restart."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from loadwise.discovery.source import SourceError
from loadwise.node_list import nodes_in
from loadwise.nodes import Endpoint

__all__ = ["CacheFile"]


class CacheFile:
    """A JSON file of nodes that says which source they came from.

    Args:
        path: Where it is. Its folder must be there.
        source: The source, in words; the nodes of another one are not taken.

    Not thread-safe. Several processes may share one: it is replaced whole, by a rename.
    """

    def __init__(self, path: Path, source: str) -> None:
        self._path = path
        self._source = source

    def read(self) -> tuple[Any, ...]:
        """Return its nodes; none if there is no such file, or it is another source's.

        Raises:
            SourceError: It is not what `write` makes.
            OSError: It cannot be read.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return ()
        try:
            raw = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{self._path} is not JSON: {error}") from None
        if not isinstance(raw, dict) or "nodes" not in raw:
            raise SourceError(f"{self._path} holds no nodes")
        table = cast("dict[str, Any]", raw)
        if table.get("source") != self._source:
            return ()
        nodes = nodes_in(table["nodes"], origin=str(self._path))
        return tuple(
            node.id if isinstance(entry, str) else node
            for node, entry in zip(nodes, table["nodes"], strict=True)
        )

    def write(self, nodes: Iterable[object]) -> None:
        """Replace its content. O(n).

        Raises:
            OSError: It cannot be written.
            TypeError: The nodes are neither texts nor endpoints.
        """
        text = json.dumps({"source": self._source, "nodes": [*map(_entry, nodes)]})
        handle, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise


def _entry(node: object) -> object:
    if isinstance(node, str):
        return node
    if type(node) is not Endpoint or not isinstance(node.id, str):
        raise TypeError(
            f"a node is a {type(node).__name__}; a cache file can hold texts, and endpoints whose "
            f"id is a text"
        )
    entry: dict[str, object] = {"id": node.id, "weight": node.weight, "priority": node.priority}
    if node.zone is not None:
        entry["zone"] = node.zone
    if node.tags:
        entry["tags"] = dict(node.tags)
    return entry
