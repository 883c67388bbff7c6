"""Test for a global interpreter lock, under which threads take turns."""

from __future__ import annotations

import sys

__all__ = ["HAS_GIL"]

HAS_GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
"""Only free-threaded builds of Python 3.13 and later can be without."""
