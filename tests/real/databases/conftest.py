"""A primary with replicas, and a relay before one of these."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import suppress

import pytest
from tests.real.databases.servers import Cluster, Relay, program


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A primary of PostgreSQL and three replicas, whole at the beginning of each test."""
    if program("initdb") is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    if os.geteuid() == 0:
        with suppress(KeyError):
            pwd.getpwnam("postgres")
            found = Cluster(3)
            yield found
            found.stop()
            return
        pytest.skip("PostgreSQL refuses root, and there is no user postgres")
    found = Cluster(3)
    yield found
    found.stop()


@pytest.fixture
def relay(cluster: Cluster) -> Iterator[Relay]:
    """A relay before the last of the replicas."""
    found = Relay(cluster.replicas[-1].port)
    yield found
    found.stop()
