"""The report: one HTML file with the table, the charts and the scenario, for a browser offline.

write_report("report.html", comparison)
"""

from __future__ import annotations

import os
from pathlib import Path

from loadwise.simulation.analysis.comparison import Comparison

try:
    from loadwise.simulation.report.page import render
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "plotly":
        raise
    raise ImportError(
        "loadwise.simulation.report needs plotly: pip install 'loadwise[simulation]'"
    ) from error

__all__ = ["render", "write_report"]


def write_report(path: str | os.PathLike[str], comparison: Comparison) -> None:
    """Write the report to a file: all of it, or, when that fails, nothing.

    Args:
        path: The file; one that exists is replaced, a pipe is written to, a link is followed.
        comparison: What to report.

    Raises:
        OSError: It cannot be written.
    """
    page = render(comparison)
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        target.write_text(page, encoding="utf-8", newline="\n")
        return
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        draft.write_text(page, encoding="utf-8", newline="\n")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
