"""References of files that are made from records: sections of tables, in a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec.inspect import Field, StructType

from loadwise._tables.meanings import meaning_of, meanings_of_keys
from loadwise._tables.schema import FileLayout, child, described, fields_of, kinds_of, table_of

__all__ = ["DOCS", "Reference"]

DOCS = Path(__file__).resolve().parents[2] / "docs"
BEGIN, END = "<!-- made from the records -->\n", "<!-- end of what is made -->\n"


@dataclass(frozen=True)
class Reference:
    """A page, the layout that it describes, and its sections: their titles and places."""

    page: Path
    layout: FileLayout
    sections: tuple[tuple[str, str], ...]

    def made(self) -> str:
        """Return the reference: a section per table, and in it a table per kind."""
        sections = (_section(self.layout, title, path) for title, path in self.sections)
        return "\n".join(line for section in sections for line in section)

    def as_it_is(self) -> str:
        """Return the page as it is."""
        return self.page.read_text(encoding="utf-8")

    def as_it_should_be(self) -> str:
        """Return the page with the reference as it should be."""
        before, _, rest = self.as_it_is().partition(BEGIN)
        _, _, after = rest.partition(END)
        return f"{before}{BEGIN}\n{self.made()}\n{END}{after}"

    def write(self) -> None:
        """Write the page as it should be."""
        self.page.write_text(self.as_it_should_be(), encoding="utf-8")


def _section(layout: FileLayout, title: str, path: str) -> list[str]:
    place = layout.root
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
        lines += [f'### `kind = "{kind}"`', *_table(table)]
    return lines


def _table(table: StructType) -> list[str]:
    meanings = meanings_of_keys(table.cls)
    rows = [
        f"| `{key}` | {described(field.type)} | {_default(field)} | {meanings[key]} |"
        for key, field in fields_of(table).items()
    ]
    first = meaning_of(table.cls)
    return [first, "", "| key | is | default | meaning |", "|---|---|---|---|", *rows, ""]


def _default(field: Field) -> str:
    default = field.default
    if field.required:
        return "needed"
    if default is None or default == () or default is msgspec.NODEFAULT:
        return "none"
    if isinstance(default, msgspec.Struct):
        tag = default.__struct_config__.tag
        return f"kind `{tag}`" if tag else "see there"
    if isinstance(default, bool | str):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return ", ".join(f"`{each}`" for each in default)
    return f"{default:,}"
