"""The reference of scenario files, made from the records: ``python -m tests.simulation.reference``.

It rewrites that part of ``docs/scenario-reference.md``; a test compares the two.
"""

from __future__ import annotations

import re
from inspect import cleandoc, getmro
from pathlib import Path

import msgspec
from msgspec.inspect import Field, StructType

from loadwise.simulation.scenario.schema import (
    child,
    described,
    fields_of,
    kinds_of,
    root,
    table_of,
)

__all__ = ["GUIDE", "PAGE", "reference", "with_reference"]

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, GUIDE = DOCS / "scenario-reference.md", DOCS / "scenarios.md"
BEGIN, END = "<!-- made from the records -->\n", "<!-- end of what is made -->\n"

SECTIONS = (
    ("The scenario itself", ""),
    ("`[servers]`", "servers"),
    ("`[[servers.groups]]`", "servers.groups.0"),
    ("`[servers.llm]`", "servers.llm"),
    ("`[arrivals]`", "arrivals"),
    ("`[service]`", "service"),
    ("`[clients]`", "clients"),
    ("`[network]`", "network"),
    ("`[[network.pairs]]`", "network.pairs.0"),
    ("`[callers]`", "callers"),
    ("`[health]`", "health"),
    ("`[outliers]`", "outliers"),
    ("`[slow_start]`", "slow_start"),
    ("`[[quotas]]`", "quotas.0"),
    ("`[[faults]]`", "faults.0"),
)


def reference() -> str:
    """Return the reference: a section per table, and in it a table per kind."""
    return "\n".join(line for title, path in SECTIONS for line in _section(title, path))


def with_reference(page: str) -> str:
    """Return the page with the reference as it should be."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{reference()}\n{END}{after}"


def _section(title: str, path: str) -> list[str]:
    place = root()
    for key in filter(None, path.split(".")):
        found = child(place, {}, int(key) if key.isdecimal() else key)
        assert found is not None
        place = found
    kinds = kinds_of(place)
    lines = [f"## {title}", ""]
    if not kinds:
        table = table_of(place, {})
        assert table is not None
        return [*lines, *_table(table)]
    for kind, table in kinds.items():
        lines += [f'### `kind = "{kind}"`', "", *_table(table)]
    return lines


def _table(table: StructType) -> list[str]:
    meanings = _meanings(table.cls)
    rows = [
        f"| `{key}` | {described(field.type)} | {_default(field)} | {meanings[key]} |"
        for key, field in fields_of(table).items()
    ]
    first = _plain(cleandoc(table.cls.__doc__ or "").partition("\n\nAttributes:")[0])
    return [first, "", "| key | is | default | meaning |", "|---|---|---|---|", *rows, ""]


def _meanings(cls: type) -> dict[str, str]:
    """Return what docstrings say of the attributes of a record and of those it is made from."""
    found: dict[str, str] = {}
    for each in reversed(getmro(cls)):
        _, _, attributes = cleandoc(each.__doc__ or "").partition("Attributes:\n")
        for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE):
            found[name] = _plain(text)
    return found


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("``", "`").strip()


def _default(field: Field) -> str:
    default = field.default
    if default is msgspec.NODEFAULT:
        return "needed"
    if default is None or default == ():
        return "none"
    if isinstance(default, msgspec.Struct):
        tag = default.__struct_config__.tag
        return f"kind `{tag}`" if tag else "see there"
    if isinstance(default, bool | str):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return ", ".join(f"`{each}`" for each in default)
    return f"{default:,}"


if __name__ == "__main__":
    PAGE.write_text(with_reference(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
