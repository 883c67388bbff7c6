"""Shared quotas over a network that loses, repeats, delays and reorders messages.

A state machine drives several processes' counts and the script on a real server. Only the network
between them and the clocks are the test's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from tests.integrations.redis.limits import rpm
from tests.real.redis.support import Valkey

from loadwise.integrations.redis._arguments import Mode
from loadwise.integrations.redis._connection import QUOTA
from loadwise.integrations.redis._shared_counts import SharedCounts
from loadwise.integrations.redis._shared_node import PendingCall, SharedReservation
from loadwise.testing import ManualClock

LIMIT, WINDOW = 10, 60.0
WIDTH = WINDOW / 6
KEY = b"unreliable:quota:node"
# The script as it is, but for its clock.
SCRIPT = QUOTA.text.decode().replace("redis.call('TIME')", "{ ARGV[2], ARGV[3] }")
MODES: list[Mode] = ["strict", "strict", "leased"]

FATES = ["arrive", "repeat", "answer", "lose", "time out"]
TROUBLES = ["forget", "save", "restore"]
ACTS = [
    *["be granted", "ask", "arrive", "answer"] * 3,
    *["speak", "settle", "wait", "record", "settle down"],
    *["repeat", "lose", "time out"],
    *TROUBLES,
]

index = st.integers(0, 2**16)
amounts = st.integers(0, LIMIT)


class Process(SharedCounts):
    """One process's counts; its messages are carried by the test."""

    def __init__(self, mode: Mode, clock: ManualClock) -> None:
        super().__init__(
            "unreliable",
            mode,
            "refuse",
            timeout=1.0,
            slice_share=0.2,
            clock=clock,
            on_event=None,
            wake=lambda: None,
        )
        self.local = clock
        self._set_limits("node", rpm(LIMIT, WINDOW))

    def begin(self, amount: float) -> PendingCall | SharedReservation | None:
        """Begin to acquire."""
        return self._begin("node", {"rpm": amount})

    def due(self) -> Iterator[PendingCall]:
        """Return what the background would send now."""
        return self._due("node")

    def give_up(self, request: PendingCall) -> None:
        """Wait for the reply no longer."""
        self._unanswered(request)

    def answer(self, request: PendingCall, raw: object) -> SharedReservation | None:
        """Take in a reply."""
        self._received(request, raw)
        return self._finish(request) if request.call.op == "acquire" else None

    def own(self, now: int) -> dict[int, float]:
        """Return what it has used in buckets that count at a time of the server's, by their end."""
        buckets = self._nodes["node"].account._buckets["rpm"]
        return {
            end: bucket.own
            for end, bucket in buckets.items()
            if bucket.own and end + WINDOW * 1e6 > now
        }

    def pending(self) -> bool:
        """Whether there is anything that the server has not heard."""
        return self._nodes["node"].account.pending()


class Use:
    """What a request was given, and when."""

    def __init__(self, at: float, amount: float, reservation: SharedReservation) -> None:
        self.at = at
        self.amount = amount
        self.reservation = reservation
        self.settled = False


class Message(NamedTuple):
    """A request on its way."""

    process: Process
    request: PendingCall


