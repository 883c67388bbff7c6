"""The command ``host`` as its users run it: of a host, of none, and in a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest
from tests.shared_memory.workers import worker
from typer.testing import CliRunner, Result

from loadwise import Balancer, ConsecutiveFailurePolicy, HealthTracker
from loadwise.cli.app import app
from loadwise.shared_memory import HostState, read_host

ATTACK = "\x1b[2J\x1b]0;title\x07\u202e\r\n[bold]x[/bold]\x9b"
PATIENCE = 60.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs the locks of Linux")


def host(*arguments: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["host", *map(str, arguments)], env={"COLUMNS": "100"})


def test_problems_come_first_and_each_process_has_a_column(tmp_path: Path) -> None:
    """Without a terminal it is shown once."""
    path = tmp_path / "api"
    health = HealthTracker(ConsecutiveFailurePolicy(1))
    balancer = Balancer(["a", "b", "c"], health=health, host=HostState(path))
    held = [balancer.acquire(exclude=["b", "c"]) for _ in range(2)]
    balancer.acquire(exclude=["a", "c"]).failure("refused")
    done = host(path)
    assert done.exit_code == 0, done.output
    lines = [" ".join(line.split()) for line in done.output.splitlines()]
    assert lines[:2] == [str(path), "1 of at most 64 processes, 3 nodes, 2 in flight, 1 down"]
    assert lines[3] == "process for in flight nodes"
    assert lines[4].startswith(f"{os.getpid()} ")
    assert lines[4].endswith(" 2 3")
    assert lines[6] == f"state for node in flight cost oldest {os.getpid()}"
    assert lines[7].startswith("down ")
    assert lines[7].endswith("b 0 0")
    assert lines[8] == "up a 2 2"
    assert lines[9] == "up c 0 0"
    assert host(path, "--once").output.splitlines()[1] == done.output.splitlines()[1]
    for lease in held:
        lease.success()


def test_json_is_all_there_is(tmp_path: Path) -> None:
    """For a program."""
    path = tmp_path / "api"
    balancer = Balancer([("10.0.0.1", 80)], host=HostState(path))
    with balancer.acquire():
        done = host(path, "--json")
        assert done.exit_code == 0
        told, known = json.loads(done.output), read_host(path).to_dict()
    for each in (told, known):
        for process in each["processes"]:
            assert process.pop("seconds") >= 0
    assert told == known
    assert told["nodes"][0]["id"] == "('10.0.0.1', 80)"


@pytest.mark.parametrize("option", ["--once", "--json"])
def test_names_do_nothing_to_a_terminal(tmp_path: Path, option: str) -> None:
    """Nor does markup of rich's count."""
    path = tmp_path / f"api{ATTACK.replace('/', '')}"
    balancer = Balancer([f"a{ATTACK}"], host=HostState(path))
    balancer.pick()
    for name in (path, tmp_path / f"none{ATTACK.replace('/', '')}"):
        done = host(name, option)
        assert done.exit_code == (0 if name == path else 1)
        seen = {each for each in done.output if unicodedata.category(each) in ("Cc", "Cf", "Zl")}
        assert seen <= {"\n"}
    assert "[bold]" in host(path, option).output


def test_what_cannot_be_shown(tmp_path: Path) -> None:
    """A file that is none ends it with 1, what can be no name with 2; none is made."""
    path = tmp_path / "api"
    done = host(path)
    assert done.exit_code == 1
    assert done.output.startswith(f"there is no file '{path}'")
    assert not path.exists()
    path.write_bytes(b"something else")
    done = host(path)
    assert done.exit_code == 1
    assert done.output == f"'{path}' is no file of loadwise\n"
    for name in (".", "", tmp_path / "nowhere" / "api"):
        assert host(name).exit_code == 2


def test_in_a_terminal_it_is_live_until_ctrl_c(tmp_path: Path) -> None:
    """It follows, tells when there is nothing any more, and leaves the screen as it was."""
    path = tmp_path / "api"
    with worker(path, "a", "b") as one:
        parent, child = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "loadwise", "host", path],
            stdin=child,
            stdout=child,
            stderr=child,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "24"},
        )
        os.close(child)
        try:
            seen = read_until(parent, "2 nodes, 0 in flight")
            assert "\x1b[?1049h" in seen, "it has a screen of its own"
            one.tell("acquire", 3)
            read_until(parent, "2 nodes, 3 in flight")
            one.end()
            read_until(parent, "No process takes part.")
            path.unlink()
            read_until(parent, "there is no file")
            process.send_signal(signal.SIGINT)
            rest = read_until(parent, "\x1b[?1049l")
            assert "Traceback" not in rest
            assert process.wait(PATIENCE) == 130
        finally:
            process.kill()
            process.wait()
            os.close(parent)


def read_until(terminal: int, text: str) -> str:
    """Return what a terminal shows until a text comes."""
    seen, end = "", time.monotonic() + PATIENCE
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"{text!r} never came; there was:\n{seen}"
        seen += os.read(terminal, 65_536).decode(errors="replace")
    return seen
