"""A file of nodes: what it may hold, and every way in which it can be replaced or be wrong."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.discovery.support import TIMEOUT, ids, logged, until, until_nodes

from loadwise import Balancer, Endpoint
from loadwise.discovery import FileSource, SourceError, Watcher
from loadwise.discovery import file_source as module

NODES = (
    Endpoint("a:80"),
    Endpoint("b:80", weight=2.5, zone="eu-1", priority=1, tags={"rack": "r1"}),
)
TOML = """
nodes = [
    "a:80",
    {id = "b:80", weight = 2.5, zone = "eu-1", priority = 1, tags = {rack = "r1"}},
]
"""
JSON = """{"nodes": ["a:80",
  {"id": "b:80", "weight": 2.5, "zone": "eu-1", "priority": 1, "tags": {"rack": "r1"}}]}"""


@pytest.fixture(params=[True, False], ids=["watchfiles", "polled"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> Path:
    """A file that is there, with notices of watchfiles or without."""
    if request.param:
        pytest.importorskip("watchfiles")
    else:
        monkeypatch.setattr(module, "_notices", lambda *_: None)
    path = tmp_path / "nodes.toml"
    path.write_text('nodes = ["a", "b"]')
    return path


def source(path: Path) -> FileSource:
    """A source that looks often."""
    return FileSource(path, interval=0.01)


def replace(path: Path, content: str) -> None:
    """Replace a file by a rename."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(content)
    fresh.rename(path)


