"""What can be imported, and what imports what: checked in the sources and in the modules."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType

import pytest
from tests.layers import is_core, modules, part_of

import loadwise

CLI = {"cli", "__main__"}
DEPENDENCIES = {"xxhash"}


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield all statements that are executed at some time, in functions and classes, too."""
    for statement in body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            yield from statements(statement.orelse)
            continue
        yield statement
        for block in ("body", "orelse", "finalbody"):
            yield from statements(getattr(statement, block, []))
        for handler in getattr(statement, "handlers", []):
            yield from statements(handler.body)


def imports(name: str) -> set[str]:
    """Return the absolute names of the modules that a module imports when it is run."""
    path = modules()[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for statement in statements(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(statement, ast.Import):
            found.update(alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            origin = statement.module or ""
            source = resolve_name("." * statement.level + origin, package)
            found.update(
                f"{source}.{alias.name}" if source == "loadwise" else source
                for alias in statement.names
            )
    return found


PUBLIC = [name for name in modules() if not any(part.startswith("_") for part in name.split("."))]


@pytest.fixture(params=PUBLIC)
def module(request: pytest.FixtureRequest) -> ModuleType:
    """Each public module, imported."""
    name: str = request.param
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("loadwise"):
            raise
        pytest.skip(f"{name} needs {error.name}, which is not installed")


def sort_key(name: str) -> tuple[int, str]:
    """Order names as imports are sorted: constants, classes, the rest."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


def test_all_names_exist_and_are_sorted(module: ModuleType) -> None:
    """``__all__`` of every public module is sorted, without repetition, and holds what it says."""
    names = getattr(module, "__all__", None)
    if names is None:
        assert not is_core(module.__name__), "a module of the core has an __all__"
        return
    assert names == sorted(set(names), key=sort_key)
    for name in names:
        assert getattr(module, name, None) is not None, f"{module.__name__} has no {name}"


@pytest.mark.parametrize("package", ["loadwise", "loadwise.balancer", "loadwise.strategies"])
def test_packages_export_all_they_import(package: str) -> None:
    """What a package's ``__init__`` imports is what it offers."""
    found = importlib.import_module(package)
    tree = ast.parse(Path(str(found.__file__)).read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name
        for statement in tree.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert imported == set(found.__all__) - {"__version__"}


def test_public_classes_are_importable_from_the_package() -> None:
    """Every strategy, filter and error can be had from ``loadwise`` itself, or from its home."""
    offered = set(loadwise.__all__) | set(importlib.import_module("loadwise.llm").__all__)
    for name in ("strategies", "load", "health", "quota", "filters", "errors", "nodes"):
        part = importlib.import_module(f"loadwise.{name}")
        for public in part.__all__:
            value = getattr(part, public)
            is_error = isinstance(value, type) and issubclass(value, Exception)
            if is_error or name in ("nodes", "errors"):
                assert public in offered
    strategies = set(importlib.import_module("loadwise.strategies").__all__)
    assert strategies - offered == {"KeyOrder", "ViewStrategy"}


@pytest.mark.parametrize("name", [*filter(is_core, modules())])
def test_the_core_needs_one_dependency(name: str) -> None:
    """A core module imports the standard library, xxhash and loadwise, and nothing else."""
    known = sys.stdlib_module_names | DEPENDENCIES | {"loadwise"}
    if name == "loadwise.testing.pytest_plugin":  # imported by pytest alone
        known |= {"pytest"}
    assert {each.split(".")[0] for each in imports(name)} <= known


@pytest.mark.parametrize("name", [name for name in modules() if part_of(name) not in CLI])
def test_only_the_command_line_knows_the_command_line(name: str) -> None:
    """Nothing imports the CLI or what it is made with but the CLI."""
    for each in imports(name):
        assert each.split(".")[0] not in {"typer", "rich", "click"}
        assert not each.startswith(("loadwise.cli", "loadwise.__main__"))


def test_the_checks_see_what_they_should() -> None:
    """The reading of imports is not blind: it finds some that are known to be there."""
    found = imports("loadwise.strategies.filtered")
    assert {"loadwise.filters", "loadwise.strategies.adapter", "typing"} <= found
    attempts = imports("loadwise.balancer.attempts")
    assert "loadwise.balancer.lease" in attempts
    assert "loadwise.balancer.balancer" not in attempts, "that is for type checkers only"
    assert len(PUBLIC) > 30
