"""Nodes that come and go, tell their health and report their load; stubs made by protoc."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.ports import free_port
from tests.real.grpc.servers import Server, asked

from loadwise import Balancer, Endpoint, HealthStatus, PowerOfTwoChoices
from loadwise.health_checks import AsyncHealthChecker, HealthChecker
from loadwise.integrations import grpc as balanced
from loadwise.integrations.grpc import GrpcProbe, LoadReport, ReportedLoad, aio

Channel: Any = balanced.Channel  # whose calls are of the types of what is sent
AioChannel: Any = aio.Channel
ONE = "/test.Service/One"


@pytest.fixture
def server(servers: list[Server]) -> Iterator[Server]:
    """Yield a server that a test may kill and freeze."""
    yield servers[0]
    servers[0].signal(signal.SIGCONT)


def test_the_next_call_sees_that_a_node_is_back(server: Server) -> None:
    """No pause of gRPC's own holds it up, however often it could not connect before."""
    balancer = Balancer([server.address], health=False)
    with Channel(balancer) as channel:
        one = channel.unary_unary(ONE)
        assert one(asked())
        server.kill()
        for _ in range(20):
            with pytest.raises(grpc.RpcError):
                one(asked())
        server.start()
        assert one(asked())


def test_the_next_call_in_a_loop_sees_that_a_node_is_back(server: Server) -> None:
    """The same holds in an event loop."""

    async def main() -> None:
        async with AioChannel(Balancer([server.address], health=False)) as channel:
            one = channel.unary_unary(ONE)
            assert await one(asked())
            server.kill()
            for _ in range(20):
                with pytest.raises(grpc.RpcError):
                    await one(asked())
            server.start()
            assert await one(asked())

    asyncio.run(main())


def test_health_checks_speak_grpc(server: Server) -> None:
    """A probe passes where a server says SERVING, and says what is wrong where not."""
    dead = f"127.0.0.1:{free_port()}"
    balancer = Balancer([server.address, dead])
    probe = GrpcProbe()
    assert probe.probe(server.address, 5.0) is None
    assert str(GrpcProbe("no.Such").probe(server.address, 5.0)).startswith("NOT_FOUND")
    assert str(probe.probe(dead, 5.0)).startswith("UNAVAILABLE")
    with Channel(Balancer([server.address])) as channel:
        channel.unary_unary(ONE)(asked(serving=False))
        assert probe.probe(server.address, 5.0) == "NOT_SERVING"
        HealthChecker(balancer, probe).check_now()
        assert all(status.health_reason for status in balancer.status())
        channel.unary_unary(ONE)(asked(serving=True))
        HealthChecker(balancer, probe).check_now()
    assert balancer.status()[0].health is HealthStatus.HEALTHY
    assert "UNAVAILABLE" in str(balancer.status()[1].health_reason)
    server.signal(signal.SIGSTOP)
    assert probe.probe(server.address, 0.2) == "no answer within 0.2 s"


def test_health_checks_in_a_loop_speak_grpc(server: Server) -> None:
    """The asynchronous checker asks by the same probe."""
    balancer = Balancer([server.address, f"127.0.0.1:{free_port()}"])

    async def main() -> None:
        await AsyncHealthChecker(balancer, GrpcProbe(), timeout=5.0).check_now()

    asyncio.run(main())
    well, dead = balancer.status()
    assert (well.health_reason, well.health) == (None, HealthStatus.HEALTHY)
    assert "UNAVAILABLE" in str(dead.health_reason)


def test_load_reports_reach_the_strategy(servers: list[Server]) -> None:
    """What a server reports in its trailers is what the strategy goes by."""
    report = "TEXT cpu_utilization=0.75, mem_utilization=0.25"
    trailers = {"endpoint-load-metrics": report}
    load, seen = ReportedLoad(), []

    def record(node: str, told: LoadReport) -> None:
        seen.append(told)
        load.record(node, told)

    nodes = [server.address for server in servers]
    balancer = Balancer(nodes, PowerOfTwoChoices(load=load))
    with Channel(balancer, on_load_report=record) as channel:
        one = channel.unary_unary(ONE)
        assert one(asked())
        assert one(asked(trailers=trailers))
        assert seen == [LoadReport(cpu_utilization=0.75, mem_utilization=0.25)]
        (busy,) = [node for node in nodes if load(node)]
        assert {balancer.pick() for _ in range(20)} == {*nodes} - {busy}
        list(channel.unary_stream("/test.Service/Stream")(asked(trailers=trailers)))

    async def main() -> None:
        async with AioChannel(balancer, on_load_report=record) as channel:
            assert await channel.unary_unary(ONE)(asked(trailers=trailers))

    asyncio.run(main())
    assert len(seen) == 3


def test_stubs_made_by_protoc_work(servers: list[Server]) -> None:
    """Those of the health service, which grpcio-health-checking brings, take both channels."""
    balancer = Balancer([Endpoint(server.address) for server in servers])
    request = health_pb2.HealthCheckRequest()
    serving = health_pb2.HealthCheckResponse.SERVING
    with Channel(balancer) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(request, timeout=5.0).status == serving
        watch = stub.Watch(request)
        assert next(watch).status == serving
        watch.cancel()

    async def main() -> None:
        async with AioChannel(balancer) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            assert (await stub.Check(request, timeout=5.0)).status == serving
            watch = stub.Watch(request)
            assert (await watch.read()).status == serving
            watch.cancel()

    asyncio.run(main())
    assert sum(status.in_flight for status in balancer.status()) == 0


@contextmanager
def local_server(address: str, credentials: Any = None) -> Iterator[int]:
    """Run a server in this process, where it is the address that is tested; give its port."""
    handlers: Any = {"Echo": grpc.unary_unary_rpc_method_handler(lambda request, _: request)}
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Local", handlers),))
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def test_names_of_grpcs_own_work(tmp_path: Path) -> None:
    """A node may be a socket in the file system."""
    target = f"unix:{tmp_path / 'app.sock'}"
    with local_server(target), Channel(Balancer([target])) as channel:
        assert channel.unary_unary("/test.Local/Echo")(b"hello") == b"hello"


def test_credentials_are_those_of_all_nodes(certificate: tuple[Path, Path]) -> None:
    """TLS works; where a certificate is not trusted, nothing was sent, and the error says why."""
    chain, key = (path.read_bytes() for path in certificate)
    trusting = grpc.ssl_channel_credentials(chain)
    with local_server("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)])) as port:
        node = f"127.0.0.1:{port}"
        with Channel(Balancer([node]), trusting) as channel:
            assert channel.unary_unary("/test.Local/Echo")(b"hello") == b"hello"
        assert str(GrpcProbe(credentials=trusting).probe(node, 5.0)).startswith("UNIMPLEMENTED")
        balancer = Balancer([node])
        with Channel(balancer, grpc.ssl_channel_credentials()) as channel:
            echo = channel.unary_unary("/test.Local/Echo")
            with pytest.raises(grpc.RpcError, match="CERTIFICATE_VERIFY_FAILED"):
                echo(b"hello")
        assert balancer.status()[0].health_reason is not None
