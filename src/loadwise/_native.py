"""Hints of the sources to the compiler; to the interpreter they mean nothing.

The modules of the hot path can be compiled by mypyc, from the very same files (see
``hatch_build.py``). Three habits in them are for its sake:

- A public class says by `mypyc_attr` that classes of the user's own may derive from it.
- A constant is `Final`, so that it is not looked up in a dictionary.
- Where other threads read an attribute without a lock, its old value is held, and given to `let_go`
  when the new one is in its place. By itself compiled code drops the old one first; its end may run
  Python code (a weak reference's callback) and with that other threads, which would find what is
  no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:

    def mypyc_attr(**_facts: object) -> object:
        """Leave a class as it is."""
        return lambda cls: cls


__all__ = ["let_go", "mypyc_attr"]


def let_go(value: object) -> None:
    """Keep ``value`` alive until this call."""
