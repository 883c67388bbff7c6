"""Modules of the library, and the layers that they belong to."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import loadwise

SOURCES = Path(loadwise.__file__).parent

CORE = (
    {
        "_callables",
        "_counter",
        "_event_loops",
        "_fork",
        "_gil",
        "_log",
        "_memo",
        "_native",
        "_numbers",
        "_text",
        "_turns",
    }
    | {"_threads", "errors"},
    {"_amounts", "_callables", "_counter", "_fork", "_gil", "_log", "_memo", "_native", "_numbers"}
    | {"_text", "_threads", "errors"},
    {"_base_url", "_membership", "_prefix_index", "_prompt", "_random", "_url_paths"}
    | {"backoff", "clock", "context", "nodes", "outcome", "state"},
    {"health", "load", "node_set", "quota"},
    {"filters", "metrics", "node_list", "outliers", "retry_budget", "subsets"},
    {"strategies"},
    {"balancer"},
    {"llm", "shared_memory", "testing"},
    {""},
)
"""Parts of the core, from the ground up; "" is the package itself.

Each may import from its own layer and from those below. ``filters`` lies below ``strategies``
because `Filtered` is a strategy.
"""
LAYERS = (
    *CORE,
    {"_tables"},
    {"config", "discovery", "health_checks", "integrations", "simulation"},
    {"cli"},
    {"__main__"},
)
"""All parts of the library; those above the core may need more than its dependencies."""


@cache
def modules() -> dict[str, Path]:
    """Return the path of every module, by its full name."""
    found: dict[str, Path] = {}
    for path in sorted(SOURCES.rglob("*.py")):
        parts = ["loadwise", *path.relative_to(SOURCES).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def part_of(name: str) -> str:
    """Return the part of the library that a module belongs to; "" for the package itself."""
    return name.split(".")[1] if "." in name else ""


def is_core(name: str) -> bool:
    """Tell whether a module belongs to the core."""
    return any(part_of(name) in layer for layer in CORE)
