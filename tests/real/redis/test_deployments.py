"""Servers that fork: every worker shares for itself, answers at once and gives back in the end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_port
from tests.real.redis.observer import Observer
from tests.real.redis.support import DEADLINE, Valkey, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform does not fork"),
]

FOLDER = Path(__file__).parent
LIMIT = 100_000
UWSGI = Path(sys.executable).with_name("uwsgi")


def needs(package: str) -> pytest.MarkDecorator:
    """Skip a test where a server is not installed."""
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


class Service:
    """A server at work, and what its workers answered."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.port = port
        self.process = process
        self.log = log
        self.answers: list[dict[str, Any]] = []

    @property
    def granted(self) -> int:
        """How many requests were granted quota."""
        return sum(answer["granted"] for answer in self.answers)

    def get(self, path: str = "/") -> dict[str, Any] | None:
        """Return the answer to a request; ``None`` while nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request("GET", path)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        except ConnectionRefusedError:
            return None
        finally:
            connection.close()
        self.answers.append(answer)
        return answer

    def hear_all(self, workers: int) -> None:
        """Ask, many requests at a time, until so many workers have answered."""

        def ask() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            list(pool.map(lambda _: self.get(), range(at_once)))
            return len({answer["pid"] for answer in self.answers}) >= workers

        at_once = 8 * workers  # one worker may take all that it can
        with ThreadPoolExecutor(at_once) as pool:
            until(ask)

    def end(self) -> str:
        """Have it end in an orderly way; return what it logged."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE)
        return self.log.read_text()


@contextmanager
def serving(
    valkey: Valkey, prefix: str, port: int, *command: object, **environment: str
) -> Iterator[Service]:
    """Run a server of `deployed`; make sure that it is gone in the end."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=FOLDER,
                env=os.environ | {"VALKEY_PORT": str(valkey.port), "PREFIX": prefix} | environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield Service(port, process, log)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the workers, too
            process.wait(DEADLINE)


def check_workers(service: Service, workers: int) -> None:
    """Check that workers grant their very first requests, and are connected."""
    service.hear_all(workers)
    assert all(answer["granted"] for answer in service.answers), service.answers
    assert all(answer["connected"] == [True, True] for answer in service.answers), service.answers


def check_end(service: Service, observer: Observer) -> str:
    """Check that nothing is lost in the end; return what was logged."""
    log = end_failing(service, observer)
    assert observer.used(LIMIT) == service.granted, log
    return log


def check_signals(service: Service) -> None:
    """Check that no thread but the main one may be struck by a signal that ends a worker.

    uWSGI exits from within its handler. In another thread that waits for the main one for ever, so
    exit handlers do not run, and without a master the process stays until it is killed.
    """
    for pid in {answer["pid"] for answer in service.answers}:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # a probe's thread may end meanwhile
                status = (task / "status").read_text()
                mask = int(status.split("SigBlk:")[1].split()[0], 16)
                assert (mask >> signal.SIGTERM - 1 & 1) == (task.name != str(pid)), status


def end_failing(service: Service, observer: Observer) -> str:
    """End a service right after one of its workers saw a node fail; return what was logged."""
    assert service.get("/fail")
    log = service.end()
    assert "Traceback" not in log
    observer.sees_down("down")
    return log


@needs("gunicorn")
@pytest.mark.parametrize(
    ("worker", "options"),
    [
        ("sync", ["--preload"]),
        ("gthread", ["--preload"]),
        ("gevent", ["--preload"]),
        ("gevent", []),
    ],
    ids=["sync preload", "gthread preload", "gevent preload", "gevent"],
)
def test_gunicorn(
    valkey: Valkey, prefix: str, observer: Observer, worker: str, options: list[str]
) -> None:
    """2 workers of gunicorn, be the program loaded before they are forked or not."""
    if worker == "gevent" and find_spec("gevent") is None:
        pytest.skip("gevent is not installed")
    port = free_port()
    with serving(
        valkey,
        prefix,
        port,
        *(sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", 2),
        *("--worker-class", worker, *options, "deployed:application"),
        CHECK="1",
    ) as service:
        check_workers(service, 2)
        assert all(answer["checks"] for answer in service.answers)
        check_end(service, observer)


@needs("uvicorn")
def test_uvicorn(valkey: Valkey, prefix: str, observer: Observer) -> None:
    """2 workers of uvicorn, which close what they share at the end of their lifespan."""
    port = free_port()
    with serving(
        valkey,
        prefix,
        port,
        *(sys.executable, "-m", "uvicorn", "--port", port, "--workers", 2, "deployed:serve"),
    ) as service:
        check_workers(service, 2)
        check_end(service, observer)


@pytest.mark.skipif(not UWSGI.exists(), reason="uWSGI is not installed: pip install pyuwsgi")
@pytest.mark.parametrize(
    "options",
    [
        ["--master"],
        ["--master", "--threads=2"],
        ["--master", "--enable-threads", "--py-call-uwsgi-fork-hooks"],
        ["--master", "--enable-threads", "--lazy-apps"],
        ["--enable-threads"],
    ],
    ids=" ".join,
)
def test_uwsgi(valkey: Valkey, prefix: str, observer: Observer, options: list[str]) -> None:
    """4 workers of uWSGI, which forks without Python's hooks unless it is told to run them.

    Where it runs no threads (up to 2.0.26, unless told to) one warning says what to do, and quotas
    work all the same: requests do what is to be done in the background. What cannot work says so.
    """
    port, workers = free_port(), 4 if "--master" in options else 1
    # Else it kills workers in the midst of what they do; but with threads it may wait for ever.
    has_mercy = "--master" in options and "--threads=2" not in options
    mercy = ["unix_signal:15 gracefully_kill_them_all"] if has_mercy else []
    with serving(
        valkey,
        prefix,
        port,
        *(UWSGI, "--http-socket", f"127.0.0.1:{port}", "--processes", workers, "--need-app"),
        *("--virtualenv", sys.prefix, "--wsgi-file", "deployed.py", "--die-on-term", *options),
        *(f"--hook-master-start={hook}" for hook in mercy),
        CHECK="1",
    ) as service:
        service.hear_all(workers)
        threads = {answer["uwsgi threads"] for answer in service.answers} == {True}
        expected = {"granted": True, "connected": [True, threads], "checks": threads}
        for answer in service.answers:
            assert {name: answer[name] for name in expected} == expected
        if threads and "--threads=2" not in options and sys.platform == "linux":
            check_signals(service)
        log = check_end(service, observer) if mercy else service.end()
    assert log.count("enable-threads = true") == (0 if threads else 1)


@pytest.mark.skipif(not UWSGI.exists(), reason="uWSGI is not installed: pip install pyuwsgi")
def test_uwsgi_with_a_replaced_hook(valkey: Valkey, prefix: str, observer: Observer) -> None:
    """Where a program replaces the hook, workers notice the fork when they use what is shared.

    From then on a `HealthChecker` runs there, too.
    """
    port = free_port()
    with serving(
        valkey,
        prefix,
        port,
        *(UWSGI, "--http-socket", f"127.0.0.1:{port}", "--processes", 2, "--need-app"),
        *("--virtualenv", sys.prefix, "--wsgi-file", "deployed.py", "--die-on-term", "--master"),
        *("--enable-threads", "--hook-master-start=unix_signal:15 gracefully_kill_them_all"),
        CHECK="1",
        REPLACE="1",
    ) as service:
        check_workers(service, 2)
        assert all(answer["checks"] for answer in service.answers)
        check_end(service, observer)


@needs("gevent")
def test_gevent(valkey: Valkey, prefix: str, observer: Observer) -> None:
    """A process that gevent has patched forks while its background is at work; both go on."""
    program = """
