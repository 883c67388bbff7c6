"""Each example is run as a user would run it, and prints what it promises."""

from __future__ import annotations

import asyncio
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
DEADLINE = 60.0


STRICT = [sys.executable, "-X", "dev", "-W", "error"]
SLOW_STEP = re.compile(r"^Executing <.*> took [\d.]+ seconds\n", re.MULTILINE)


def run(*arguments: str) -> str:
    """Run Python with every warning an error, and return what it printed."""
    done = subprocess.run(
        [*STRICT, *arguments],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # An error that Python can only print, such as one in a thread or a finaliser, ends up here.
    # In dev mode asyncio says, besides, what took a busy machine longer than 0.1 s.
    errors = SLOW_STEP.sub("", done.stderr)
    assert not errors, errors
    return done.stdout


def test_each_example_is_run_here() -> None:
    """No example stands in the folder untested."""
    tests = Path(__file__).read_text(encoding="utf-8")
    programs = [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*/main.py")]
    names = [path.relative_to(EXAMPLES).as_posix() for path in programs]
    assert not [name for name in names if f'run("{name}")' not in tests]


@pytest.mark.parametrize("name", ["crawler", "gpu_queue", "llm_loop", "matchmaker"])
def test_short_examples_are_short(name: str) -> None:
    """They have forty lines at most, the empty ones aside."""
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert sum(bool(line.strip()) for line in text.splitlines()) <= 40


def test_crawler() -> None:
    """All pages are fetched, the refused ones again, and no site is pressed."""
    assert run("crawler.py").splitlines() == [
        "pages: 31 31 31",
        "requests: 32 32 32 - most at a time: 2 2 2",
    ]


def test_requests_session() -> None:
    """No page is lost, and both servers are found out."""
    assert run("requests_session.py").splitlines() == [
        "answers: {200: 100}",
        "from those that are well: True",
        "known to be unwell: 2",
    ]


def test_gpu_queue() -> None:
    """Jobs begin in order, two at a time on each GPU, but for those given up or refused."""
    assert run("gpu_queue.py").splitlines() == [
        "running: 4 - waiting: 10",
        "begun in this order: 0 1 2 3 4 5 6 8 9 10 11 12 13",
        "refused: job 14, for 'queue'",
        "most at a time: gpu-0 2 gpu-1 2",
    ]


def test_matchmaker() -> None:
    """Everybody plays, and nobody further off than may be."""
    waiting, *games = run("matchmaker.py").splitlines()
    assert waiting == "waiting: 6"
    seats = dict(game.split(": ") for game in games)
    assert [int(rating) for rating in seats] == list(range(900, 2300, 100))
    tables = {"beginners": 1000, "club": 1500, "masters": 2000}
    assert all(abs(int(rating) - tables[name]) <= 400 for rating, name in seats.items())
    assert set(seats.values()) == set(tables)


def test_llm_loop() -> None:
    """Each prompt is answered once, two of them with a second try, by both keys."""
    printed = run("llm_loop.py")
    assert printed.startswith("answers: 24 ")
    seen = {key: int(number) for key, number in re.findall(r"'([\w-]+)', (\d+)", printed)}
    assert seen.pop("requests") == 26
    assert sum(seen.values()) == 24 * 200
    assert len(seen) == 2


def test_threads_with_retries() -> None:
    """No request is lost when one server fails now and then and another is shut down."""
    printed = run("threads_with_retries.py")
    assert printed.startswith("120 of 120 requests were answered")
    assert re.search(r"steady: \d+ requests, HEALTHY", printed)
    assert re.search(r"doomed: \d+ requests, UNHEALTHY .*refused", printed)


def test_asyncio_gateway() -> None:
    """All is answered, little of it by the slow backend, and no slot is left taken."""
    printed = run("asyncio_gateway.py")
    assert printed.startswith("120 of 120 requests were answered")
    rows = re.findall(r"  (\w.*?)\s+(\d+) requests, (\d+) in flight", printed)
    picks = {name: int(number) for name, number, _ in rows}
    assert set(picks) == {"quick", "quick, too", "slow", "hanging"}
    assert picks["slow"] < picks["quick"] + picks["quick, too"]
    assert picks["hanging"] < picks["quick"] + picks["quick, too"]
    assert all(in_flight == "0" for *_, in_flight in rows)


def test_llm_router_with_quotas() -> None:
    """Keys whose limits are known are never refused; the other one is, and that is survived."""
    printed = run("llm_router_with_quotas.py")
    assert printed.startswith("60 of 60 prompts were answered")
    refused = dict(re.findall(r"(key-\w): +\d+ answered, (\d+) refused", printed))
    assert refused["key-a"] == refused["key-b"] == "0"
    assert int(refused["key-c"]) > 0


def test_sticky_cache() -> None:
    """A node that goes down and comes back moves its own keys and no others."""
    printed = run("sticky_cache.py")
    moved = re.search(r"it holds (\d+) keys", printed)
    assert moved is not None
    assert 100 < int(moved[1]) < 400
    hits = [int(number) for number in re.findall(r"(\d+) hits of 1000", printed)]
    rest = 1000 - int(moved[1])
    assert hits == [0, 1000, rest, 1000, rest, 1000]


def test_priority_tiers() -> None:
    """The second tier serves while the whole first tier is down, and only then."""
    assert run("priority_tiers.py").splitlines() == [
        "all is well: own-1 6, own-2 6",
        "own-1 fails: own-2 12",
        "own-2 fails, too: cloud 12",
        "both are back: own-1 6, own-2 6",
    ]


def test_fastapi_gateway() -> None:
    """No caller notices that one backend is broken and another is down."""
    answered, ready, *backends = run("fastapi_gateway.py").splitlines()
    assert [answered, ready] == ["answered well: 60 of 60", "ready: 200"]
    health = ["UNHEALTHY", "HEALTHY", "HEALTHY", "HEALTHY", "UNHEALTHY"]
    assert [line.split()[0] for line in backends] == health
    # No more than three failures, unless a probe was due on a slow machine.
    assert all(int(line.split()[1]) in {0, 3, 4} for line in backends)


class Echo(BaseHTTPRequestHandler):
    """A backend that tells what it was asked, sets two cookies and redirects to itself."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(302)
        self.send_header("Location", f"http://{self.headers['Host']}/next")
        self.send_header("Set-Cookie", "a=1")
        self.send_header("Set-Cookie", "b=2")
        self.send_header("X-Asked", f"{self.path} {self.headers['Cookie']}")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay silent."""


def test_fastapi_gateway_hands_everything_on() -> None:
    """URLs arrive as they were written, headers twice if sent twice, and no cookie is kept."""
    gateway = runpy.run_path(str(EXAMPLES / "fastapi_gateway.py"))["create_app"]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    Thread(target=server.serve_forever, args=(0.01,)).start()

    async def ask() -> list[httpx.Response]:
        app = gateway([f"http://127.0.0.1:{server.server_port}"])
        answers: list[httpx.Response] = []
        async with app.router.lifespan_context(app):
            for path, cookie in (("/x%2Fy//z?q=1&q=2", {"Cookie": "mine=1"}), ("/users", {})):
                # Each caller has a client of its own, which would keep cookies.
                transport = httpx.ASGITransport(app)
                async with httpx.AsyncClient(transport=transport) as caller:
                    answers.append(await caller.get(f"http://gateway{path}", headers=cookie))
        return answers

    try:
        first, second = asyncio.run(ask())
    finally:
        server.shutdown()
        server.server_close()
    assert first.headers["X-Asked"] == "/x%2Fy//z?q=1&q=2 mine=1"
    assert first.headers.get_list("Set-Cookie") == ["a=1", "b=2"]
    assert first.headers["Location"] == "http://gateway/next"
    assert second.headers["X-Asked"] == "/users None"


def test_llm_gateway() -> None:
    """Of five turns each, all but the news is cached: two thirds; and every server is used."""
    answers, cached, used = run("llm_gateway.py").splitlines()
    assert answers == "answers: {'It is deep.'}"
    assert used == "servers used: 3"
    assert 60 <= int(cached.split()[1]) <= 67


def test_outgoing_proxies() -> None:
    """Every page comes; the proxy that is down has failed, the one that is blocked only rests."""
    pages, *proxies = run("outgoing_proxies.py").splitlines()
    assert pages == "40 pages, each once: True"
    assert [line.partition(" after")[0] for line in proxies] == [
        "proxy-0: UNHEALTHY, no cooldown",
        "proxy-1: HEALTHY, 403 from the site, retry",
        "proxy-2: HEALTHY, no cooldown",
        "proxy-3: HEALTHY, no cooldown",
    ]


def test_canary() -> None:
    """The canary gets its share, and nothing is lost when it fails."""
    *before, canary, after = run("canary.py").splitlines()
    assert before == [
        "5 %: 2000 answers, 6% of them by the canary",
        "a tester is sent to canary-0",
        "with a bug: 2000 answers, 0% of them by the canary",
    ]
    assert canary.startswith("canary-0 is UNHEALTHY: 3 failures in a row, the last: ")
    assert after == "50 %: 2000 answers, 51% of them by the canary"


def test_zone_aware() -> None:
    """The own zone keeps what it can bear: all, then 1.4 times a half, then nothing."""
    printed = [line.partition(": ") for line in run("zone_aware.py").splitlines()]
    shares = {when: dict(re.findall(r"(\w) (\d+)%", told)) for when, _, told in printed}
    assert shares["all is well"] == shares["all are back"] == {"a": "100"}
    assert shares["1 of 4 are down in zone a"] == {"a": "100"}
    half = shares["2 of 4 are down in zone a"]
    assert 65 <= int(half["a"]) <= 75
    assert set(shares["4 of 4 are down in zone a"]) == {"b", "c"}


def test_dns_discovery() -> None:
    """The address of localhost is the node."""
    assert run("dns_discovery.py").splitlines() == [
        "nodes: 127.0.0.1:8080",
        *(f"request {number} goes to 127.0.0.1:8080" for number in range(3)),
        "the source answers: True",
    ]


def test_database_replicas() -> None:
    """All reads are answered by the replica that is up, and the write by the primary."""
    printed = run("database_replicas.py").splitlines()
    assert printed[0] == "40 reads were answered: ('replica-1', 40)"
    assert printed[1:3] == ["primary: HEALTHY, well", "replica-1: HEALTHY, well"]
    assert printed[3].startswith("replica-2: UNHEALTHY, 3 failures in a row")


def test_own_strategy() -> None:
    """The strategy spills over as described."""
    assert run("own_strategy.py").splitlines() == [
        "seven at once: small small medium medium large large small",
        "one after another: small small small",
    ]


def test_own_strategy_keeps_the_contract() -> None:
    """Pytest collects the contract's tests from the example, and they pass."""
    printed = run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:benchmark", "own_strategy.py"
    )
    passed = re.search(r"(\d+) passed", printed)
    assert passed is not None
    assert int(passed[1]) > 5


def test_openai_drop_in() -> None:
    """The SDK's prompts use up every key, and the one that allows less refuses once."""
    printed = run("openai_drop_in.py")
    assert printed.startswith("14 prompts were answered, then: no node available")
    assert re.findall(r"(sk-\S+) +(\d+) answered, (\d+) refused", printed) == [
        ("sk-eu-1", "4", "0"),
        ("sk-eu-2", "2", "1"),
        ("sk-us", "8", "0"),
    ]


def test_shared_quota() -> None:
    """Exactly the limit is granted, whoever is killed, and each process sees what is left."""
    header, *lines = run("shared_quota/main.py").splitlines()
    assert re.fullmatch(r"Valkey listens on port \d+; A is process \d+, B \d+\.", header)
    assert [re.sub(r"process \d+", "process N", line) for line in lines[:15]] == [
        "1. Each process sends 30 requests, at the same time:",
        "   A: 30 of 30 granted",
        "   B: 30 of 30 granted",
        "   A sees 40 left",
        "   B sees 40 left",
        "2. The server is killed, and each process sends 10:",
        "   A: 10 of 10 granted",
        "   B: 0 of 10 granted",
        "3. The server is started again, empty, and is told what was used:",
        "   A sees 30 left",
        "   B sees 30 left",
        "4. A is killed, and started again as process N:",
        "   A sees 30 left",
        "   B sees 30 left",
        "5. Each process sends 50, at the same time:",
    ]
    a, b, *rest = lines[15:]
    granted = [re.fullmatch(r"   [AB]: (\d+) of 50 granted", line) for line in (a, b)]
    assert sum(int(match[1]) for match in granted if match) == 30
    assert rest == ["   A sees 0 left", "   B sees 0 left", "100 of 100 requests were granted."]


def test_shared_quota_leaves_nothing_behind(tmp_path: Path) -> None:
    """After Ctrl-C neither a process nor a file is left."""
    with subprocess.Popen(
        [*STRICT, "-u", "shared_quota/main.py"],
        cwd=EXAMPLES,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as program:
        assert program.stdout is not None
        port, *pids = map(int, re.findall(r"\d+", program.stdout.readline()))
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=DEADLINE)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    assert not list(tmp_path.iterdir())


def test_status_page() -> None:
    """It says of each node what is the matter with it."""
    printed = run("status_page.py")
    said = dict(re.findall(r"^(api-\d)  (.*)$", printed, re.MULTILINE))
    assert len(said) == 8
    assert {said[f"api-{number}"] for number in (1, 2, 3, 8)} == {"up"}
    assert re.match(r"slow +its latency is \d+ times the median of ", said["api-4"])
    assert re.match(r"down +\d+ failures in a row, the last: ConnectionRefused", said["api-5"])
    assert re.match(r"cooldown +rate limited, retry after 60 s; back in \d+ s", said["api-6"])
    assert re.match(r"drained +gets no new requests", said["api-7"])