class Network(RuleBasedStateMachine):
    """Processes that share a quota of 10, and messages that may meet any fate."""

    client: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.client.delete(KEY)
        self.time = 1_700_000_000_000_000
        self.processes = [Process(mode, ManualClock(100.0 * i)) for i, mode in enumerate(MODES)]
        self.flying: list[Message] = []
        self.replies: list[tuple[Message, float, Any]] = []
        self.given_up: set[int] = set()
        self.uses: list[Use] = []
        self.snapshot: Any = None
        self.gentle = True
        self.forgot = False

    @initialize(gentle=st.booleans())
    def set_out(self, gentle: bool) -> None:  # noqa: FBT001 - as Hypothesis calls it
        """Choose whether the server keeps its memory, and all use is asked for."""
        self.gentle = gentle

    def run(self, message: Message) -> Any:
        """Have the server run a call."""
        seconds, micros = divmod(self.time, 1_000_000)
        return self.client.eval(
            SCRIPT, 1, KEY, message.request.call.payload, str(seconds), str(micros)
        )

    @rule(what=st.sampled_from(ACTS), which=index, amount=amounts)
    def act(self, what: str, which: int, amount: int) -> None:
        """Do one thing; one rule for all, so that Hypothesis leaves none out."""
        if what in ("ask", "be granted"):
            self.acquire(which, amount, at_once=what == "be granted")
        elif what == "speak":
            self.speak(which)
        elif what == "settle":
            self.settle(which, amount)
        elif what == "settle down":
            self.settle_down()
        elif what == "wait":
            self.wait([0.1, 3.0, WIDTH, WINDOW / 2, WINDOW][which % 5])
        elif what in FATES:
            self.befall(which, what)
        elif not self.gentle:
            if what == "record":
                process = self.processes[which % len(self.processes)]
                process.record_usage("node", {"rpm": amount})
            else:
                self.trouble_the_server(what)

    def acquire(self, which: int, amount: float, *, at_once: bool) -> None:
        """A process asks for quota, and is perhaps answered before anything else happens."""
        process = self.processes[which % len(self.processes)]
        begun = process.begin(amount)
        if isinstance(begun, PendingCall):
            message = Message(process, begun)
            if not at_once:
                self.flying.append(message)
                return
            begun = process.answer(begun, self.run(message))
        if begun is not None:
            self.uses.append(Use(self.time, amount, begun))

    def speak(self, which: int) -> None:
        """The background of a process sends what is due."""
        process = self.processes[which % len(self.processes)]
        self.flying.extend(Message(process, request) for request in process.due())

    def befall(self, which: int, fate: str) -> None:
        """A message meets its fate, in any order."""
        if self.flying and fate in ("arrive", "repeat", "lose"):
            which %= len(self.flying)
            message = self.flying[which] if fate == "repeat" else self.flying.pop(which)
            if fate == "lose":
                self.give_up(message)
            else:
                self.replies.append((message, self.time, self.run(message)))
        elif self.replies and fate == "answer":
            self.take_in(*self.replies.pop(which % len(self.replies)))
        elif fate == "time out" and (
            self.flying or self.replies
        ):  # what is on its way may still arrive
            messages = self.flying + [message for message, _, _ in self.replies]
            self.give_up(messages[which % len(messages)])

    def take_in(self, message: Message, at: float, raw: object) -> None:
        """Have a process take in a reply, if it still waits for one."""
        process, request = message
        if id(request) not in self.given_up and request.reply is None:
            reservation = process.answer(request, raw)
            if reservation is not None:
                self.uses.append(Use(at, reservation.amounts["rpm"], reservation))

    def give_up(self, message: Message) -> None:
        """Have a process wait no longer."""
        if message.request.reply is None:
            self.given_up.add(id(message.request))
            message.process.give_up(message.request)

    def settle(self, which: int, amount: float) -> None:
        """The true amount of a use becomes known."""
        unsettled = [use for use in self.uses if not use.settled]
        if not unsettled:
            return
        use = unsettled[which % len(unsettled)]
        if self.gentle:
            amount = min(amount, use.amount)
        use.reservation.settle({"rpm": amount})
        use.settled = True
        use.amount = amount

    def wait(self, seconds: float) -> None:
        """Time passes, for all alike."""
        self.time += int(seconds * 1e6)
        for process in self.processes:
            process.local.advance(seconds)

    def trouble_the_server(self, what: str) -> None:
        """The server forgets all, or comes back with what it knew some time ago."""
        if what == "save":
            self.snapshot = self.client.dump(KEY)
        elif what == "forget":
            self.client.delete(KEY)
            self.forgot = True
        elif self.snapshot:
            self.client.restore(KEY, 0, self.snapshot, replace=True)
            self.forgot = True

    @invariant()
    def no_window_is_overfull(self) -> None:
        """Of what was asked for, no window ending now holds more than the limit."""
        if self.gentle:
            recent = [use.amount for use in self.uses if use.at > self.time - WINDOW * 1e6]
            assert sum(recent) <= LIMIT

    def let_fly(self) -> None:
        """Have all requests arrive that are on their way."""
        for message in self.flying:
            self.run(message)
        self.flying.clear()
        self.replies.clear()

    def settle_down(self) -> None:
        """Once each process got a call through, all counts are right, whatever arrives late."""
        for message in [*self.flying, *(message for message, _, _ in self.replies)]:
            self.give_up(message)
        if self.forgot:  # with its number: then what arrives late is right after the next call
            self.let_fly()
        for process in self.processes:
            # Whoever has never heard of the server first learns its clock; a slice that was taken
            # may replace another, which is given back.
            for _ in range(3):
                process._reconsider_all()  # so that all are due
                for request in process.due():
                    process.answer(request, self.run(Message(process, request)))
            assert not process.pending()
        self.let_fly()
        self.forgot = False
        counted = json.loads(self.client.hget(KEY, "d:rpm") or "{}")
        found = {
            int(end): float(amount)
            for end, amount in counted.items()
            if int(end) + WINDOW * 1e6 > self.time
        }
        expected: dict[int, float] = {}
        for process in self.processes:
            for end, own in process.own(self.time).items():
                expected[end] = expected.get(end, 0) + own
        assert found == expected
        assert all(process.remaining("node", "rpm") <= LIMIT for process in self.processes)


def test_counts_are_right_whatever_becomes_of_messages(valkey: Valkey) -> None:
    """Lost, repeated, delayed, overtaken and given up, on a server that forgets or goes back."""
    with valkey.client() as client:
        Network.client = client
        run_state_machine_as_test(
            Network,
            settings=settings(
                max_examples=60,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
