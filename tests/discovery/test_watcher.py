"""The watcher that runs in threads: what it asks and when, how it ends, and what a fork does."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

import pytest
from tests.discovery.support import TIMEOUT, Listed, logged, until, until_nodes

from loadwise import Balancer
from loadwise.discovery import CallableSource, FileSource, Found, SourceError, Watcher
from loadwise.discovery.pace import LookPace

QUICK = 0.005
"""Seconds between two calls of a function."""


def threads() -> list[str]:
    """The names of the threads of watchers."""
    names = (thread.name for thread in threading.enumerate())
    return sorted(name for name in names if name.startswith("loadwise-discovery"))


def test_nodes_are_there_when_it_has_started() -> None:
    """They stay when it stops, and nothing is asked any more."""
    listed = Listed("a", "b")
    balancer = Balancer(["own"])
    watcher = Watcher(balancer, CallableSource(listed, interval=QUICK), debounce=0.0)
    assert not watcher.running
    assert "stopped" in repr(watcher)
    with watcher as entered:
        assert entered is watcher
        assert watcher.running
        assert balancer.nodes == ("a", "b")
        assert threads() == ["loadwise-discovery", "loadwise-discovery-source"]
        assert "running" in repr(watcher)
        watcher.start()  # nothing happens
        listed.nodes = ["b", "c"]
        until_nodes(balancer, "b", "c")
    assert not watcher.running
    assert threads() == []
    watcher.stop()  # nothing happens
    calls = listed.calls
    listed.nodes = ["d"]
    assert balancer.nodes == ("b", "c")
    with watcher:
        assert balancer.nodes == ("d",)
    assert listed.calls > calls


def test_a_first_fetch_that_fails_keeps_the_balancers_own_nodes() -> None:
    """It does not raise, and is asked again soon."""
    listed = Listed("a")
    listed.error = OSError("no route to host")
    balancer = Balancer(["own"])
    with logged() as log, Watcher(balancer, CallableSource(listed)) as watcher:
        assert balancer.nodes == ("own",)
        assert watcher.status().failures >= 1
        assert watcher.status().error == "OSError: no route to host"
        listed.error = None
        until_nodes(balancer, "a")
        until(lambda: watcher.status().error is None)
    assert len(log.having("no route to host; what there is, 1 node, stays as it is")) == 1


@pytest.mark.parametrize("error", [SystemExit(), ZeroDivisionError(), SourceError("no")])
def test_whatever_a_function_raises_it_is_asked_again(error: BaseException) -> None:
    """Even what would end a thread."""
    listed = Listed("a")
    balancer = Balancer[str]([])
    with logged(), Watcher(balancer, CallableSource(listed, interval=QUICK)) as watcher:
        listed.error = error
        until(lambda: watcher.status().failures >= 2)
        assert balancer.nodes == ("a",)
        listed.error, listed.nodes = None, ["a", "b"]
        until_nodes(balancer, "a", "b")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (None, "the function returned None; it must return a list of nodes"),
        (7, "the function returned 7; it must return a list of nodes"),
        ("ab", "the nodes are 'ab', whose every character"),
        (range(200_000), "it lists more than 100,000 nodes"),
        ([{}], "dict has the id {}, which is not hashable"),
    ],
)
def test_answers_that_are_no_nodes_change_nothing(answer: Any, text: str) -> None:
    """A million of them are not even looked at."""
    listed = Listed()
    listed.nodes = answer
    balancer: Balancer[Any] = Balancer(["own"])
    with logged() as log, Watcher(balancer, CallableSource(listed)):
        until(lambda: log.having(text), lambda: log.lines)
    assert balancer.nodes == ("own",)


def test_a_function_may_tell_more_than_nodes() -> None:
    """Who is draining, and when to ask again."""
    balancer = Balancer[str]([])
    answers = [
        Found(("a", "b"), again=QUICK),
        Found(("a", "b"), draining=frozenset("a"), again=QUICK),
        Found(("b",)),
    ]
    asked = Event()

    def find() -> Any:
        if len(answers) > 1:
            return answers.pop(0)
        asked.set()
        return Found(("b",), again=3600.0)

    with Watcher(balancer, CallableSource(find), debounce=0.0):
        assert asked.wait(TIMEOUT)
        until_nodes(balancer, "b")


def test_a_function_to_be_awaited_is_refused() -> None:
    """At once where that can be seen, else when it is called."""

    async def find() -> list[str]:
        return ["a"]

    with pytest.raises(TypeError, match="is to be awaited; use AsyncWatcher"):
        Watcher(Balancer[str]([]), CallableSource(find))
    with logged() as log, Watcher(Balancer[str]([]), CallableSource(lambda: find())):  # noqa: PLW0108 - so that it cannot be seen
        until(lambda: log.having("which is to be awaited; use AsyncWatcher"))


def test_a_function_may_yield_its_nodes() -> None:
    """All of them are taken, or none if it fails half way."""
    answers = Listed("a", "b")

    def find() -> Iterator[str]:
        yield from answers.nodes
        answers()

    balancer = Balancer[str]([])
    with logged() as log, Watcher(balancer, CallableSource(find, interval=QUICK)) as watcher:
        assert balancer.nodes == ("a", "b")
        answers.error = OSError("broken off")
        answers.nodes = ["c"]
        until(lambda: log.having("broken off"))
        assert balancer.nodes == ("a", "b")
        assert watcher.running


def test_an_error_without_words_is_no_obstacle() -> None:
    """Its kind is told then."""

    class WordlessError(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    listed = Listed("a")
    listed.error = WordlessError()
    balancer = Balancer[str]([])
    with logged() as log, Watcher(balancer, CallableSource(listed, interval=QUICK)) as watcher:
        assert watcher.status().error == "WordlessError"
        assert log.having("default': WordlessError; what there is, 0 nodes, stays as it is")
        listed.error = None
        until_nodes(balancer, "a")


def test_a_source_that_hangs_holds_up_nobody() -> None:
    """Neither the start for longer than its timeout, nor the end; and no pick."""
    asked, released = Event(), Event()

    def find() -> list[str]:
        asked.set()
        released.wait(TIMEOUT)
        return ["late"]

    balancer = Balancer(["own"])
    watcher = Watcher(balancer, CallableSource(find), timeout=0.0)
    watcher.start()
    assert asked.wait(TIMEOUT)
    assert balancer.pick() == "own"
    watcher.stop()
    assert not watcher.running
    released.set()
    until(lambda: threads() == [])
    assert balancer.nodes == ("own",)


def test_a_change_under_way_ends_before_stop_returns() -> None:
    """It is a strategy of the user's that takes its time here."""
    entered, released = Event(), Event()

    def where(node: str) -> bool:
        if node == "slow" and threading.current_thread().name == "loadwise-discovery":
            entered.set()
            released.wait(TIMEOUT)
        return True

    balancer = Balancer[str]([], where=where)
    watcher = Watcher(balancer, CallableSource(lambda: ["slow"]), timeout=0.0)
    watcher.start()
    assert entered.wait(TIMEOUT)
    stopping = threading.Thread(target=watcher.stop)
    stopping.start()
    assert stopping.is_alive()
    released.set()
    stopping.join(TIMEOUT)
    assert not stopping.is_alive()
    assert balancer.nodes == ("slow",)


