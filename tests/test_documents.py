"""The README and the documentation are true: their examples run and their links lead somewhere.

The Python blocks of a page build on each other, so each page is run from top to bottom in one
fresh namespace. A block with prompts (``>>>``) is a doctest. The examples in the docstrings of the
sources are run here, too.
"""

from __future__ import annotations

import doctest
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import loadwise
import loadwise.testing

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md"]

NEED_EXTRAS = ("loadwise.cli", "loadwise.integrations", "loadwise.simulation")
FENCE = re.compile(r"^```(?P<language>[^\n]*)\n(?P<source>.*?)^```\s*?$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


class Block(NamedTuple):
    """One Python block of a page, and the line on which its source begins."""

    page: Path
    line: int
    source: str

    def run(self, namespace: dict[str, Any]) -> None:
        """Execute the block; what fails, fails with the file and the line."""
        if ">>>" in self.source:
            self._run_as_doctest(namespace)
            return
        # The blank lines before it make tracebacks show the line of the page.
        padded = "\n" * (self.line - 1) + self.source
        try:
            exec(compile(padded, str(self.page), "exec", dont_inherit=True), namespace)  # noqa: S102 - our own pages
        except Exception as error:
            error.add_note(f"in the block at {name_of(self.page)}:{self.line}")
            raise

    def _run_as_doctest(self, namespace: dict[str, Any]) -> None:
        test = doctest.DocTestParser().get_doctest(
            self.source, namespace, name_of(self.page), str(self.page), self.line - 1
        )
        report: list[str] = []
        runner = doctest.DocTestRunner(verbose=False)
        results = runner.run(test, out=report.append, clear_globs=False)
        namespace.update(test.globs)
        if results.failed:
            pytest.fail("".join(report), pytrace=False)


def name_of(page: Path) -> str:
    """Return the page's path as people write it."""
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> Iterator[Block]:
    """Return the Python blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        if match["language"].strip() == "python":
            yield Block(page, text.count("\n", 0, match.start("source")) + 1, match["source"])


def modules() -> Iterator[str]:
    """Return the names of all modules of the package."""
    yield "loadwise"
    # An extra that is missing shows when the module itself is imported.
    for module in pkgutil.walk_packages(loadwise.__path__, "loadwise.", onerror=lambda _name: None):
        if not module.name.endswith(".__main__"):
            yield module.name


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks_of(page))], ids=name_of)
def test_examples_of_a_page_run(page: Path) -> None:
    """Every Python block of the page runs as it stands, after those before it."""
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks_of(page):
        block.run(namespace)


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_lead_to_files(page: Path) -> None:
    """Every relative link of the page points to a file or folder that exists."""
    text = CODE.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))
    targets = [match["target"].partition("#")[0] for match in LINK.finditer(text)]
    local = [target for target in targets if target and "://" not in target]
    missing = [target for target in local if not (page.parent / target).exists()]
    assert not missing, f"{name_of(page)} links to {missing}"


def test_every_public_name_is_in_the_reference() -> None:
    """The API page describes whatever ``loadwise`` and ``loadwise.testing`` export."""
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\.\. auto\w+:: (?:\w+\.)*(\w+)", reference, re.MULTILINE))
    public = {*loadwise.__all__, *loadwise.testing.__all__} - {"__version__"}
    assert public <= described, f"not described: {sorted(public - described)}"


@pytest.mark.parametrize("module", sorted(set(modules())))
def test_examples_in_docstrings_run(module: str) -> None:
    """The examples in the module's docstrings give what they show."""
    try:
        imported = import_module(module)
    except ImportError as error:
        root = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        if not module.startswith(NEED_EXTRAS) or str(root.name).startswith("loadwise"):
            raise
        pytest.skip(f"needs {root.name}, which an extra installs")
    results = doctest.testmod(imported)
    assert results.failed == 0
