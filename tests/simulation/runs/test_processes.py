"""Processes that work through a list: what they leave behind when things go wrong is nothing."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loadwise.simulation.runs.processes import WorkerLost, work_through

# What is started in the background of a shell ignores interrupts, and so would what it starts.
PATIENT = """
import signal
import threading
from multiprocessing import resource_tracker
from loadwise.simulation.runs.processes import work_through

def wait(number):
    print("began", flush=True)
    threading.Event().wait()

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    list(work_through([1, 2, 3], wait, 2))
"""


def start(folder: Path, source: str) -> subprocess.Popen[str]:
    """Run a script, in a session of its own."""
    script = folder / "script.py"
    script.write_text(source)
    return subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_results_come_with_their_places() -> None:
    """In whatever order they come, each tells which task it is of."""
    assert sorted(work_through([3, -1, -4], abs, 2)) == [(0, 3), (1, 1), (2, 4)]
    assert multiprocessing.active_children() == []


def test_more_processes_than_tasks() -> None:
    """Those without a task end."""
    assert [*work_through([-7], abs, 3)] == [(0, 7)]
    assert [*work_through([], abs, 2)] == []


def test_leaving_early_ends_the_processes() -> None:
    """Whoever has enough closes the generator."""
    results = work_through([*range(50)], abs, 2)
    next(results)
    assert multiprocessing.active_children()
    results.close()
    assert multiprocessing.active_children() == []


def test_errors_are_those_of_the_work() -> None:
    """With where they come from as a note."""
    with pytest.raises(ValueError, match="invalid literal") as caught:
        [*work_through(["text"], int, 1)]
    assert "in another process:\nTraceback" in caught.value.__notes__[0]


def test_processes_in_the_middle_of_work_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """They do not wait for their work to end first, which in this test it never does.

    They inherit the pipes of the output, so these end when all processes are gone.
    """
    with start(tmp_path, PATIENT) as parent:
        assert parent.stdout is not None
        assert [parent.stdout.readline() for _ in range(2)] == ["began\n", "began\n"]
        parent.kill()
        _, errors = parent.communicate(timeout=60)
    assert errors == ""


def test_interrupt_in_the_middle_of_work(tmp_path: Path) -> None:
    """Ctrl-C raises in the parent alone, which ends the others in the middle of their work."""
    with start(tmp_path, PATIENT) as parent:
        assert parent.stdout is not None
        assert [parent.stdout.readline() for _ in range(2)] == ["began\n", "began\n"]
        parent.send_signal(signal.SIGINT)
        _, errors = parent.communicate(timeout=60)
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_interrupt_that_another_thread_is_given(tmp_path: Path) -> None:
    """The system may give it to any thread, as it does when the process was suspended before."""
    source = PATIENT.replace(
        "    list(work",
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "    resource_tracker.ensure_running()  # which would let interrupts in again\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n"
        "    list(work",
    )
    with start(tmp_path, source) as parent:
        assert parent.stdout is not None
        assert [parent.stdout.readline() for _ in range(2)] == ["began\n", "began\n"]
        parent.send_signal(signal.SIGINT)
        try:
            _, errors = parent.communicate(timeout=20)
        finally:
            parent.kill()
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_script_without_its_guard(tmp_path: Path) -> None:
    """A script that would start processes in each process is told what it lacks."""
    source = PATIENT.replace('if __name__ == "__main__":', "if True:")
    with start(tmp_path, source) as parent:
        _, errors = parent.communicate(timeout=60)
    assert parent.returncode == 1
    assert "does the script lack its if __name__ == '__main__'?" in errors.splitlines()[-1]
    assert WorkerLost.__name__ in errors.splitlines()[-1]
