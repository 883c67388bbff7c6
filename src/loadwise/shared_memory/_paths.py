"""Names of hosts' pictures, and the files that they mean."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from loadwise._numbers import shown

__all__ = ["known_names", "name_of", "path_of"]

_LONGEST_NAME: Final = 200
_IN_MEMORY: Final = "/dev/shm"  # noqa: S108 - it is made for that, and whose the files are is checked


def path_of(path_or_name: object) -> str:
    """Return the file that a name or a path means.

    Raises:
        TypeError: It is neither.
        ValueError: It cannot be one, or its folder is missing.
    """
    asked = shown(path_or_name)
    if not isinstance(path_or_name, (str, os.PathLike)):
        raise TypeError(f"path_or_name is {asked}; it must be a str or a path")
    text: str | bytes = os.fspath(path_or_name)
    if not isinstance(text, str):
        raise TypeError(f"path_or_name is {asked}; it must be text, not bytes")
    is_name = isinstance(path_or_name, str) and not any(
        each in text for each in (os.sep, os.altsep) if each
    )
    if not text or "\0" in text or (is_name and text in (".", "..")):
        raise ValueError(f"path_or_name is {asked}; it must be a name, or a path")
    if is_name:
        if len(os.fsencode(text)) > _LONGEST_NAME:
            raise ValueError(f"path_or_name is {asked}; a name has at most {_LONGEST_NAME} bytes")
        text = str(_folder() / f"{_prefix()}{text}")
    path = Path(os.path.abspath(text))  # noqa: PTH100 - a link at the end is not to be followed
    if not path.parent.is_dir():
        raise ValueError(
            f"path_or_name is {asked}, but there is no folder {str(path.parent)!r}; "
            f"make it, or give a name, which is kept in {str(_folder())!r}"
        )
    return str(path.parent.resolve() / path.name)


def _folder() -> Path:
    """Return where names are kept."""
    if Path(_IN_MEMORY).is_dir() and os.access(_IN_MEMORY, os.W_OK | os.X_OK):
        return Path(_IN_MEMORY)
    return Path(tempfile.gettempdir())


def _prefix() -> str:
    """Return what the files of this user's names begin with."""
    user = f"{os.geteuid()}-" if hasattr(os, "geteuid") else ""
    return f"loadwise-{user}"


def name_of(path: str) -> str:
    """Return the name that means a file; the path itself, where no name does."""
    file = Path(path)
    if file.parent == _folder().resolve() and file.name.startswith(_prefix()):
        return file.name[len(_prefix()) :]
    return path


def known_names() -> list[str]:
    """Return the names of this user that have files. O(files in the folder)."""
    prefix = _prefix()
    with suppress(OSError):
        found = sorted(each.name for each in _folder().iterdir() if each.name.startswith(prefix))
        return [each[len(prefix) :] for each in found]
    return []
