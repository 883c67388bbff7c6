"""Floors of the simulator: what stands on one imports from those below, and never upwards."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from loadwise import simulation

ROOT = Path(simulation.__file__).parent
FLOORS = (
    "units",
    "errors",
    "scenario",
    "world",
    "runs",
    "figures",
    "analysis",
    "export",
    "report",
)
"""From the lowest to the highest."""
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
ROOMS = [module for module in MODULES if module.name != "__init__.py"]


def imported(module: Path) -> set[str]:
    """Return the parts of the simulator that a module imports, for annotations, too."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [
        each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names
    ]
    prefix = f"{simulation.__name__}."
    return {
        name.removeprefix(prefix).partition(".")[0] for name in names if name.startswith(prefix)
    }


@pytest.mark.parametrize("module", ROOMS, ids=str)
def test_no_import_upwards(module: Path) -> None:
    """A module knows its own floor and those below."""
    floor = module.parts[0].removesuffix(".py")
    below = FLOORS[: FLOORS.index(floor) + 1]
    assert imported(module) <= set(below)
    assert "" not in imported(module)


def test_every_part_has_its_floor() -> None:
    """No module stands beside the house."""
    parts = {module.parts[0].removesuffix(".py") for module in MODULES}
    assert parts == {*FLOORS, "__init__"}
