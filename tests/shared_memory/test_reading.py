"""Reading of a host's file: what is told of it, and that nothing comes of it."""

from __future__ import annotations

import json
import os
import signal
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.shared_memory.workers import until, worker

from loadwise import Balancer, HealthStatus, PeakEwma, PowerOfTwoChoices
from loadwise.shared_memory import HostFileError, HostState, read_host
from loadwise.shared_memory._layout import MemoryLayout
from loadwise.shared_memory._node_table import id_of, key_of


def test_all_processes_are_told(path: Path) -> None:
    """Who takes part, what each has in flight, what it costs, and what is down."""
    with worker(path, "a", "b", measure="ewma") as one, worker(path, "b", "c") as other:
        one.tell("acquire", 3)
        counts = one.tell("acquire", 1)
        other.tell("acquire", 2)
        one.tell("succeed", "a")
        one.tell("fail", "b")
        status = read_host(path)
        assert [each.pid for each in status.processes] == [one.process.pid, other.process.pid]
        assert [(each.in_flight, each.nodes) for each in status.processes] == [(2, 2), (2, 2)]
        assert all(each.is_alive and each.seconds > 0 for each in status.processes)
        assert status.name == status.path == str(path)
        assert status.in_flight == 4
        nodes = {node.id: node for node in status.nodes}
        assert set(nodes) == {"a", "b", "c"}
        assert nodes["a"].by_process == (counts["a"] - 1, 0)
        assert nodes["c"].by_process[0] == 0
        assert nodes["b"].health is HealthStatus.UNHEALTHY
        assert nodes["b"].state_seconds is not None
        assert nodes["b"].consecutive_failures == 1
        assert nodes["a"].health is HealthStatus.HEALTHY
        assert nodes["a"].cost is not None
        assert nodes["a"].state_seconds is nodes["c"].cost is None
        assert json.loads(json.dumps(status.to_dict()))["nodes"][0]["health"] == "HEALTHY"


def test_costs_and_ages_are_those_of_the_balancer(path: Path) -> None:
    """What a reader works out of the file is what a pick goes by."""
    balancer = Balancer(["a"], PowerOfTwoChoices(load=PeakEwma()), host=HostState(path))
    balancer.acquire().success()
    waiting = balancer.acquire()
    (node,) = read_host(path).nodes
    explained = balancer.explain().seen["a"]["load"]
    assert node.cost is not None
    assert node.oldest is not None
    assert 0 < node.oldest < 60
    assert max(2 * node.cost, node.oldest) == pytest.approx(explained, rel=0.2, abs=0.05)
    waiting.first_byte()
    assert read_host(path).nodes[0].oldest is None
    waiting.success()


def test_the_dead_are_told_apart_and_the_frozen_are_not(path: Path) -> None:
    """What a dead process had in flight does not count, before anybody has cleared its row."""
    with worker(path, "a", "b") as one:
        one.tell("acquire", 2)
        one.signal(signal.SIGSTOP)
        (process,) = read_host(path).processes
        assert (process.is_alive, process.in_flight) == (True, 2)
        one.signal(signal.SIGKILL)
        until(lambda: not read_host(path).processes[0].is_alive)
        status = read_host(path)
        assert (status.processes[0].in_flight, status.nodes, status.in_flight) == (0, (), 0)


def test_nothing_comes_of_it(path: Path) -> None:
    """No byte is written, no row is taken, and no file is made."""
    with pytest.raises(HostFileError, match="there is no file"):
        read_host(path)
    assert not path.exists()
    with worker(path, "a"):
        path.chmod(0o640)
        before, found = path.read_bytes(), path.stat()
        for _ in range(3):
            read_host(path)
        after = path.stat()
        assert path.read_bytes() == before
        assert (after.st_mtime_ns, after.st_mode) == (found.st_mtime_ns, found.st_mode)
        assert len(read_host(path).processes) == 1


