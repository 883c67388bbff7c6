"""What the compiler is told about classes; nothing to the interpreter."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:

    def mypyc_attr(**_facts):
        """Leave a class as it is."""
        return lambda cls: cls


__all__ = ["mypyc_attr"]