def test_a_watcher_may_be_stopped_in_its_own_thread() -> None:
    """By what a balancer calls when its members change."""
    watchers: list[Watcher[str]] = []

    def where(node: str) -> bool:
        if watchers and node == "b":
            watchers[0].stop()
        return True

    listed = Listed("a")
    balancer = Balancer[str]([], where=where)
    watchers.append(Watcher(balancer, CallableSource(listed, interval=QUICK), debounce=0.0))
    watchers[0].start()
    listed.nodes = ["a", "b"]
    until(lambda: not watchers[0].running and not threads())


def test_two_watchers_may_keep_two_balancers_by_one_source() -> None:
    """Each with a feed of its own."""
    source = CallableSource(lambda: ["a"])
    one, other = Balancer[str]([]), Balancer[str]([])
    with Watcher(one, source), Watcher(other, source):
        assert one.nodes == other.nodes == ("a",)


def test_a_watcher_of_a_file_begins_with_its_cache(tmp_path: Path) -> None:
    """The last good answer outlives the process and the file."""
    path, cache = tmp_path / "nodes.toml", tmp_path / "cache.json"
    path.write_text('nodes = ["a:80", {id = "b:80", zone = "z"}]')
    with Watcher(Balancer[Any]([]), FileSource(path), cache=cache):
        pass
    path.unlink()
    balancer = Balancer[Any]([])
    with logged() as log, Watcher(balancer, FileSource(path), cache=str(cache)) as watcher:
        assert [(node.id, node.zone) for node in balancer.nodes] == [("a:80", None), ("b:80", "z")]
        assert watcher.status().from_cache
    assert (
        len(log.having("it cannot be read: No such file or directory; what there is, 2 nodes")) == 1
    )


