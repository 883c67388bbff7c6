"""Files: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread

import pytest

from loadwise.cli.files import check_writable, write_whole


def write(path: Path, content: str) -> None:
    """Write text."""
    path.write_text(content)


def test_new_file(tmp_path: Path) -> None:
    """It is there, and nothing else is."""
    write_whole(tmp_path / "out.json", write, "all of it")
    assert (tmp_path / "out.json").read_text() == "all of it"
    assert [*tmp_path.iterdir()] == [tmp_path / "out.json"]


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_old_file_stays_when_writing_fails(tmp_path: Path, kind: type[BaseException]) -> None:
    """Half a file is never seen under its name, and is not left under another."""
    target = tmp_path / "out.json"
    target.write_text("old")

    def fail(path: Path, content: str) -> None:
        path.write_text(content[:4])
        raise kind

    with pytest.raises(kind):
        write_whole(target, fail, "new and long")
    assert target.read_text() == "old"
    assert [*tmp_path.iterdir()] == [tmp_path / "out.json"]


def test_old_file_is_seen_until_the_new_one_is_complete(tmp_path: Path) -> None:
    """A reader in the meantime finds the old one."""
    target = tmp_path / "out.json"
    target.write_text("old")

    def look(path: Path, content: str) -> None:
        path.write_text(content)
        assert target.read_text() == "old"

    write_whole(target, look, "new")
    assert target.read_text() == "new"


def test_permissions_and_links_are_kept(tmp_path: Path) -> None:
    """The file that a link leads to is replaced, and not the link."""
    target, link = tmp_path / "real.json", tmp_path / "link.json"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_whole(link, write, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_pipe_is_written_to(tmp_path: Path) -> None:
    """A pipe is not replaced by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_writable(pipe)
    read: list[str] = []
    reader = Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_whole(pipe, write, "through the pipe")
    reader.join(30)
    assert read == ["through the pipe"]
    assert pipe.is_fifo()


def test_check_leaves_no_trace(tmp_path: Path) -> None:
    """The check whether a file can be written does not write it."""
    (tmp_path / "old").write_text("old")
    check_writable(tmp_path / "old")
    check_writable(tmp_path / "new")
    assert [*tmp_path.iterdir()] == [tmp_path / "old"]
    assert (tmp_path / "old").read_text() == "old"


def test_what_cannot_be_written(tmp_path: Path) -> None:
    """Each message names the file and what to do."""
    with pytest.raises(OSError, match="is a folder; name a file in it"):
        check_writable(tmp_path)
    with pytest.raises(OSError, match="in no folder that exists; make it first"):
        check_writable(tmp_path / "none" / "out.json")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that takes no files")
def test_folder_that_takes_no_files() -> None:
    """Permissions may allow what the file system does not."""
    with pytest.raises(OSError, match=r"cannot be written: .*; name another folder"):
        check_writable(Path("/proc/out.json"))
