"""Paths that stay below the base path of a node, however they are spelled.

A path that is put behind a base path must not lead out of it again: servers resolve dot segments,
some after they have decoded the path, some with a backslash for a separator, and some without the
parameters of a segment (``/..;x=1/``). So dot segments are resolved before, in every spelling.
"""

from __future__ import annotations

import re

__all__ = ["confined"]

_SEPARATOR = re.compile(r"(/|\\|%2f|%5c)", re.IGNORECASE)
_PARAMETER = re.compile(r";|%3b", re.IGNORECASE)
_DOT = re.compile(r"%2e", re.IGNORECASE)
_DOT_SEGMENT = re.compile(
    r"(?:^|/|\\|%2f|%5c)(?:\.|%2e){1,2}(?=$|/|\\|%2f|%5c|;|%3b)", re.IGNORECASE
)


def confined(path: str) -> str:
    """Return a path without its dot segments; those that lead out of the root are dropped.

    All else of it stays as it is. Cost: O(length).

    Source: RFC 3986, section 5.2.4, for plain dot segments.

    Args:
        path: A path as it is sent, without the query.

    Example:
        >>> confined("/a/../../admin"), confined("/%2e%2e%5C..;v=1/admin"), confined("/a.b/..c")
        ('/admin', '/admin', '/a.b/..c')
    """
    if _DOT_SEGMENT.search(path) is None:
        return path
    rest = path.removeprefix("/")
    pieces = _SEPARATOR.split(rest)
    kept: list[str] = []  # each segment with the separator before it
    name = ""
    for separator, segment in zip(["", *pieces[1::2]], pieces[::2], strict=True):
        name = _DOT.sub(".", _PARAMETER.split(segment, 1)[0])
        if name == "..":
            del kept[-1:]
        elif name != ".":
            kept.append(separator + segment)
    # A dot segment at the end stands for a directory.
    joined = "".join(kept) + ("/" if name in (".", "..") else "")
    first = _SEPARATOR.match(joined)
    return path[: len(path) - len(rest)] + (joined if first is None else joined[first.end() :])