from gevent import monkey

monkey.patch_all()
import os, sys, time
import deployed


def use(times):
    for _ in range(times):
        assert deployed.use()["granted"]
        time.sleep(0.01)


use(5)
child = os.fork()
if child == 0:
    use(5)
    deployed.health.report_failure("down")
    sys.exit(7)
use(5)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
use(5)
answer = deployed.use()
assert answer["connected"] == [True, True]
assert answer["checks"]
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=FOLDER,
        env=os.environ | {"VALKEY_PORT": str(valkey.port), "PREFIX": prefix, "CHECK": "1"},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stderr) == (0, "")
    observer.sees_down("down")
    assert observer.used(LIMIT) == 21


@needs("gevent")
def test_gevent_that_patches_late(valkey: Valkey, prefix: str) -> None:
    """Threads begun after gevent has patched what was imported before end when they are closed.

    So does gunicorn with ``--preload``. gevent's threads are of another class, and who joins one of
    the old class waits for ever.
    """
    program = """
import threading, warnings
import deployed
from gevent import monkey

warnings.simplefilter("ignore")
monkey.patch_all()
deployed.checker.start()
assert deployed.use()["granted"]
threads = [each for each in threading.enumerate() if each.name.startswith("loadwise")]
threads = [each for each in threads if "'node'" not in each.name]  # those of single checks
assert len(threads) == 4, threads
for each in (deployed.quota, deployed.health):
    each.close()
deployed.checker.stop()
print(*(each.name for each in threads if each.is_alive()))
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=FOLDER,
        env=os.environ | {"VALKEY_PORT": str(valkey.port), "PREFIX": prefix},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stderr, run.stdout) == (0, "", "\n")


@needs("celery")
def test_celery(valkey: Valkey, prefix: str, observer: Observer) -> None:
    """2 workers of celery: a soft time limit ends one task, and nothing else."""
    environment = {"VALKEY_PORT": str(valkey.port), "PREFIX": prefix, "CELERY": "1"}
    program = """
import json, sys
import deployed
from celery.exceptions import SoftTimeLimitExceeded

tasks = [deployed.work.delay("/") for _ in range(20)]
slow = deployed.take_too_long.apply_async(soft_time_limit=1)
answers = [task.get(timeout=60) for task in tasks]
try:
    slow.get(timeout=60)
except SoftTimeLimitExceeded:
    answers += [deployed.work.delay(path).get(timeout=60) for path in ("/", "/", "/fail")]
print(json.dumps(answers))
"""
    with serving(
        valkey,
        prefix,
        0,
        *(sys.executable, "-m", "celery", "-A", "deployed", "worker", "--concurrency", 2),
        *("--without-gossip", "--without-mingle", "--loglevel", "INFO"),
        **environment,
    ) as service:
        run = subprocess.run(
            [sys.executable, "-c", program],
            cwd=FOLDER,
            env=os.environ | environment,
            capture_output=True,
            check=False,
            text=True,
            timeout=120,
        )
        assert run.returncode == 0, run.stderr + service.log.read_text()
        service.answers = json.loads(run.stdout)
        assert service.granted == len(service.answers) == 23
        log = service.end()
        observer.sees_down("down")
        assert observer.used(LIMIT) == service.granted + 1, log
