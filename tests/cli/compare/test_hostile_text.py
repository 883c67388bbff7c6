"""A scenario file from somewhere, full of control characters: none reaches terminal or report."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped] # it has no types

# In TOML's escapes, as a file may have them: a title, a colour, a turned name, and C1's escape.
ATTACK = r"\u001b]0;owned\u0007\u001b[31m\u202eeman\u2066\u009b2J\u200f\u0085"

SCENARIO = f"""
name = "fleet{ATTACK}"
about = "About {ATTACK}"
requests = 300

[servers]
count = 2
zone = "zone{ATTACK}"
"""


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Return what became of ``loadwise compare``, in a process of its own."""
    command = [sys.executable, "-m", "loadwise", "compare", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, timeout=120, check=False)


def raw_in(data: bytes) -> set[str]:
    """The characters that cannot be seen, but for line breaks."""
    unseen = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return {each for each in data.decode() if unicodedata.category(each) in unseen} - {"\n"}


def test_a_comparison_is_safe(tmp_path: Path) -> None:
    """On the screen, and in each of the files; the names can still be told."""
    (tmp_path / "bad.toml").write_text(SCENARIO)
    targets = ("--json", "out.json", "--csv", "out.csv", "--html", "out.html")
    done = run(tmp_path, "bad.toml", "--seeds", "1", "--jobs", "1", "-s", "p2c", *targets)
    assert done.returncode == 0, done.stderr
    assert rb"fleet\x1b]0;owned\x07" in done.stdout
    assert done.stdout.count(rb"\x1b]0;owned") == 2
    files = [(tmp_path / f"out.{kind}").read_bytes() for kind in ("json", "csv")]
    page = (tmp_path / "out.html").read_text().replace(get_plotlyjs(), "")
    assert r"fleet\x1b]0;owned" in page
    assert r"zone\u001b]0;owned" in page  # as TOML writes it
    for data in (done.stdout, done.stderr, *files, page.encode()):
        assert not raw_in(data)


@pytest.mark.parametrize(
    "broken",
    [
        f"{ATTACK.join(chr(34) * 2)} = 3",
        f'requests = "{ATTACK}"',
        f'[[faults]]\nkind = "{ATTACK}"',
        f'strategies = ["{ATTACK}"]',
        f'[arrivals]\nkind = "trace"\nfile = "{ATTACK}"\ntime = "{ATTACK}"',
    ],
)
def test_errors_of_a_file_are_safe(tmp_path: Path, broken: str) -> None:
    """Whatever is wrong with it, of which the error shows a part."""
    (tmp_path / "bad.toml").write_text(f'name = "x"\nabout = ""\nservers.count = 2\n{broken}\n')
    done = run(tmp_path, "bad.toml", "--seeds", "1")
    assert done.returncode == 2, done.stdout
    assert not raw_in(done.stderr)
    assert not raw_in(done.stdout)
