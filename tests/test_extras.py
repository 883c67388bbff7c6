"""Every hint to install an extra names one that there is, in a line that a shell takes as it is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
# In the help texts a bracket is escaped, for it would begin a style.
HINT = re.compile(r"(?P<before>.{0,13})loadwise\\*\[(?P<extras>[a-z][\w,]*)\](?P<after>'?)")


def hints() -> list[tuple[str, re.Match[str]]]:
    """Return every mention of an extra in code and documents, and where it stands."""
    files = [
        *(ROOT / "src").rglob("*.py"),
        *(ROOT / "examples").rglob("*.py"),
        *(ROOT / "docs").glob("*.md"),
        ROOT / "README.md",
    ]
    return [
        (file.relative_to(ROOT).as_posix(), match)
        for file in files
        for match in HINT.finditer(file.read_text(encoding="utf-8"))
    ]


def test_hints_name_extras_that_there_are() -> None:
    """No text sends anybody for an extra that pip does not find."""
    named = [(file, match["extras"].split(",")) for file, match in hints()]
    assert len(named) > 20
    assert [each for each in named if not set(each[1]) <= set(EXTRAS)] == []


def test_hints_can_be_pasted() -> None:
    """Each is a call of pip in quotes, without which some shells take the brackets as a pattern."""
    assert [
        (file, match[0])
        for file, match in hints()
        if not (match["before"].endswith("pip install '") and match["after"])
    ] == []


def test_extras_are_documented() -> None:
    """Each extra is named in a hint or in the list of the README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = {extra for _, match in hints() for extra in match["extras"].split(",")}
    assert [extra for extra in EXTRAS if extra not in named and f"`{extra}`" not in readme] == []
