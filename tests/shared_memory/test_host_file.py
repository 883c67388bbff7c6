"""The file of a host's picture: whose it is, and what becomes of one that is damaged."""

from __future__ import annotations

import logging
import math
import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.shared_memory.workers import worker

from loadwise import Balancer, PeakEwma, PowerOfTwoChoices
from loadwise.shared_memory import HostState
from loadwise.shared_memory._exchange import HostExchange
from loadwise.shared_memory._layout import VERSION
from loadwise.shared_memory._locks import NODES, ByteLocks
from loadwise.shared_memory._node_table import key_of
from loadwise.testing import ManualClock


def works(host: HostState) -> bool:
    """Tell whether a balancer does its work with such a host."""
    balancer = Balancer(["a", "b"], host=host)
    with balancer.acquire():
        return sum(each.in_flight for each in balancer.status()) == 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"something else", "no file of loadwise"),
        (b"loadwise" + struct.pack("<I", 99).ljust(9000, b"\1"), "another release"),
    ],
)
def test_a_file_of_others_is_left_alone(
    path: Path, caplog: pytest.LogCaptureFixture, content: bytes, why: str
) -> None:
    """It is never written to; one warning names it, and the process works alone."""
    path.write_bytes(content)
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING, "loadwise"):
        host = HostState(path)
        assert works(host)
    assert not host.is_shared
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o644
    (record,) = caplog.records
    assert why in record.getMessage()
    assert str(path) in record.getMessage()


def test_links_and_folders_are_refused(path: Path, tmp_path: Path) -> None:
    """What a link leads to is not touched."""
    target = tmp_path / "target"
    target.write_bytes(b"")
    path.symlink_to(target)
    assert not HostState(path).is_shared
    assert target.read_bytes() == b""
    assert not HostState(tmp_path / ".." / tmp_path.name).is_shared


@pytest.mark.parametrize("content", [b"", bytes(100_000), b"loadwise" + bytes([VERSION, 0, 0, 0])])
def test_a_file_that_nobody_holds_is_built_anew(path: Path, content: bytes) -> None:
    """Truncated or zeroed, it is mended; and its mode is, too."""
    path.write_bytes(content)
    path.chmod(0o666)
    host = HostState(path)
    assert host.is_shared
    assert path.stat().st_mode & 0o777 == 0o600
    assert works(host)


def test_a_file_that_is_cut_while_it_is_held_ends_nobody(path: Path) -> None:
    """Whoever has it mapped works on, alone."""
    with worker(path, "a", "b") as one:
        one.tell("acquire", 3)
        os.truncate(path, 0)
        assert sum(one.tell("acquire", 1).values()) >= 1
        latest = time.monotonic() + 10
        while one.tell("shared"):
            one.tell("status")
            assert time.monotonic() < latest
            time.sleep(0.05)
        assert sum(one.tell("status").values()) == 4


def test_a_file_that_is_deleted_is_left_for_the_new_one(path: Path) -> None:
    """Processes that hold the old file meet those who come later, within a second."""
    with worker(path, "a") as one:
        one.tell("acquire", 2)
        path.unlink()
        with worker(path, "a") as other:
            latest = time.monotonic() + 10
            while other.tell("status") != {"a": 2}:
                one.tell("status")
                assert time.monotonic() < latest
                time.sleep(0.05)


