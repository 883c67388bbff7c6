"""Servers that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.real.grpc.servers import Server

pytest.importorskip("grpc")
pytest.importorskip("grpc_health")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Yield two servers."""
    folder = tmp_path_factory.mktemp("journals")
    running = [Server(folder / str(number)) for number in range(2)]
    try:
        for server in running:
            server.wait_until_ready()
        yield running
    finally:
        for server in running:
            server.kill()
