"""Writing the report: all of it or nothing, and a word on what is missing."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from pathlib import Path

import pytest
from tests.simulation.report.made import few_servers, many_servers

from loadwise.simulation.report import render, write_report


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    """The file holds the page, and nothing is left beside it."""
    path = tmp_path / "report.html"
    write_report(path, few_servers())
    assert path.read_text(encoding="utf-8") == render(few_servers())
    write_report(str(path), many_servers())
    assert path.read_text(encoding="utf-8") == render(many_servers())
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks finds the old report, and no half of a new one."""
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_report(path, many_servers())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_followed(tmp_path: Path) -> None:
    """The link stays, and what it leads to is the report."""
    target, link = tmp_path / "target.html", tmp_path / "link.html"
    link.symlink_to(target)
    write_report(link, many_servers())
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    """It is not replaced by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=write_report, args=(pipe, many_servers()))
    writer.start()
    received = pipe.read_text(encoding="utf-8")
    writer.join()
    assert received == render(many_servers())
    assert pipe.is_fifo()


def test_without_plotly_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the extra, as with the integrations."""
    for name in [name for name in sys.modules if name.startswith("loadwise.simulation.report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ImportError, match=r"needs plotly: pip install 'loadwise\[simulation\]'"):
        importlib.import_module("loadwise.simulation.report")
