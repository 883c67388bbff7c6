"""The demo's clients: what they verify, and what they make of broken connections."""

from __future__ import annotations

from loadwise import Balancer, Endpoint
from loadwise.cli.demo.fleet import Fleet
from loadwise.cli.demo.process import Profile
from loadwise.cli.demo.stream import Stream
from loadwise.cli.demo.traffic import Traffic

ONE = Profile("one", (0.0, 0.0), 0.0, 1, "quick")
TWO = Profile("two", (0.0, 0.0), 0.0, 1, "quick")


def traffic_to(ports: dict[str, int], stream: Stream, concurrency: int = 1) -> Traffic:
    """Clients of a balancer of its own, whose nodes are on these ports."""
    return Traffic(Balancer([Endpoint(name) for name in ports]), ports, stream, concurrency)


def test_answer_of_the_wrong_server_is_no_answer() -> None:
    """A good answer that carries another server's name is refused, and the request is lost."""
    with Fleet(1, (TWO,)) as fleet:
        traffic = traffic_to({"one": fleet["two"].port}, Stream(1, 0.0, 1, gate=1))
        traffic.start()
        assert traffic.wait(20)
        traffic.stop()
    assert traffic.answers == []
    assert "request 0 to 'one' was answered with" in traffic.lost[0]
    assert '"server": "two"' in traffic.lost[0]
    assert fleet["two"].answered == {0}


def test_failed_attempt_is_answered_by_another_server() -> None:
    """Where one of two nodes refuses connections, each request is answered by the other."""
    with Fleet(1, (ONE, TWO)) as fleet:
        ports = {server.name: server.port for server in fleet}
        fleet["two"].kill()
        traffic = traffic_to(ports, Stream(50, 0.0, 1, gate=50), concurrency=4)
        traffic.start()
        assert traffic.wait(20)
        traffic.stop()
    assert traffic.lost == {}
    assert {answer.number for answer in traffic.answers} == set(range(50))
    assert {answer.server for answer in traffic.answers} == {"one"}
    assert {failure.server for failure in traffic.failures} == {"two"}
    assert traffic.retried == len(traffic.failures) > 0


def test_connection_to_a_dead_process_is_not_reused() -> None:
    """A restarted server's first request does not fail on the connection to its predecessor."""
    with Fleet(1, (ONE,)) as fleet:
        one = fleet["one"]
        stream = Stream(2, 0.0, 1, gate=1)
        traffic = traffic_to({"one": one.port}, stream)
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
    assert traffic.failures == []
    assert [answer.number for answer in traffic.answers] == [0, 1]


def test_no_server_at_all_loses_the_requests_and_ends() -> None:
    """With nobody to ask, each request is given up with its reason, and the threads end."""
    with Fleet(1, (ONE,)) as fleet:
        port = fleet["one"].port
    traffic = traffic_to({"one": port}, Stream(5, 0.0, 1, gate=5), concurrency=2)
    traffic.start()
    assert traffic.wait(20)
    traffic.stop()
    assert set(traffic.lost) == set(range(5))
    assert "ConnectionRefusedError" in traffic.lost[0]
    assert "1 unhealthy" in traffic.lost[4]
