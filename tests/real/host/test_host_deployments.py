"""A host's picture under real servers and pools: sums are right, and end at 0."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_port

from loadwise import Balancer
from loadwise.shared_memory import HostState

FOLDER = Path(__file__).parent
DEADLINE = 60.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the locks")


def in_flight(balancer: Balancer[str]) -> int:
    """Return how many requests a balancer knows to be in flight."""
    return sum(each.in_flight for each in balancer.status())


@contextmanager
def gunicorn(folder: Path, *options: str, **environment: str) -> Iterator[str]:
    """Run a gunicorn with three workers until the block ends; yield its address."""
    port = free_port()
    command = [
        sys.executable, "-m", "gunicorn", "--workers", "3", "--bind", f"127.0.0.1:{port}",
        "--chdir", str(FOLDER), "--no-control-socket", "--log-level", "warning", *options,
        "deployed:application",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, "HOST_STATE": str(folder / "api"), **environment},
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(DEADLINE)


@contextmanager
def running(folder: Path, *command: str, **environment: str) -> Iterator[None]:
    """Run a module of this interpreter until the block ends."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=FOLDER,
            env={**os.environ, "HOST_STATE": str(folder / "api"), **environment},
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(DEADLINE)


def ask(url: str) -> dict[str, Any] | None:
    """Return the answer to a request; ``None`` while nobody listens."""
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE) as answer:  # noqa: S310 - it is http
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.URLError:
        return None


def ask_all(url: str) -> list[dict[str, Any]]:
    """Ask until each of the three workers has answered; return all answers."""
    answers: list[dict[str, Any]] = []
    latest = time.monotonic() + DEADLINE
    while len({each["pid"] for each in answers}) < 3:
        assert time.monotonic() < latest, answers
        answer = ask(url)
        if answer is not None:
            answers.append(answer)
    return answers


@pytest.mark.skipif(find_spec("gunicorn") is None, reason="gunicorn is not installed")
@pytest.mark.parametrize("options", [(), ("--preload",)])
def test_gunicorn(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Whether workers load the program, or are forked from a process that has used it."""
    with gunicorn(tmp_path, *options, WARM="1") as url:
        served = ask_all(f"{url}/")
        assert all(each["shared"] for each in served)
        balancer = Balancer(["a", "b"], host=HostState(tmp_path / "api"))
        assert in_flight(balancer) == 0
        answers = ask_all(f"{url}/hold")
        assert [each["in flight"] for each in answers] == [*range(1, len(answers) + 1)]
        assert in_flight(balancer) == len(answers)
        assert ask_all(f"{url}/end")[-1]["in flight"] == in_flight(balancer) == 0
        ask_all(f"{url}/hold")
    none_left(balancer)  # the workers have ended


def none_left(balancer: Balancer[str]) -> None:
    """Wait until nothing is in flight."""
    latest = time.monotonic() + DEADLINE
    while in_flight(balancer):
        assert time.monotonic() < latest
        time.sleep(0.02)


@pytest.mark.skipif(find_spec("uvicorn") is None, reason="uvicorn is not installed")
def test_uvicorn(tmp_path: Path) -> None:
    """Three workers, which are spawned."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = ("--workers", "3", "--port", str(port), "--timeout-worker-healthcheck", "60")
    with running(tmp_path, "uvicorn", "deployed:asgi", *options, WARM="1"):
        assert all(each["shared"] for each in ask_all(f"{url}/"))
        balancer = Balancer(["a", "b"], host=HostState(tmp_path / "api"))
        assert in_flight(balancer) == 0
        answers = ask_all(f"{url}/hold")
        assert [each["in flight"] for each in answers] == [*range(1, len(answers) + 1)]
        assert in_flight(balancer) == len(answers)
        assert ask_all(f"{url}/end")[-1]["in flight"] == in_flight(balancer) == 0
        ask_all(f"{url}/hold")
    none_left(balancer)


@pytest.mark.skipif(find_spec("celery") is None, reason="celery is not installed")
def test_celery(tmp_path: Path) -> None:
    """Two children that do two tasks each: those that come after have rows of their own."""
    for name in ("tasks", "results"):
        (tmp_path / name).mkdir()
    environment = {"CELERY": str(tmp_path), "WARM": "1"}
    program = (
        "import deployed, json, sys; print(json.dumps([deployed.work.delay(path)"
        ".get(timeout=60, interval=0.02) for path in sys.argv[1:]]))"
    )
    options = ("--concurrency", "2", "--max-tasks-per-child", "2", "--without-gossip")
    with running(
        tmp_path, "celery", "-A", "deployed", "worker", *options, "--without-mingle", **environment
    ):
        run = subprocess.run(
            [sys.executable, "-c", program, *["/hold"] * 5, *["/"] * 5],
            cwd=FOLDER,
            env={**os.environ, "HOST_STATE": str(tmp_path / "api"), **environment},
            capture_output=True,
            check=False,
            text=True,
            timeout=2 * DEADLINE,
        )
        assert run.returncode == 0, run.stderr + (tmp_path / "log").read_text()
        answers = json.loads(run.stdout)
        assert all(each["shared"] for each in answers)
        assert len({each["pid"] for each in answers}) >= 5
        balancer = Balancer(["a", "b"], host=HostState(tmp_path / "api"))
        none_left(balancer)  # what was held has ended with its children
        assert len(HostState(tmp_path / "api").processes) <= 4
    none_left(balancer)


PROGRAM = """
import json, multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import deployed

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        held = list(pool.map(deployed.answer, ["/hold"] * 20))
        seen = deployed.answer("/")
        for _ in range(1000):
            if not pool.submit(deployed.answer, "/end").result()["in flight"]:
                break
        print(json.dumps([held, seen, deployed.answer("/")]))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(tmp_path: Path, method: str) -> None:
    """Pools of processes that begin anew, or are forked from one that has used it."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    run = subprocess.run(
        [sys.executable, program, method],
        env={
            **os.environ,
            "HOST_STATE": str(tmp_path / "api"),
            "WARM": "1",
            "PYTHONPATH": os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        check=False,
        text=True,
        timeout=DEADLINE,
    )
    assert run.returncode == 0, run.stderr
    held, seen, last = json.loads(run.stdout)
    assert all(each["shared"] for each in [*held, seen, last])
    assert seen["pid"] not in {each["pid"] for each in held}
    assert max(each["in flight"] for each in held) == seen["in flight"] == 20
    assert last["in flight"] == 0
