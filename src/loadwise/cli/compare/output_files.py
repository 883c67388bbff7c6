"""Files that ``loadwise compare`` writes its results to: checked first, written at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer

from loadwise._text import visible_lines
from loadwise.cli.exit_codes import FAILED
from loadwise.cli.files import check_writable, write_whole
from loadwise.simulation.analysis.comparison import Comparison
from loadwise.simulation.export import json_text, to_csv

__all__ = ["Targets", "Write", "check_targets", "write_all"]

Write = Callable[[Path, Comparison], object]


@dataclass(frozen=True, slots=True)
class Targets:
    """The files to write results to."""

    json: Path | None
    csv: Path | None
    html: Path | None

    def named(self) -> dict[str, Path]:
        """Return the files that are wanted, by option."""
        paths = {"--json": self.json, "--csv": self.csv, "--html": self.html}
        return {option: path for option, path in paths.items() if path is not None}


def check_targets(targets: Targets) -> None:
    """Refuse files that cannot be written, and one file for two options.

    Raises:
        typer.BadParameter: A file is wrong; its option is named.
    """
    seen: dict[Path, str] = {}
    for option, path in targets.named().items():
        try:
            check_writable(path)
        except OSError as error:
            raise typer.BadParameter(f"{error}.", param_hint=option) from None
        other = seen.setdefault(path.resolve(), option)
        if other != option:
            raise typer.BadParameter(
                f"{str(path)!r} is where {other} writes; name another file.", param_hint=option
            )


def write_all(
    targets: Targets,
    comparison: Comparison,
    write_report: Write | None,
    written: list[str],
) -> int:
    """Write all files that are asked for, record which, and return the exit code."""
    writers: dict[str, Write | None] = {
        "--json": _write_json,
        "--csv": _write_csv,
        "--html": write_report,
    }
    code = 0
    for option, path in targets.named().items():
        write = writers[option]
        if write is None:
            continue
        try:
            write_whole(path, write, comparison)
        except OSError as error:
            sys.stderr.write(visible_lines(f"{option} {path} was not written: {error}\n"))
            code = FAILED
        else:
            written.append(f"{option} {path} is written")
    return code


def _write_json(path: Path, comparison: Comparison) -> None:
    path.write_text(json_text(comparison), encoding="utf-8", newline="\n")


def _write_csv(path: Path, comparison: Comparison) -> None:
    path.write_text(to_csv(comparison), encoding="utf-8", newline="\n")