def test_a_name_is_found_and_a_wrong_one_gets_the_nearest() -> None:
    """Names mean files of this user."""
    name = f"reading-{os.getpid()}"
    host = HostState(name)
    if not host.is_shared:
        pytest.skip("this system cannot share")
    try:
        assert read_host(name).name == name
        with pytest.raises(HostFileError, match=f"did you mean '{name}'"):
            read_host(f"{name}x")
    finally:
        host.close()
        Path(host.path).unlink()


def _forge_version(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8)
        file.write(struct.pack("<I", 99))


def _forge_boot(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(24)
        file.write(b"another")


def _link(path: Path) -> None:
    path.rename(path.with_name("target"))
    path.symlink_to(path.with_name("target"))


def _to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _to_other(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file away")
    os.chown(path, 12_345, -1)


def _writes(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def _cut(path: Path) -> None:
    os.truncate(path, 20_000)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_forge_version, "another release of loadwise (layout 99, here 3)"),
        (_forge_boot, "another boot of this host"),
        (_link, "it is a link"),
        (_to_folder, "is no regular file"),
        (_to_pipe, "is no regular file"),
        (_to_other, "belongs to another user (uid 12345); ask as that user"),
        (_writes(b""), "is empty"),
        (_writes(b"something else"), "is no file of loadwise"),
        (_writes(bytes(10_000)), "is no file of loadwise"),
        (_cut, "is damaged: it has not the size that it says"),
    ],
)
def test_other_files_are_refused(path: Path, spoil: Callable[[Path], None], why: str) -> None:
    """The error names the file, and says what it is."""
    HostState(path).close()
    spoil(path)
    with pytest.raises(HostFileError) as raised:
        read_host(path)
    assert why in str(raised.value)
    assert repr(str(path)) in str(raised.value)


@settings(max_examples=50)
@given(st.data())
def test_a_damaged_file_is_an_error_or_a_picture(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever is written over it, what comes is finite, or a HostFileError."""
    layout = MemoryLayout(8, 4)
    places = [0, layout.used, layout.records, layout.keys, layout.blocks, layout.blocks]
    # All is drawn first: an example that is given up in between would drop the leases.
    damage: list[tuple[int, bytes]] = []
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.sampled_from(places))
        place = start + data.draw(st.integers(0, 127 if start else 30)) * 8
        damage.append((place, data.draw(st.binary(min_size=8, max_size=64))))
    path = tmp_path_factory.mktemp("host") / "api"
    host = HostState(path, max_processes=8, max_nodes=4)
    if not host.is_shared:
        pytest.skip("this system cannot share")
    balancer = Balancer(["a", "b"], PowerOfTwoChoices(load=PeakEwma()), host=host)
    leases = [balancer.acquire() for _ in range(3)]
    with path.open("r+b") as file:
        for place, written in damage:
            file.seek(place)
            file.write(written)
    try:
        told = read_host(path).to_dict()
    except HostFileError:
        pass
    else:
        json.dumps(told, allow_nan=False)
        assert all(0 <= node["in_flight"] < 2**40 for node in told["nodes"])
    for lease in leases:
        lease.success()
    host.close()


ids = st.recursive(
    st.text(max_size=8) | st.binary(max_size=8) | st.integers() | st.floats(allow_nan=False)
    | st.none(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)  # fmt: skip


@settings(max_examples=50)
@given(ids)
def test_ids_come_back_from_their_keys(node_id: object) -> None:
    """Those that are not too long for a key."""
    key = key_of(node_id)
    assert key is not None
    assert len(key) == 120 or id_of(key) == node_id


@given(st.binary(max_size=120) | st.from_regex(rb"[stfin]-?[0-9]{1,3}:[stifn0-9:]{0,60}"))
def test_forged_keys_have_a_text(key: bytes) -> None:
    """No key makes the reader fail."""
    hash(id_of(key))