@pytest.mark.parametrize(("name", "content"), [("n.toml", TOML), ("n.json", JSON), ("n", TOML)])
def test_toml_and_json_say_the_same(tmp_path: Path, name: str, content: str) -> None:
    """Ids and tables, side by side; a byte order mark is no harm."""
    path = tmp_path / name
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text(content, encoding=encoding)
        assert FileSource(str(path)).open().fetch().nodes == NODES


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("n.toml", "", "there are no nodes; write nodes ="),
        ("n.toml", "nodes = [", "this is not TOML: "),
        ("n.toml", 'nodes = ["a"]\nzone = "z"', "there is no key 'zone' (a file of nodes has"),
        ("n.toml", 'node = ["a"]', "there is no key 'node'; did you mean 'nodes'?"),
        ("n.toml", "nodes = [1]", "nodes[0] is 1; it must be an id in quotes"),
        ("n.toml", '[[nodes]]\nid = "a"\n[[nodes]]\nid = "a"', "nodes[1] has the id 'a', as"),
        ("n.toml", '[[nodes]]\nid = "a"\nwight = 2', "nodes[0] has no key 'wight'; did you mean"),
        ("n.toml", b"nodes = [\n'\xff']", "line 2: this is not UTF-8"),
        ("n.toml", "nodes = " + "[" * 5_000, "n.toml: "),
        ("n.json", "", "this is not JSON: "),
        ("n.json", '["a"]', "holds ['a']; it must be a table"),
        ("n.json", '{"nodes": ["a",]}', "this is not JSON: "),
        ("n.json", "[" * 100_000, "n.json: its lists are nested too deeply"),
        ("n.json", '{"nodes": ["a\\u001b[2J"]}', "which has '\\x1b' at position 1"),
        ("n.json", '{"nodes": [{"id": "a", "weight": NaN}]}', "nodes[0].weight is nan"),
    ],
)
def test_a_file_that_is_wrong_says_where_and_what(
    tmp_path: Path, name: str, content: str | bytes, text: str
) -> None:
    """With its path; what is wrong is told once, and the last good nodes stay."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SourceError) as error:
        FileSource(path).open().fetch()
    assert text in str(error.value)
    assert str(path) in str(error.value)


def test_files_that_are_none_are_not_waited_for(tmp_path: Path) -> None:
    """Nor is a pipe, or a file without end."""
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    for path, text in (
        (tmp_path / "no.toml", "it cannot be read: No such file or directory"),
        (tmp_path, "it is not a regular file"),
        (pipe, "it is not a regular file"),
        (Path("/dev/zero"), "it is not a regular file"),
        (Path("/proc/self/mem"), "it cannot be read"),
        (Path("a\0b"), "it cannot be read"),
    ):
        with pytest.raises(SourceError, match=text):
            FileSource(path).open().fetch()


def test_a_file_that_changes_is_followed(path: Path) -> None:
    """By renames, by links, and in place; it may go, and come back."""
    balancer = Balancer[Any](["own"])
    with logged() as log, Watcher(balancer, source(path), debounce=0.0) as watcher:
        assert ids(balancer) == {"a", "b"}
        replace(path, 'nodes = ["b", "c"]')
        until_nodes(balancer, "b", "c")
        path.write_text('nodes = ["d", "c"]')
        until_nodes(balancer, "d", "c")
        path.unlink()
        until(lambda: watcher.status().error)
        assert ids(balancer) == {"d", "c"}
        replace(path, 'nodes = ["d", "c"]')
        until(lambda: watcher.status().error is None)
        replace(path, 'nodes = ["e", "c"]')
        until_nodes(balancer, "e", "c")
    assert len(log.having("No such file or directory; what there is, 2 nodes, stays")) == 1


def test_links_as_of_a_config_map_are_followed(path: Path) -> None:
    """Kubernetes replaces one link in the folder, and the file behind two links is another."""
    folder = path.parent
    for version, nodes in (("v1", '["a"]'), ("v2", '["b"]')):
        (folder / version).mkdir()
        (folder / version / "fleet.toml").write_text(f"nodes = {nodes}")
    (folder / "..data").symlink_to("v1")
    (folder / "fleet.toml").symlink_to(Path("..data", "fleet.toml"))
    balancer = Balancer[Any]([])
    with Watcher(balancer, source(folder / "fleet.toml"), debounce=0.0):
        assert ids(balancer) == {"a"}
        (folder / "..tmp").symlink_to("v2")
        (folder / "..tmp").rename(folder / "..data")
        until_nodes(balancer, "b")


def test_a_file_half_written_changes_nothing(path: Path) -> None:
    """What is wrong is logged once however long it stays so, and then the whole is read."""
    balancer = Balancer[Any]([])
    with logged() as log, Watcher(balancer, source(path), debounce=0.0) as watcher:
        path.write_text('nodes = ["c", "d", "e')
        until(lambda: watcher.status().error)
        assert ids(balancer) == {"a", "b"}
        path.write_text('nodes = ["c", "d", "e')
        path.write_text('nodes = ["c", "d", "e"]')
        until_nodes(balancer, "c", "d", "e")
    assert len(log.having("this is not TOML")) == 1


def test_a_folder_that_comes_later_is_no_trouble(tmp_path: Path) -> None:
    """Nor one that is removed and made again."""
    path = tmp_path / "later" / "nodes.toml"
    balancer = Balancer[Any](["own"])
    with logged(), Watcher(balancer, source(path), debounce=0.0):
        assert ids(balancer) == {"own"}
        for node in ("a", "b"):
            path.parent.mkdir()
            replace(path, f'nodes = ["{node}"]')
            until_nodes(balancer, node)
            path.unlink()
            path.parent.rmdir()
    assert ids(balancer) == {"b"}


def test_a_storm_of_renames_loses_nothing(path: Path) -> None:
    """Each state of the fleet that is seen was written whole, and the last one is what stays.

    Half of the writers' files are wrong.
    """
    stop, seen, wrong = threading.Event(), set[frozenset[Any]](), []
    path.write_text('nodes = ["n-0", "m-0"]')
    balancer = Balancer[Any]([])

    def look() -> None:
        while not stop.wait(0.001):
            seen.add(frozenset(node.id for node in balancer.nodes))
            picked = balancer.pick().id
            if not picked.startswith(("n-", "m-")):
                wrong.append(picked)

    with logged(), Watcher(balancer, source(path), debounce=0.0):
        looking = threading.Thread(target=look)
        looking.start()
        for number in range(1, 500):
            good = f'nodes = ["n-{number}", "m-{number}"]'
            replace(path, good[:-3] if number % 2 else good)
        replace(path, 'nodes = ["n-500", "m-500"]')
        until_nodes(balancer, "n-500", "m-500")
        stop.set()
        looking.join(TIMEOUT)
    assert wrong == []
    assert seen
    for state in seen:
        numbers = {identity.partition("-")[2] for identity in state}
        assert len(state) == 2
        assert len(numbers) == 1


def test_a_thousand_nodes_are_read_as_they_stand(tmp_path: Path) -> None:
    """Through a file and a watcher."""
    path = tmp_path / "nodes.json"
    path.write_text(json.dumps({"nodes": [f"10.0.0.{i}:80" for i in range(1_000)]}))
    balancer = Balancer[Any]([])
    with Watcher(balancer, FileSource(path)):
        assert [node.id for node in balancer.nodes] == [f"10.0.0.{i}:80" for i in range(1_000)]


WRONG: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: FileSource(3), TypeError, "path is 3; it must be the path of a file"),  # type: ignore[arg-type]
    (lambda: FileSource("n.yaml"), ValueError, "'n.yaml', which is YAML by its name"),
    (lambda: FileSource("n", interval=0), ValueError, "interval is 0; it must be a finite"),
]


@pytest.mark.parametrize(("make", "error", "text"), WRONG)
def test_wrong_arguments_are_refused_at_once(
    make: Callable[[], object], error: type[Exception], text: str
) -> None:
    """With the value and the remedy."""
    with pytest.raises(error) as raised:
        make()
    assert text in str(raised.value)


def test_a_file_that_is_left_alone_counts_as_fresh(path: Path) -> None:
    """With every look; one that is wrong grows old."""
    clock = Ticks()
    with logged(), Watcher(Balancer[Any]([]), source(path), debounce=0.0, clock=clock) as watcher:
        for _ in range(3):
            clock.now += 100.0
            until(lambda: watcher.status().age == 0.0)
        replace(path, "nodes = [")
        until(lambda: watcher.status().error)
        clock.now += 100.0
        replace(path, "nodes = [[")
        until(lambda: watcher.status().failures == 2)
        assert watcher.status().age == 100.0


def test_each_mistake_of_who_mends_a_file_is_told(path: Path) -> None:
    """Though it has been wrong all the time; the same once more is not."""
    with logged() as log, Watcher(Balancer[Any]([]), source(path), debounce=0.0) as watcher:
        for count, content in enumerate(("nodes = [", "x = 1", "nodes = ["), 1):
            replace(path, content)
            until(lambda count=count: watcher.status().failures == count)  # type: ignore[misc]
        path.unlink()
        until(lambda: watcher.status().failures == 4)
        path.mkdir()
        until(lambda: watcher.status().failures == 5)
    assert len(log.having("this is not TOML")) == 1
    assert len(log.having("there is no key 'x'")) == 1
    assert len(log.having("No such file or directory")) == 1
    assert len(log.having("it is not a regular file")) == 1


class Ticks:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now
