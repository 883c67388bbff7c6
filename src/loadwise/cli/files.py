"""Files for results: refused before the work begins, and never seen half-written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

__all__ = ["check_writable", "write_whole"]

T = TypeVar("T")


def check_writable(path: Path) -> None:
    """Find out whether a file can be written, without touching it.

    Raises:
        OSError: It cannot; the message says why.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; name a file in it")
    if path.exists():
        if not os.access(path, os.W_OK):
            raise PermissionError(f"{str(path)!r} is write-protected; name another file")
        if not path.is_file():
            return
    folder = path.resolve().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{str(path)!r} is in no folder that exists; make it first")
    try:
        # Permissions do not tell of file systems that are mounted read-only.
        beside = _beside(path)
        beside.touch(exist_ok=False)
        beside.unlink()
    except OSError as error:
        raise PermissionError(
            f"{str(path)!r} cannot be written: {error.strerror}; name another folder"
        ) from None


def write_whole(path: Path, write: Callable[[Path, T], object], content: T) -> None:
    """Write a file under another name, and give it its own when it is complete.

    Whoever looks finds the old file or the new one, and after an error or Ctrl-C the old one.
    What is no regular file, such as a pipe, is written as it is.

    Args:
        path: The file; a link is followed, and permissions are kept.
        write: Writes content to the path that it is given.
        content: The content.

    Raises:
        OSError: It cannot be written.
    """
    if path.exists() and not path.is_file():
        write(path, content)
        return
    target = path.resolve()
    beside = _beside(target)
    try:
        write(beside, content)
        if target.exists():
            shutil.copymode(target, beside)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    target = path.resolve()
    # The suffix stays last, for writers that go by it.
    return target.with_name(f".{target.stem[:100]}-{os.getpid()}{target.suffix}")
