"""The README and the documentation are true: their examples run and their links lead somewhere.

The Python blocks of a page build on each other, so each page is run from top to bottom in one
fresh namespace. A block with prompts (``>>>``) is a doctest. The examples in the docstrings of the
sources are run here, too.
"""

from __future__ import annotations

import ast
import doctest
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import loadwise
import loadwise.testing
from loadwise.integrations._http import retrying

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md"]

NEED_EXTRAS = (
    "loadwise._tables",
    "loadwise.cli",
    "loadwise.config",
    "loadwise.discovery",
    "loadwise.integrations",
    "loadwise.simulation",
)
# litellm takes longer to be imported than all others together.
WITHOUT_EXAMPLES = {"loadwise.integrations.litellm"}
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


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that a page's headings have, as GitHub and MyST make them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "") for title in titles]
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_lead_to_headings(page: Path) -> None:
    """Every link to a place in a page names a heading of that page."""
    text = CODE.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))
    missing = []
    for match in LINK.finditer(text):
        target, _, anchor = match["target"].partition("#")
        if anchor and "://" not in target:
            aim = page.parent / target if target else page
            if aim.suffix == ".md" and anchor not in anchors_of(aim):
                missing.append(match["target"])
    assert not missing, f"{name_of(page)} links to {missing}"


def test_every_public_name_is_in_the_reference() -> None:
    """The API page describes whatever ``loadwise`` and ``loadwise.testing`` export."""
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\.\. auto\w+:: (?:\w+\.)*(\w+)", reference, re.MULTILINE))
    public = {*loadwise.__all__, *loadwise.testing.__all__} - {"__version__"}
    assert public <= described, f"not described: {sorted(public - described)}"


def test_those_without_examples_have_none() -> None:
    """No example goes unrun because its module is not imported here."""
    for name in WITHOUT_EXAMPLES:
        path = ROOT / "src" / (name.replace(".", "/") + ".py")
        assert ">>>" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("module", sorted(set(modules()) - WITHOUT_EXAMPLES))
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


MOST_LINES = 400
LONGER = {"api.md"}  # one page on purpose
# What people type into the search box.
SEARCHED = (
    "canary",
    "FastAPI",
    "postgres",
    "DNS",
    "circuit breaker",
    "kubernetes",
    "troubleshooting",
    "failover",
    "backoff",
    "rate limit",
    "sticky session",
    "load shedding",
    "outlier detection",
)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in LONGER], ids=name_of)
def test_pages_are_short(page: Path) -> None:
    """Nobody reads a page of more than 400 lines."""
    lines = page.read_text(encoding="utf-8").count("\n")
    assert lines <= MOST_LINES, f"{name_of(page)} has {lines} lines; split it"


def test_every_page_is_in_one_part() -> None:
    """The index has four parts, and each page stands in one of them, once."""
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    trees = re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)
    captions = [re.search(r":caption: (.+)", tree) for tree in trees]
    parts = ["Tutorial", "How-to guides", "Explanation", "Reference"]
    assert [caption and caption[1] for caption in captions] == parts
    listed = [line for tree in trees for line in tree.splitlines() if line and line[0] != ":"]
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}
    assert sorted(listed) == sorted(pages)


def prominent(page: Path) -> str:
    """Return the title, the headings and the first paragraph: what a search ranks first."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ .*$", text, re.MULTILINE)
    paragraphs = [part for part in re.split(r"\n\s*\n", text.strip()) if part[0] not in "#<"]
    return "\n".join([*headings, *paragraphs[:1]])


@pytest.mark.parametrize("words", SEARCHED)
def test_a_search_finds_a_page(words: str) -> None:
    """Some page says the words people search for where the search looks first."""
    guides = [page for page in PAGES if page.parent.name == "docs"]
    pattern = re.compile(re.escape(words).replace(r"\ ", r"\s+"), re.IGNORECASE)
    assert [name_of(page) for page in guides if pattern.search(prominent(page))]


def table_under(page: str, heading: str) -> list[str]:
    """Return what stands in code in the first column of the table under a heading."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    _, found, rest = text.partition(f"\n## {heading}\n")
    assert found, f"{page} has no heading {heading!r}"
    section = rest.partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)


def words_given(module: str, *calls: str) -> set[str]:
    """Return the lone words that a module stores under a key, returns, or gives to ``calls``."""
    tree = ast.parse(Path(str(import_module(module).__file__)).read_text(encoding="utf-8"))
    given: list[ast.expr | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.DictComp | ast.Return):
            given.append(node.value)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            given += [node.value, node.targets[0].slice]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            given += node.args if node.func.attr in calls else []
    values = [
        each.value
        for part in given
        for each in ((part.body, part.orelse) if isinstance(part, ast.IfExp) else (part,))
        if isinstance(each, ast.Constant)
    ]
    return {value for value in values if isinstance(value, str) and value.isidentifier()}


def test_every_reason_has_its_remedy() -> None:
    """The page on errors lists the reasons that the code gives, and no others."""
    modules = ("admission", "explain", "asked_nodes", "view", "waiter")
    given = [words_given(f"loadwise.balancer.{each}", "_count", "fromkeys") for each in modules]
    reasons = set().union(*given, words_given("loadwise.errors"))
    assert {"empty", "full", "declined", "queue"} <= reasons
    assert sorted(table_under("errors.md", "NoNodeAvailable")) == sorted(reasons)


def test_every_reason_against_a_retry_has_its_remedy() -> None:
    """The page on errors lists why the HTTP clients do not retry."""
    tree = ast.parse(Path(str(retrying.__file__)).read_text(encoding="utf-8"))
    reasons = {
        str(node.args[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "_refuse"
        and isinstance(node.args[0], ast.Constant)
    }
    assert sorted(table_under("errors.md", "Why there was no retry")) == sorted(reasons)


def test_every_error_is_on_the_page() -> None:
    """Each class of error that others may meet is named there."""
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    for module in modules():
        if not module.startswith(NEED_EXTRAS):
            import_module(module)
    found = [loadwise.LoadwiseError]
    for each in found:
        found += each.__subclasses__()
    names = {each.__name__ for each in found if each.__module__.startswith("loadwise.")}
    assert {name for name in names - {"Unforeseeable", "Unshareable"} if name not in page} == set()


@pytest.mark.parametrize(
    ("heading", "record"),
    [
        ("A node: `NodeStatus`", loadwise.NodeStatus),
        ("A cooldown: `Cooldown`", loadwise.Cooldown),
        ("Panic", loadwise.Panic),
        ("The next choice: `explain()`", loadwise.Explanation),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_every_field_is_on_the_page(heading: str, record: Any) -> None:
    """The page on status has a line for each field, in order."""
    assert table_under("status.md", heading) == [field.name for field in fields(record)]


def test_every_key_of_the_status_is_on_the_page() -> None:
    """The page has the keys of ``status_dict()``, in order."""
    told = loadwise.Balancer(["a"]).status_dict()
    assert table_under("status.md", "The balancer: `status_dict()`") == list(told)
