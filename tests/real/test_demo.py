"""``loadwise demo`` as its users run it: a process of its own, real servers, real signals."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from tests.cli.demo.running import DEADLINE, LONG, alive, demo, ends_of, pids_in, read_until

pytestmark = pytest.mark.slow


def test_no_request_is_lost_and_the_servers_come_back(tmp_path: Path) -> None:
    """A whole run: nothing is lost, the killed server returns, and all accounts agree."""
    file = tmp_path / "figures.json"
    options = ("--strategy", "p2c-peak-ewma", "--requests", "800", "--seed", "5")
    with demo(*options, "--json", str(file)) as process:
        output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert "800 requests sent, 800 answered" in output
    assert "No request was lost, and the servers' own logs agree." in " ".join(output.split())
    acts = [int(number) for number in re.findall(r" s  act (\d)  ", output)]
    assert acts == [1, 2, 3]
    assert len(set(pids_in(output))) == 7  # six servers, one of them twice
    assert alive(pids_in(output)) == []

    (run,) = json.loads(file.read_text())["runs"]
    servers = {server["name"]: server for server in run["servers"]}
    assert (run["sent"], run["answered"], run["lost"], run["unaccounted"]) == (800, 800, 0, 0)
    assert sum(server["answered"] for server in servers.values()) == 800
    own = sum(server["own_count"] for server in servers.values())
    assert own == 800 + run["died_on_the_way"]
    assert 0 < run["retried"] <= sum(server["failed_attempts"] for server in servers.values())
    # Failed, left alone, probed, taken back, and given traffic again.
    doomed = servers["doomed"]
    assert doomed["failed_attempts"] >= 3
    assert doomed["out_at"] < doomed["back_at"]
    assert doomed["probes_answered"] >= 1
    assert doomed["answered_since_back"] > 0
    assert "doomed is UNHEALTHY" in output
    assert "doomed is HEALTHY: back in full traffic" in output
    assert servers["flaky"]["failed_attempts"] > 0
    assert servers["slow"]["share"] < 1 / 6
    assert servers["slow"]["answered"] > 0


def test_strategies_are_compared(tmp_path: Path) -> None:
    """With several strategies each gets the same stream, and the best is named with a reason."""
    file = tmp_path / "figures.json"
    options = ("-s", "round-robin", "-s", "p2c-peak-ewma", "-n", "600")
    with demo(*options, "--json", str(file)) as process:
        output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    runs = json.loads(file.read_text())["runs"]
    assert [run["strategy"] for run in runs] == ["round-robin", "p2c-peak-ewma"]
    assert [(run["sent"], run["lost"]) for run in runs] == [(600, 0), (600, 0)]
    assert slow_share(runs[1]) < slow_share(runs[0])
    # On a quiet machine that makes p2c-peak-ewma the best.
    best, other = sorted(runs, key=lambda run: run["latency"]["mean"])
    assert f"{best['strategy']} did best" in output
    reason = "The slow server makes the difference" in " ".join(output.split())
    assert reason is (slow_share(best) < slow_share(other))
    assert alive(pids_in(output)) == []


def slow_share(run: dict[str, Any]) -> float:
    """Return the share of a run's answers that came from the slow server."""
    (share,) = (server["share"] for server in run["servers"] if server["name"] == "slow")
    return float(share)


def test_losing_requests_is_reported_and_exits_with_1() -> None:
    """When somebody kills every server, the demo says how many requests were lost and why."""
    with demo("-s", "p2c", "--requests", "3000") as process:
        output = read_until(process, "10%")
        for pid in pids_in(output):
            os.kill(pid, signal.SIGKILL)
        rest, errors = process.communicate()
    assert (process.returncode, errors) == (1, "")
    match = re.search(r"([\d,]+) answered, [\d,]+ retried, ([\d,]+) lost\. The first", rest)
    assert match is not None
    answered, lost = (int(number.replace(",", "")) for number in match.groups())
    assert answered + lost == 3000
    assert lost > 0
    assert "No request was lost" not in rest
    assert alive(pids_in(output + rest)) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_everything(number: signal.Signals) -> None:
    """After SIGINT or SIGTERM in mid-run the exit code is 130 and no server is left."""
    with demo(*LONG) as process:
        output = read_until(process, "10%")
        pids = pids_in(output)
        assert len(alive(pids)) == len(pids) == 6
        process.send_signal(number)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.strip() == "stopped; all servers have been ended"
    assert alive(pids) == []


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux's pidfd to await strangers")
def test_servers_do_not_outlive_a_parent_that_is_killed() -> None:
    """After SIGKILL of the demo itself, which can clean up nothing, every server ends by itself."""
    with demo(*LONG) as process:
        pids = pids_in(read_until(process, "10%"))
        assert len(pids) == 6
        with ends_of(pids) as all_have_ended:
            process.kill()
            process.communicate()
            assert all_have_ended()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_ctrl_c_in_a_terminal_restores_it() -> None:
    """In a terminal the live table is drawn; Ctrl-C removes it and gives the cursor back."""
    import pty  # noqa: PLC0415 - not everywhere

    pid, terminal = pty.fork()
    if not pid:
        os.environ |= {"COLUMNS": "80", "LINES": "40", "TERM": "xterm"}
        os.execv(sys.executable, [sys.executable, "-m", "loadwise", "demo", *LONG])  # noqa: S606 - the child of the fork
    watchdog = Timer(DEADLINE, os.kill, (pid, signal.SIGKILL))
    watchdog.start()
    try:
        output = read_terminal(terminal, lambda seen: "act 1 of 3" in seen)
        os.write(terminal, b"\x03")
        output += read_terminal(terminal, lambda _: False)
        _, status = os.waitpid(pid, 0)
    finally:
        watchdog.cancel()
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    assert "\x1b[?25l" in output
    assert output.rfind("\x1b[?25h") > output.rfind("\x1b[?25l")
    assert output.rstrip().endswith("stopped; all servers have been ended")
    pids = pids_in(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output))
    assert len(pids) == 6
    assert alive(pids) == []


def read_terminal(terminal: int, enough: Callable[[str], bool]) -> str:
    """Return what a terminal shows until it is enough, or there is no more."""
    seen = b""
    while not enough(seen.decode(errors="replace")):
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # how a pseudo-terminal says that the other end is closed
            break
        if not chunk:
            break
        seen += chunk
    return seen.decode(errors="replace")
