"""The structure of the sources: imports, layers, doors, sizes and twins."""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
from tests.layers import LAYERS, SOURCES, modules, part_of

from loadwise.integrations._http.httpx_async import AsyncTransport
from loadwise.integrations._http.httpx_sync import SyncTransport

TESTS = Path(__file__).parent
MOST_LINES = 400
MOST_LINES_OF_TESTS = 600
# One page each on purpose: the API with its documentation, and declarations without logic.
LONGER = {"balancer/balancer.py", "simulation/scenario/records.py"}
# The same class for different packages, so that a program can change one for the other.
SAID_TWICE = {
    "AsyncLoadwiseTransport": {"integrations/httpx.py", "integrations/httpx2.py"},
    "LoadwiseTransport": {"integrations/httpx.py", "integrations/httpx2.py"},
    "Channel": {"integrations/grpc/__init__.py", "integrations/grpc/aio.py"},
    "NoNodeError": {
        "integrations/httpx.py",
        "integrations/httpx2.py",
        "integrations/aiohttp.py",
        "integrations/requests.py",
        "integrations/grpc/_errors.py",
        "integrations/grpc/_aio_errors.py",
    },
    "_AsyncStream": {"integrations/httpx.py", "integrations/httpx2.py"},
    "_SyncStream": {"integrations/httpx.py", "integrations/httpx2.py"},
}
QUESTION = re.compile(r"\s*(What|Who|Whom|Whose|How|Whether|Why|Where|Which)\b")


@cache
def imports(name: str) -> frozenset[str]:
    """Return the modules that one imports, for types only or not; packages' own files aside."""
    found = set()
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            module = node.module or ""
            parts = {f"{module}.{each.name}" for each in node.names}
            found |= (parts & modules().keys()) or {module}
    return frozenset(found & modules().keys() - {name})


def circle(graph: dict[str, frozenset[str]]) -> list[str]:
    """Return nodes of a graph that lead back to the first of them; none if there is no circle."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str]:
        if name in way:
            return way[way.index(name) :]
        if name in done:
            return []
        for other in sorted(graph[name]):
            found = visit(other, [*way, name])
            if found:
                return found
        done.add(name)
        return []

    return next(filter(None, (visit(name, []) for name in graph)), [])


def test_a_circle_is_found() -> None:
    """The search for circles sees one, and none where there is none."""
    line = {"a": frozenset("b"), "b": frozenset("c"), "c": frozenset[str]()}
    assert circle(line) == []
    assert circle(line | {"c": frozenset("b")}) == ["b", "c"]


def test_no_import_goes_in_a_circle() -> None:
    """No module imports one that leads back to it, not even for types."""
    files = {name for name, path in modules().items() if path.name != "__init__.py"}
    assert circle({name: imports(name) & files for name in files}) == []


def test_layers_import_downwards() -> None:
    """No part of the library imports one of a layer above its own."""
    layer = {part: number for number, parts in enumerate(LAYERS) for part in parts}
    parts = {part_of(name) for name in modules()}
    assert parts <= layer.keys(), "new parts of the library get a layer"
    upwards = [
        f"{name} imports {other}"
        for name in modules()
        for other in imports(name) - {"loadwise"}
        if layer[part_of(other)] > layer[part_of(name)]
    ]
    assert upwards == []


def test_parts_do_not_depend_on_each_other() -> None:
    """The parts of one layer import each other in one direction only."""
    graph: dict[str, frozenset[str]] = {}
    for name in modules().keys() - {"loadwise"}:
        others = {part_of(other) for other in imports(name) - {"loadwise"}} - {part_of(name)}
        graph[part_of(name)] = graph.get(part_of(name), frozenset()) | others
    assert circle(graph) == []


def test_private_modules_are_private_to_their_folder() -> None:
    """A module with an underscore is imported within its folder only."""
    strangers = []
    for name in modules():
        for other in imports(name):
            parts = other.split(".")
            hidden = next((i for i, part in enumerate(parts) if part.startswith("_")), None)
            if hidden is not None and not f"{name}.".startswith(".".join(parts[:hidden]) + "."):
                strangers.append(f"{name} imports {other}")
    assert strangers == []


def test_a_class_has_its_name_to_itself() -> None:
    """No two modules have a class of one name, so that a name is enough to find it."""
    places: dict[str, set[str]] = defaultdict(set)
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].add(str(path.relative_to(SOURCES)))
    shared = {name: where for name, where in places.items() if len(where) > 1}
    assert shared == SAID_TWICE


def test_no_docstring_opens_with_a_question() -> None:
    """The first words of a docstring say what it is or does, those below a name included."""
    questions = [
        f"{name}:{node.lineno}: {node.value.value.splitlines()[0]}"
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and QUESTION.match(node.value.value)
    ]
    assert questions == []


def test_no_module_is_too_long() -> None:
    """No module is longer than can be read in one go, but those that say why."""
    long = {
        str(path.relative_to(SOURCES))
        for path in modules().values()
        if path.read_text().count("\n") > MOST_LINES
    }
    assert long <= LONGER


def test_no_file_of_tests_is_too_long() -> None:
    """A file of tests is about one behaviour; a longer one is split, as a module is."""
    long = {
        str(path.relative_to(TESTS))
        for path in TESTS.rglob("*.py")
        if path.read_text().count("\n") > MOST_LINES_OF_TESTS
    }
    assert long == set()


@pytest.mark.parametrize(("one", "other"), [("httpx.py", "httpx2.py")])
def test_twins_differ_in_their_names_only(one: str, other: str) -> None:
    """What is said for one package is said for its successor."""
    integrations = SOURCES / "integrations"
    renamed = (integrations / other).read_text().replace("httpx2", "httpx")
    assert renamed == (integrations / one).read_text()


def test_transports_have_the_same_methods() -> None:
    """The synchronous transport and the asynchronous one do the same, in methods of one name."""

    def named(cls: type) -> set[str]:
        own = {name for name, _ in inspect.getmembers(cls, inspect.isfunction)}
        return {name.replace("async_", "").replace("aclose", "close") for name in own}

    # What is awaited needs a method of its own where a plain call would do.
    awaited = {
        "_waited",
        "_verdict",
        "_wants_body",
        "__aenter__",
        "__aexit__",
        "__enter__",
        "__exit__",
    }
    assert named(AsyncTransport) ^ named(SyncTransport) <= awaited
