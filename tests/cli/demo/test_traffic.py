"""The demo's clients: what they verify, and what they make of broken connections."""

from __future__ import annotations

from collections.abc import Hashable

from loadwise import Balancer, Endpoint, NoopCollector, Outcome, RoundRobin
from loadwise.cli.demo.fleet import DemoFleet
from loadwise.cli.demo.server import Profile
from loadwise.cli.demo.stream import Stream
from loadwise.cli.demo.traffic import Traffic

ONE = Profile("one", (0.0, 0.0), 0.0, 1, "quick")
TWO = Profile("two", (0.0, 0.0), 0.0, 1, "quick")


class Failures(NoopCollector):
    """The nodes of the attempts that failed."""

    def __init__(self) -> None:
        self.nodes: list[Hashable] = []

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        if outcome is Outcome.FAILURE:
            self.nodes.append(node_id)


def traffic_to(
    ports: dict[str, int],
    stream: Stream,
    concurrency: int = 1,
    failures: Failures | None = None,
) -> Traffic:
    """Clients of a balancer of its own, whose nodes are on these ports."""
    nodes = [Endpoint(name) for name in ports]
    balancer = Balancer(nodes, RoundRobin(), metrics=failures or NoopCollector())
    return Traffic(balancer, ports, stream, concurrency)


def test_answer_of_the_wrong_server_is_no_answer() -> None:
    """A good answer that carries another server's name is refused, and the request is lost."""
    with DemoFleet(1, (TWO,)) as fleet:
        traffic = traffic_to({"one": fleet["two"].port}, Stream(1, 0.0, 1, gate=1))
        traffic.start()
        assert traffic.wait(20)
        traffic.stop()
    assert traffic.answers == []
    assert "request 0 to 'one' was answered with" in traffic.lost[0]
    assert '"server": "two"' in traffic.lost[0]
    assert fleet["two"].answered == {0}


def test_failed_attempt_is_answered_by_another_server() -> None:
    """If one of two nodes refuses connections, each request is answered by the other."""
    with DemoFleet(1, (ONE, TWO)) as fleet:
        ports = {server.name: server.port for server in fleet}
        fleet["two"].kill()
        failures = Failures()
        traffic = traffic_to(ports, Stream(50, 0.0, 1, gate=50), 4, failures)
        traffic.start()
        assert traffic.wait(20)
        traffic.stop()
    assert traffic.lost == {}
    assert {answer.number for answer in traffic.answers} == set(range(50))
    assert {answer.server for answer in traffic.answers} == {"one"}
    assert set(failures.nodes) == {"two"}
    assert traffic.retried == len(failures.nodes) > 0
    assert {answer.attempt for answer in traffic.answers} == {1, 2}


def test_errors_that_a_server_answers_with_are_retried_and_counted() -> None:
    """A server that fails 90 % of its requests costs attempts, and no request.

    Sixty requests take turns, so it is asked until it is UNHEALTHY; that none of its first three
    answers is a failure happens in 1 of 1,000 runs, and not with this seed.
    """
    bad = Profile("two", (0.0, 0.0), 0.9, 1, "fails")
    with DemoFleet(1, (ONE, bad)) as fleet:
        ports = {server.name: server.port for server in fleet}
        failures = Failures()
        traffic = traffic_to(ports, Stream(60, 0.0, 1, gate=60), failures=failures)
        traffic.start()
        assert traffic.wait(20)
        traffic.stop()
    assert traffic.lost == {}
    assert len(traffic.answers) == 60
    assert set(failures.nodes) == {"two"}
    assert fleet["two"].refused == len(failures.nodes) == traffic.retried > 0


def test_last_error_of_a_request_without_an_answer_is_told() -> None:
    """With one server that always answers 503, every request is lost, and says so."""
    bad = Profile("one", (0.0, 0.0), 1.0, 1, "fails")
    with DemoFleet(1, (bad,)) as fleet:
        traffic = traffic_to({"one": fleet["one"].port}, Stream(1, 0.0, 1, gate=1))
        traffic.start()
        assert traffic.wait(20)
        traffic.stop()
    assert traffic.lost == {0: "AnswerError: 503 Service Unavailable from 'one'"}


def test_connection_to_a_dead_process_is_not_reused() -> None:
    """A restarted server's first request does not fail on the connection to its predecessor."""
    with DemoFleet(1, (ONE,)) as fleet:
        one = fleet["one"]
        stream = Stream(2, 0.0, 1, gate=1)
        failures = Failures()
        traffic = traffic_to({"one": one.port}, stream, failures=failures)
        traffic.start()
        # The worker waits at the gate, its first request done, its connection open.
        while not traffic.answers:
            assert not traffic.wait(0.005)
        one.kill()
        one.start()
        assert one.is_ready(20)
        stream.open()
        assert traffic.wait(20)
        traffic.stop()
    assert failures.nodes == []
    assert [answer.number for answer in traffic.answers] == [0, 1]


def test_no_server_at_all_loses_the_requests_and_ends() -> None:
    """With nobody to ask, each request is given up with its reason, and the threads end.

    The only server is asked to the end, as a last resort.
    """
    with DemoFleet(1, (ONE,)) as fleet:
        port = fleet["one"].port
    traffic = traffic_to({"one": port}, Stream(5, 0.0, 1, gate=5), concurrency=2)
    traffic.start()
    assert traffic.wait(20)
    traffic.stop()
    assert set(traffic.lost) == set(range(5))
    assert all("ConnectError" in reason for reason in traffic.lost.values())