def test_it_looks_again_within_ten_seconds_after_errors() -> None:
    """Later and later, never at once, and never all at the same time."""
    for seed in range(20):
        pace = LookPace(Random(seed).random)
        waits = [pace.after_error(None) for _ in range(50)]
        assert waits[0] >= 0.125
        assert max(waits) <= 10.0
        assert min(waits[8:]) >= 5.0
        assert len(set(waits)) == 50
        assert pace.after_error(3600.0) == 10.0
        assert 0.0 < pace.after_error(0.0) < 0.1
        # And an answer makes it hopeful again, and is believed as long as it says.
        assert 60.0 <= pace.after_answer(60.0, is_empty=False) <= 66.0
        assert pace.after_answer(60.0, is_empty=True) <= 10.0
        assert pace.after_answer(0.0, is_empty=False) > 0.0
        assert pace.after_error(None) <= 0.25


def test_a_source_of_ones_own() -> None:
    """A feed that waits for news by itself, and that is told when it is over."""
    news, closed = Event(), Event()

    class Pushed:
        def fetch(self) -> Found[str]:
            news.wait(TIMEOUT)
            news.clear()
            return Found(("a",))

        def close(self) -> None:
            closed.set()
            news.set()

    class Source:
        def open(self) -> Pushed:
            return Pushed()

    balancer = Balancer[str]([])
    with Watcher(balancer, Source(), timeout=0.0):
        news.set()
        until_nodes(balancer, "a")
    assert closed.is_set()


@pytest.mark.parametrize("answer", [None, ("a",)])
def test_a_source_of_ones_own_that_is_wrong_is_told(answer: Any) -> None:
    """What a feed returns is looked at; one that cannot be closed is no obstacle."""

    class Wrong:
        def fetch(self) -> Any:
            return answer

        def close(self) -> None:
            raise ValueError

    class Source:
        def open(self) -> Any:
            return Wrong()

    with logged() as log, Watcher(Balancer[Any](["own"]), Source()):
        until(lambda: log.having("it must be a Found"))
    assert len(log.having("a feed could not be closed")) >= 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_broken_clock_ends_it_and_nothing_waits() -> None:
    """It is no longer running then."""

    def clock() -> float:
        raise RuntimeError("the clock is broken")

    watcher = Watcher(Balancer[str]([]), CallableSource(lambda: ["a"]), clock=clock)
    watcher.start()
    until(lambda: not threads())
    assert not watcher.running


async def yielding_async() -> AsyncIterator[str]:
    """Yield a node, which nobody can wait for here."""
    yield "a"


