"""Ctrl-C at any place of some work."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType


def strike_at(place: int, work: Callable[[], object]) -> bool:
    """Do some work, and raise KeyboardInterrupt at one place; return whether it got that far."""
    left = place

    def profile(frame: FrameType, event: str, arg: object) -> None:
        nonlocal left
        # Python ignores what is raised in a finalizer, in a WeakKeyDictionary's `remove`, or in a
        # callback of the collector, such as Hypothesis has one. And in `logging` it would leave a
        # lock of the whole process held.
        if (
            event in ("call", "c_return")
            and frame.f_code.co_name not in ("__del__", "remove", "gc_callback")
            and not str(frame.f_globals.get("__name__")).startswith("logging")
        ):
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

    # Else it may strike in what is called for garbage of other tests, and Python ignores that.
    gc.disable()
    sys.setprofile(profile)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
        gc.enable()
    return False
