"""``loadwise compare`` as a process of its own: signals, exit codes, and the same bytes again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest
from tests.cli.compare.support import DEADLINE, Compare, start

pytestmark = pytest.mark.slow

SMALL = ("slow-node", "-s", "p2c", "-s", "random", "--requests", "2000", "--seeds", "3")
LONG = ("supermarket", "--requests", "20000", "--seeds", "3", "--json", "out.json")


def finished(process: Compare) -> tuple[str, str]:
    """Return all output, once every process that could write some is gone."""
    return process.communicate(timeout=DEADLINE)


def under_way(process: Compare) -> None:
    """Wait until runs have ended and others are under way."""
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "runs done" in line, line


def test_json_is_the_same_to_the_byte(tmp_path: Path) -> None:
    """Neither another run, nor more processes, nor another hash seed changes it."""
    variants = [("1", "0"), ("1", "1"), ("2", "77")]
    for place, (jobs, hash_seed) in enumerate(variants):
        options = ("--jobs", jobs, "--json", f"{place}.json", "--csv", f"{place}.csv")
        process = start(tmp_path, *SMALL, *options, PYTHONHASHSEED=hash_seed)
        output, errors = finished(process)
        assert process.returncode == 0, errors
        assert "Verdict" in output
    for kind in ("json", "csv"):
        contents = {(tmp_path / f"{place}.{kind}").read_bytes() for place in range(len(variants))}
        assert len(contents) == 1


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_interrupt(tmp_path: Path, jobs: str, sent: signal.Signals) -> None:
    """Ctrl-C, which a terminal sends to all processes at once, ends them all and writes nothing."""
    with start(tmp_path, *LONG, "--jobs", jobs) as process:
        under_way(process)
        os.killpg(process.pid, sent)
        output, errors = finished(process)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "stopped; nothing was written"
    assert "Traceback" not in errors
    assert "Verdict" not in output
    assert not any(tmp_path.iterdir())


def test_interrupt_of_the_parent_alone(tmp_path: Path) -> None:
    """As ``kill -INT`` does: the other processes are ended by it."""
    with start(tmp_path, *LONG, "--jobs", "2") as process:
        under_way(process)
        process.send_signal(signal.SIGINT)
        _, errors = finished(process)
    assert process.returncode == 130, errors
    assert not any(tmp_path.iterdir())


def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Nobody can end them then, so they do it themselves."""
    with start(tmp_path, *LONG, "--jobs", "2") as process:
        under_way(process)
        process.kill()
        finished(process)
    assert process.returncode == -signal.SIGKILL
    assert not any(tmp_path.iterdir())


def test_output_can_be_piped(tmp_path: Path) -> None:
    """Progress goes to standard error, in lines; results go to standard output, without colours."""
    process = start(tmp_path, *SMALL)
    output, errors = finished(process)
    assert process.returncode == 0
    assert errors.splitlines()[-1] == "6 of 6 runs done"
    assert "runs done" not in output
    assert "\x1b" not in output + errors
    assert max(map(len, output.splitlines())) <= 80


def test_files_are_written_though_nobody_reads_on(tmp_path: Path) -> None:
    """As with ``| head -1``, which ends before there is anything to show."""
    with start(tmp_path, *SMALL, "--json", "out.json") as process:
        under_way(process)
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 1
    assert (tmp_path / "out.json").read_text().endswith("}\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    """A full disk is said to be full, in a line."""
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "loadwise", "compare", *SMALL]
        ended = subprocess.run(
            command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "the comparison cannot be made: [Errno 28]" in ended.stderr


def test_file_that_becomes_unwritable(tmp_path: Path) -> None:
    """A file that cannot be written in the end is named, with exit code 1, below the tables."""
    folder, pipe = tmp_path / "results", tmp_path / "pipe"
    folder.mkdir()
    os.mkfifo(pipe)
    read: list[str] = []
    reader = Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    with start(tmp_path, *SMALL, "--json", "pipe", "--csv", "results/out.csv") as process:
        under_way(process)
        folder.rmdir()
        reader.start()  # for which the JSON, and so the CSV, has waited
        output, errors = finished(process)
    reader.join(DEADLINE)
    assert process.returncode == 1
    assert "--csv results/out.csv was not written" in errors
    assert "Verdict" in output
    assert json.loads(read[0])["results"]