WRONG: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: Watcher([], CallableSource(list)), TypeError, "balancer is [];"),  # type: ignore[arg-type]
    (lambda: Watcher(Balancer(), list), TypeError, "source is <class 'list'>; it must be a source"),  # type: ignore[arg-type]
    (lambda: Watcher(Balancer(), Path()), TypeError, "source is PosixPath('.'); it must be"),  # type: ignore[arg-type]
    (lambda: Watcher(Balancer(), "nodes.toml"), TypeError, "such as FileSource('nodes.toml')"),  # type: ignore[arg-type]
    (lambda: watcher(debounce=-1), ValueError, "debounce is -1; it must be a finite number"),
    (lambda: watcher(debounce="1"), TypeError, "debounce is '1'; it must be a number"),
    (lambda: watcher(hold_back=float("nan")), ValueError, "hold_back is nan"),
    (lambda: watcher(timeout=None), TypeError, "timeout is None; it must be a number"),
    (lambda: watcher(allow_empty=1), TypeError, "allow_empty is 1; it must be True or False"),
    (lambda: watcher(cache=3), TypeError, "cache is 3; it must be the path of a file"),
    (lambda: watcher(rng=3), TypeError, "rng is 3; it must be a random.Random"),
    (lambda: watcher(clock=3), TypeError, "clock is 3; it must be a function"),
    (lambda: watcher(wait=3), TypeError, "wait is 3; it must be a function"),
    (lambda: watcher(debunce=1), TypeError, "no argument 'debunce'; did you mean 'debounce'?"),
    (lambda: CallableSource(3), TypeError, "function is 3; it must be a function"),  # type: ignore[arg-type]
    (lambda: CallableSource(list, interval=0), ValueError, "interval is 0; it must be a finite"),
    (lambda: CallableSource(list, interval="1"), TypeError, "interval is '1'"),  # type: ignore[arg-type]
    (lambda: CallableSource(yielding_async), TypeError, "which yields nodes asynchronously; give"),  # type: ignore[arg-type]
    (lambda: Found((), again=-1.0), ValueError, "again is -1.0; it must be a finite"),
    (lambda: Found("ab"), TypeError, "the nodes are 'ab', whose every character"),  # type: ignore[arg-type]
    (lambda: Found(3), TypeError, "nodes is 3; it must be a tuple of nodes"),  # type: ignore[arg-type]
    (lambda: Found((), draining="a:1"), TypeError, "draining is 'a:1'; it must be a set of ids"),  # type: ignore[arg-type]
    (lambda: Found((), complaints=3), TypeError, "complaints is 3; it must be a mapping"),  # type: ignore[arg-type]
    (lambda: Found((), complaints={"a": 1}), TypeError, "complaints has 1; its keys and"),  # type: ignore[dict-item]
]


def watcher(**options: Any) -> Watcher[Any]:
    """A watcher with some options."""
    return Watcher(Balancer(), CallableSource(list), **options)


@pytest.mark.parametrize(("make", "error", "text"), WRONG)
def test_wrong_arguments_are_refused_at_once(
    make: Callable[[], object], error: type[Exception], text: str
) -> None:
    """With the value and the remedy."""
    with pytest.raises(error) as raised:
        make()
    assert text in str(raised.value)


FORK = """
import os, sys, threading, time
from loadwise import Balancer
from loadwise.discovery import CallableSource, Watcher

listed = ["a"]
def find():
    return [*listed, f"{os.getpid()}"]

def until(holds):
    end = time.monotonic() + 20
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    return holds()

balancer = Balancer([])
running = Watcher(balancer, CallableSource(find, interval=0.01), debounce=0.0)
stopped = Watcher(Balancer([]), CallableSource(find, interval=0.01))
running.start()
assert set(balancer.nodes) == {"a", str(os.getpid())}, balancer.nodes
with running._lock, running._run._lock:
    child = os.fork()
if child == 0:
    listed.append("b")
    ok = until(lambda: set(balancer.nodes) == {"a", "b", str(os.getpid())})
    ok = ok and running.running and not stopped.running
    running.stop()
    names = [thread.name for thread in threading.enumerate()]
    os._exit(0 if ok and not running.running and len(names) == 1 else 1)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert running.running and set(balancer.nodes) == {"a", str(os.getpid())}
running.stop()
print("end")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_goes_on_with_threads_of_its_own() -> None:
    """What ran runs in both, each for its own balancer; what did not run does not.

    In the moment of the fork the watcher's locks are held.
    """
    run = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.stdout, run.returncode) == ("end\n", 0), run.stderr
