"""The wheel that users get: built, installed into an environment of its own, and imported there."""

from __future__ import annotations

import email
import json
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from email.message import Message
from importlib.metadata import distribution
from pathlib import Path

import pytest

import loadwise

CHECKOUT = Path(__file__).parents[1]
NEEDED = [
    "src",
    "pyproject.toml",
    "hatch_build.py",
    "README.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "CHANGELOG.md",
]

pytestmark = pytest.mark.slow


def run(
    *command: str | Path, cwd: Path, fails: bool = False, warnings: str = "error"
) -> subprocess.CompletedProcess[str]:
    """Run a command without what this environment would lend it; return what it wrote."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={"PATH": "", "PYTHONNOUSERSITE": "1", "PYTHONWARNINGS": warnings},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert fails or done.returncode == 0, f"{command} wrote:\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources so that nothing is written beside them."""
    tree = tmp_path_factory.mktemp("tree")
    for name in NEEDED:
        source = CHECKOUT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, tree / name, ignore=ignored)
        else:
            shutil.copy(source, tree / name)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "out", cwd=tree)
    [built] = (tree / "out").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """What the wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel and its one dependency."""

    folder: Path
    bin: Path

    def python(self, *arguments: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
        """Run its Python, away from the checkout."""
        return run(self.bin / "python", *arguments, cwd=self.folder, fails=fails)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh environment in which pip has installed the wheel, and that has xxhash besides.

    xxhash is copied from the environment of the tests, so that they need no network.
    """
    folder = tmp_path_factory.mktemp("user")
    venv.create(folder / "env", with_pip=False)
    windows = sys.platform == "win32"
    found = Environment(folder, folder / "env" / ("Scripts" if windows else "bin"))
    site = Path(
        found.python("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    )
    dependency = distribution("xxhash")
    for file in dependency.files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(dependency.locate_file(file)), site / file)
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        found.bin / "python",
        "--no-cache-dir",
    ]
    # What pip warns of is not ours.
    run(*pip, "install", "--quiet", "--no-index", wheel, cwd=folder, warnings="ignore")
    run(*pip, "check", cwd=folder, warnings="ignore")
    return found


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """All modules, the marker of typed packages and the licences; no tests, no caches."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {name for name in names if name.startswith("loadwise/")}
    source = CHECKOUT / "src"
    files = [path for path in (source / "loadwise").rglob("*") if path.is_file()]
    expected = {
        path.relative_to(source).as_posix() for path in files if "__pycache__" not in path.parts
    }
    assert package == expected
    assert "loadwise/py.typed" in package
    rest = names - package
    assert all(name.split("/")[0].endswith(".dist-info") for name in rest)
    for licence in ("LICENSE-MIT", "LICENSE-APACHE"):
        assert any(name.endswith(f"/{licence}") for name in rest)


def test_the_metadata(metadata: Message) -> None:
    """One dependency, the Python versions, the version of the package, and a readable page."""
    required = metadata.get_all("Requires-Dist") or []
    assert [line for line in required if "extra ==" not in line] == ["xxhash>=3.4"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Version"] == loadwise.__version__
    assert metadata["License-Expression"] == "MIT OR Apache-2.0"
    assert "cli" in (metadata.get_all("Provides-Extra") or [])
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    page = metadata.get_payload(decode=True)
    assert isinstance(page, bytes)
    assert page.decode().strip() == readme.strip()


def test_an_unpacked_sdist_can_be_tested(tmp_path: Path) -> None:
    """It holds what the tests import and read, and what runs and compiles them."""
    command = ("-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path)
    run(sys.executable, *command, cwd=CHECKOUT)
    [built] = tmp_path.iterdir()
    with tarfile.open(built) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    parts = ("benchmarks", "docs", "examples", "requirements", "src", "tests")
    files = [path for part in parts for path in (CHECKOUT / part).rglob("*") if path.is_file()]
    expected = {
        path.relative_to(CHECKOUT).as_posix()
        for path in files
        if not {"__pycache__", "_build"} & set(path.parts)
    }
    assert expected <= names
    assert {*NEEDED, "CONTRIBUTING.md", "Makefile", "noxfile.py"} - {"src"} <= names


PROGRAM = """
import json, pathlib, sys, sysconfig
before = set(sys.modules)
import loadwise, loadwise.testing
from loadwise import *
balancer = Balancer(["a", "b"], ConsistentHash())
with balancer.acquire(hash_key="user-42") as lease:
    node = lease.node
site = pathlib.Path(sysconfig.get_path("purelib"))
loaded = set(sys.modules) - before
foreign = sorted(
    {name.partition(".")[0] for name in loaded
     if site in pathlib.Path(getattr(sys.modules[name], "__file__", None) or "/").parents}
)
print(json.dumps({
    "node": node,
    "place": str(pathlib.Path(loadwise.__file__).parent),
    "site": str(site),
    "foreign": foreign,
    "loaded": sorted(loaded),
    "version": loadwise.__version__,
}))
"""


def test_it_works_alone(environment: Environment) -> None:
    """Installed with xxhash alone, it imports and picks, and loads nothing of any extra."""
    told = json.loads(environment.python("-c", PROGRAM).stdout)
    assert told["place"] == str(Path(told["site"]) / "loadwise")
    assert told["node"] in ("a", "b")
    assert told["version"] == loadwise.__version__
    assert told["foreign"] == ["loadwise", "xxhash"]
    parts = {name.split(".")[1] for name in told["loaded"] if name.startswith("loadwise.")}
    assert not parts & {"cli", "integrations", "simulation"}
    costly = {"asyncio", "concurrent.futures", "ssl", "http.client", "socket", "multiprocessing"}
    assert not costly & set(told["loaded"])


@pytest.mark.parametrize("by", ["module", "script"])
def test_the_command_line_names_its_extra(environment: Environment, by: str) -> None:
    """Without typer and rich, the command says what to install, in one line and no traceback."""
    if by == "module":
        done = environment.python("-m", "loadwise", "strategies", fails=True)
    else:
        done = run(environment.bin / "loadwise", "strategies", cwd=environment.folder, fails=True)
    assert done.returncode != 0
    assert "pip install 'loadwise[cli]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_integration_names_what_it_needs(environment: Environment) -> None:
    """Without its library, an integration fails with the name of what is missing."""
    done = environment.python("-c", "import loadwise.integrations.httpx", fails=True)
    assert done.returncode != 0
    assert "httpx" in done.stderr.splitlines()[-1]
