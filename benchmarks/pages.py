"""Puts the tables of the last runs into README.md and docs/: ``python -m benchmarks.pages``.

A page says where: between ``<!-- bench:begin NAME -->`` and ``<!-- bench:end NAME -->`` stands what
the last full run wrote to ``NAME.md``. A table that has not been measured stays as it is.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser
from pathlib import Path

from benchmarks.__main__ import FOLDER

__all__ = ["filled"]

PAGES = (
    Path("README.md"),
    Path("docs/performance-figures.md"),
    Path("docs/performance-peers.md"),
    Path("docs/performance-resources.md"),
)
_MARKED = re.compile(
    r"(?P<begin><!-- bench:begin (?P<name>[a-z-]+) -->\n).*?(?P<end><!-- bench:end (?P=name) -->)",
    re.DOTALL,
)


def filled(text: str, tables: Path) -> str:
    """Return a page with its tables renewed.

    Args:
        text: The page.
        tables: The folder that a run has written.
    """

    def renewed(match: re.Match[str]) -> str:
        source = tables / f"{match['name']}.md"
        if not source.exists():
            print(f"{match['name']}: not measured, left as it is")
            return match[0]
        return f"{match['begin']}\n{source.read_text(encoding='utf-8')}\n{match['end']}"

    return _MARKED.sub(renewed, text)


def main() -> None:
    """Renew the pages."""
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = filled(before, FOLDER)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(f"{page}: renewed")


if __name__ == "__main__":
    ArgumentParser(
        prog="python -m benchmarks.pages",
        description="Put the tables of the last runs into README.md and docs/performance-*.md.",
    ).parse_args()
    main()
