"""Background threads and uWSGI, which does not let them run in every setup."""

from __future__ import annotations

import logging
import sys

__all__ = ["warn_if_threads_stand_still"]

_log = logging.getLogger("loadwise")

_warned = [None]


def warn_if_threads_stand_still() -> bool:
    """Tell whether no thread of this process runs between requests; log what to do, once.

    That is so with uWSGI up to 2.0.26 unless it is started with ``enable-threads`` or ``threads``:
    it keeps the interpreter's lock to itself.
    """
    stand_still = not getattr(sys.modules.get("uwsgi"), "has_threads", True)
    if stand_still and _warned:
        _warned.clear()
        _log.warning(
            "uWSGI was started without threads, so nothing that loadwise does in the background is "
            "done between requests; start it with `enable-threads = true` (on the command line: "
            "--enable-threads)"
        )
    return stand_still
