"""``loadwise demo --shared`` as its users run it: real processes, a real Valkey, real signals."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
from tests.cli.demo.running import DEADLINE, LONG, alive, demo, ends_of, pids_in, read_until

pytestmark = pytest.mark.slow


def test_one_quota_for_both_and_news_for_each(tmp_path: Path) -> None:
    """A whole run: nothing lost, the quota used up and kept, and health known to both."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    file = tmp_path / "figures.json"
    options = ("--requests", "800", "--seed", "5", "--plain", "--json", str(file))
    with demo("--shared", *options, TMPDIR=str(temporary)) as process:
        output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert "800 requests sent by 2 processes, 800 answered" in output
    assert "no quota exceeded, and the servers' own logs agree" in " ".join(output.split())
    acts = [int(number) for number in re.findall(r" s  act (\d)  ", output)]
    assert acts == [1, 2, 3]
    pids = pids_in(output)
    assert len(set(pids)) == 10  # six servers, one of them twice, Valkey, two clients
    assert alive(pids) == []
    assert list(temporary.iterdir()) == []

    told = json.loads(file.read_text())
    assert (told["requests"], told["concurrency"], told["seed"]) == (800, 16, 5)
    run = told["shared"]
    assert (run["strategy"], run["lost"], run["unaccounted"]) == ("p2c-peak-ewma", 0, 0)
    assert [(client["name"], client["answered"]) for client in run["clients"]] == [
        ("A", 400),
        ("B", 400),
    ]
    assert sum(client["failed_attempts"] for client in run["clients"]) >= run["retried"] > 0
    # Both had their share of what they used up together.
    scarce = run["quotas"][0]
    assert (scarce["server"], scarce["limit"]) == ("fast-1", 16)
    assert min(scarce["most_by_client"].values()) > 0
    assert 12 <= scarce["most"] <= 16
    assert all(quota["most"] <= quota["limit"] for quota in run["quotas"])
    # One found out and told the other, or both found out at the same time.
    outage = run["outage"]
    assert outage["uninformed"] == []
    assert len(outage["down"]) <= 1
    assert run["messages"]
    assert all(message["found_by"] != message["told"] for message in run["messages"])


def test_any_strategy_and_few_threads(tmp_path: Path) -> None:
    """With another strategy and a thread for each process nothing is lost either."""
    options = ("-s", "round-robin", "-n", "100", "-c", "1")
    with demo("--shared", *options, TMPDIR=str(tmp_path)) as process:
        output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert "round-robin, shared: " in output
    assert "100 requests sent by 2 processes, 100 answered" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_everything(number: signal.Signals, tmp_path: Path) -> None:
    """After SIGINT or SIGTERM in mid-run the exit code is 130; no process and no file is left."""
    with demo("--shared", *LONG, TMPDIR=str(tmp_path)) as process:
        output = read_until(process, "10%")
        pids = pids_in(output)
        assert len(alive(pids)) == len(pids) == 9
        assert [path.name.startswith("loadwise-demo-") for path in tmp_path.iterdir()] == [True]
        process.send_signal(number)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.strip() == "stopped; all servers have been ended"
    assert alive(pids) == []
    assert list(tmp_path.iterdir()) == []


def test_client_that_dies_ends_the_demo(tmp_path: Path) -> None:
    """When somebody kills a client process, the demo says so and ends all the others."""
    with demo("--shared", *LONG, TMPDIR=str(tmp_path)) as process:
        pids = pids_in(read_until(process, "10%"))
        os.kill(pids[-1], signal.SIGKILL)
        _, errors = process.communicate()
    assert process.returncode == 1
    assert errors == "the demo cannot run: client B ended before its time; it said: nothing\n"
    assert alive(pids) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux's pidfd to await strangers")
def test_nothing_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    """After SIGKILL of the demo itself, all processes end, Valkey too, and its folder is gone."""
    with demo("--shared", *LONG, TMPDIR=str(tmp_path)) as process:
        pids = pids_in(read_until(process, "10%"))
        (folder,) = tmp_path.iterdir()
        assert len(pids) == 9
        with ends_of(pids) as all_have_ended:
            process.kill()
            process.communicate()
            assert all_have_ended()
    # Who kept Valkey removes the folder once Valkey has ended.
    deadline = time.monotonic() + DEADLINE
    while folder.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
