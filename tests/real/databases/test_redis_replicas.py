"""Replicas of a real Valkey by redis-py: the program of the guide, on a bad day and a good one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import redis
from tests.real.databases.load import Load, program
from tests.real.databases.servers import Relay, until
from tests.real.redis.servers import Node

from loadwise import Outcome

pytestmark = pytest.mark.slow


def url(port: int) -> str:
    """Return how a server on a port is reached."""
    return f"redis://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Node]]:
    """A primary and three replicas."""
    found = [Node("valkey")]
    follows = "--replicaof", f"127.0.0.1 {found[0].port}"
    try:
        found += [Node("valkey", *follows) for _ in range(3)]
        for each in found[1:]:
            until(partial(is_in_touch, each))
        yield found
    finally:
        for each in found:
            each.stop()


def is_in_touch(replica: Node) -> bool:
    """Tell whether a replica follows."""
    return bool(replica.ask("INFO", "replication")["master_link_status"] == "up")


def test_reads_survive_and_no_write_is_done_twice(servers: list[Node]) -> None:
    """One replica is killed, one frozen, one resets; all come back."""
    primary, killed, frozen, reset = servers
    relay = Relay(reset.port)
    where = [url(killed.port), url(frozen.port), url(relay.port)]
    ports = {each.port for each in servers[1:]}

    def ask(client: redis.Redis) -> int:
        client.llen("notes")
        return int(client.info("server")["tcp_port"])

    with program("redis_replicas")["Store"](
        url(primary.port), where, patience=0.3, interval=0.2, rest=0.3
    ) as store:
        with Load(
            lambda: store.read(ask),
            lambda number: store.write(lambda client: client.rpush("notes", number)),
        ) as load:
            load.until_read_from(ports)
            killed.kill()
            load.until_read(50)
            frozen.freeze()
            load.until_read(50)
            relay.reset()
            load.until_read_from({primary.port})
            killed.start()
            frozen.thaw()
            relay.restore()
            load.until_read_from(ports)
        assert [status.in_flight for status in store.balancer.status()] == [0] * 4
    relay.stop()
    assert load.errors() == []
    assert load.lost() == {}
    written = [int(number) for number in primary.ask("LRANGE", "notes", 0, -1)]
    assert sorted(written) == sorted(load.written_well())


def test_a_write_whose_answer_is_lost_is_not_sent_again(servers: list[Node]) -> None:
    """It has been done, and the caller is told that nobody knows."""
    primary, *_ = servers
    relay = Relay(primary.port)
    with program("redis_replicas")["Store"](url(relay.port), [url(servers[1].port)]) as store:
        store.write(lambda client: client.incr("count"))
        relay.lose_an_answer()
        with pytest.raises(redis.ConnectionError):
            store.write(lambda client: client.incr("count"))
        assert [status.in_flight for status in store.balancer.status()] == [0, 0]
    relay.stop()
    assert primary.ask("GET", "count") == b"2"


def test_the_program_runs_as_it_stands(
    servers: list[Node], capsys: pytest.CaptureFixture[str]
) -> None:
    """It writes one value and reads it."""
    program("redis_replicas")["main"](*(url(each.port) for each in servers))
    printed = capsys.readouterr().out.splitlines()
    assert "b'hello'" in printed[:10]
    assert all("HEALTHY" in line for line in printed[10:])


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (redis.ConnectionError(), Outcome.FAILURE),
        (redis.TimeoutError(), Outcome.FAILURE),
        (redis.exceptions.BusyLoadingError(), Outcome.FAILURE),
        (redis.exceptions.MaxConnectionsError(), Outcome.CANCELLED),
        (redis.exceptions.ReadOnlyError(), Outcome.SUCCESS),
        (redis.ResponseError("WRONGTYPE"), Outcome.SUCCESS),
        (KeyError("a bug"), Outcome.CANCELLED),
    ],
    ids=repr,
)
def test_whose_fault_an_error_is(error: Exception, outcome: Outcome) -> None:
    """A refusal is an answer, and a pool that is full no dead server."""
    assert program("redis_replicas")["judge"](error) is outcome
