"""The metrics of several workers of uWSGI, which forks without running Python's own hooks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from tests.ports import free_port

UWSGI = Path(sys.executable).with_name("uwsgi")
DEADLINE = 60.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not UWSGI.exists(), reason="uWSGI is not installed: pip install pyuwsgi"),
]


@pytest.mark.parametrize("options", [[], ["--py-call-uwsgi-fork-hooks"]], ids=" ".join)
def test_workers_show_what_they_do_whatever_was_done_before_they_were_forked(
    tmp_path: Path, options: list[str]
) -> None:
    """A program that used its balancer while it was loaded shows what each worker has in flight."""
    port, files = free_port(), tmp_path / "files"
    files.mkdir()
    with (tmp_path / "log").open("wb") as output:
        process = subprocess.Popen(
            [
                *(UWSGI, "--http-socket", f"127.0.0.1:{port}", "--master", "--processes", "2"),
                *("--virtualenv", sys.prefix, "--wsgi-file", "app.py", "--callable", "app"),
                *("--need-app", "--enable-threads", "--die-on-term", *options),
            ],
            cwd=Path(__file__).parent,
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(files), "WARM": "1"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        held = 0

        def ask(path: str) -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return str(answer.read().decode())

        def shown() -> float:
            lines = [line.split() for line in ask("/metrics").splitlines()]
            return sum(
                float(line[1]) for line in lines if "loadwise_requests_in_flight{" in line[0]
            )

        end, workers = time.monotonic() + DEADLINE, set[str]()
        while len(workers) < 2 or shown() != held:
            log = (tmp_path / "log").read_text()
            assert process.poll() is None, log
            assert time.monotonic() < end, (workers, held, log)
            if len(workers) < 2:
                with suppress(OSError):  # nobody listens yet
                    workers.add(ask("/hold"))
                    held += 1
        picks = [line for line in ask("/metrics").splitlines() if "loadwise_picks_total{" in line]
        assert sum(float(line.split()[1]) for line in picks) == held + 1
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(DEADLINE)