def test_forged_numbers_do_not_last(path: Path) -> None:
    """What is no number, or none that can be, steers no pick for longer than a look takes."""
    balancer = Balancer(["a", "b"], PowerOfTwoChoices(load=PeakEwma()), host=HostState(path))
    with balancer.acquire(), balancer.acquire():
        size = path.stat().st_size
        with path.open("r+b") as file:
            header = file.read(1024)
            for value in (math.nan, math.inf, -math.inf, -1.0):
                file.seek(4096)
                file.write(struct.pack("<d", value) * ((min(size, 4_000_000) - 4096) // 8))
                file.flush()
                for _ in range(20):
                    balancer.acquire().success()
                    balancer.explain()
            file.seek(0)
            assert file.read(1024) == header
        latest = time.monotonic() + 10
        while sum(each.in_flight for each in balancer.status()) != 2:
            balancer.pick()
            assert time.monotonic() < latest
            time.sleep(0.05)


def test_a_full_table_is_told_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nodes beyond it are balanced alone."""
    host = HostState(path, max_nodes=2)
    with caplog.at_level(logging.WARNING, "loadwise"):
        balancer = Balancer([f"n{i}" for i in range(5)], host=host)
        leases = [balancer.acquire() for _ in range(5)]
    assert sum(each.in_flight for each in balancer.status()) == 5
    assert len(caplog.records) == 1
    assert "max_nodes" in caplog.text
    for lease in leases:
        lease.success()


def test_a_block_goes_to_another_node(path: Path) -> None:
    """Nodes that have left make room for those that come."""
    balancer = Balancer(["a", "b"], host=HostState(path, max_nodes=2))
    with worker(path) as other:
        assert other.answer == {}
        for number in range(20):
            balancer.replace([f"n{number}", f"m{number}"])
            with balancer.acquire():
                assert sum(each.in_flight for each in balancer.status()) == 1


def test_rows_that_are_all_taken_are_told(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who finds no row goes on alone."""
    with worker(path), caplog.at_level(logging.WARNING, "loadwise"):
        code = (
            "import sys; from loadwise.shared_memory import HostState;"
            "print(HostState(sys.argv[1], max_processes=1).is_shared)"
        )
        mine = HostState(path.with_name("other"), max_processes=1)
        assert mine.is_shared
        found = subprocess.run(
            [sys.executable, "-c", code, mine.path], capture_output=True, text=True, check=True
        )
    assert found.stdout.strip() == "False"
    assert "max_processes" in found.stderr


def test_arguments_are_checked(path: Path) -> None:
    """What cannot be is refused, and says what to do."""
    with pytest.raises(ValueError, match="must be at least 1"):
        HostState(path, max_nodes=0)
    with pytest.raises(ValueError, match="at most 4096"):
        HostState(path, max_processes=10_000)
    with pytest.raises(ValueError, match="no folder"):
        HostState(path / "missing" / "api")
    with pytest.raises(TypeError, match="path_or_name"):
        HostState(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"time\.monotonic"):
        Balancer(["a"], host=HostState(path), clock=ManualClock())
    with pytest.raises(TypeError, match="HostState"):
        Balancer(["a"], host="api")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give both the same"):
        HostState(path, max_nodes=7)


ids = st.recursive(
    st.text() | st.integers() | st.floats(allow_nan=False) | st.binary() | st.none(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)


@given(one=ids, other=ids)
def test_ids_have_the_same_key_if_they_are_equal(one: object, other: object) -> None:
    """And only then."""
    assert (key_of(one) == key_of(other)) is (one == other)


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root can become another user"
)
def test_a_file_of_another_user_is_refused(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Even where its mode lets everybody write: nothing is written, and the process works alone."""
    host = HostState(path)
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        other = Path(folder) / "api"
        other.write_bytes(path.read_bytes())
        other.chmod(0o666)
        refuse(other, caplog)
    assert host.is_shared


def refuse(other: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Have a child of another user try to share a file, and see that it does not."""
    content = other.read_bytes()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setuid(65_534)
            with caplog.at_level(logging.WARNING, "loadwise"):
                refused = HostState(other)
                told = f"{refused.is_shared} {works(refused)} {caplog.records[-1].getMessage()}"
            os.write(write, told.encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    told = os.read(read, 999).decode()
    os.close(read)
    os.close(write)
    assert told.startswith("False True"), told
    assert "it belongs to another user (uid 0)" in told
    assert other.read_bytes() == content


def test_others_that_are_adding_nodes_are_worth_a_warning_only_if_they_stay(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The next look adds what found the table busy; if that one does not, either, it says so."""
    exchange = HostExchange(str(path), 8, 64)
    others = ByteLocks(os.open(path, os.O_RDWR))
    with caplog.at_level(logging.WARNING, "loadwise"):
        assert others.take(NODES)
        first = exchange.cell("a")
        assert first.memory is not exchange.memory
        others.free(NODES)
        exchange.due = 0.0
        exchange.catch_up()
        assert first.memory is exchange.memory
        assert not caplog.records
        assert others.take(NODES)
        second = exchange.cell("b")
        exchange.due = 0.0
        exchange.catch_up()
        assert second.memory is not exchange.memory
    others.close()
    (record,) = caplog.records
    assert "others are adding" in record.getMessage()
