"""Agreement with proxies: nginx and HAProxy send each of 10,000 keys where this library does.

Both are the packages of Debian, started by the tests; without one its tests are skipped.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_port

from loadwise import Balancer, ConsistentHash, Endpoint

KEYS = [f"user-{number:x}" for number in range(10_000)]
BATCH = 100
WEIGHTS = {"equal": [1, 1, 1, 1, 1], "different": [1, 2, 1, 3, 10]}
PATIENCE = 20.0

NGINX = """
daemon off;
master_process off;
error_log stderr;
pid {folder}/nginx.pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/client;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream nodes {{
        hash $arg_key consistent;
        {servers}
        keepalive 64;
    }}
    server {{
        listen 127.0.0.1:{front} backlog=511;
        location / {{
            proxy_pass http://nodes;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            add_header X-Server $upstream_addr;
        }}
    }}
    server {{
        {listens}
        return 200 "";
    }}
}}
"""

HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen front
    bind 127.0.0.1:{front}
    balance {balance}
    hash-type consistent
    http-response set-header X-Server %s
    {servers}
listen back
    bind 127.0.0.1:{back}
    http-request return status 200
"""


@contextmanager
def running(command: Sequence[str], port: int) -> Iterator[None]:
    """Run a proxy from the moment that it listens."""
    program = shutil.which(command[0], path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")
    if program is None:
        pytest.skip(f"{command[0]} is not installed")
    process = subprocess.Popen([program, *command[1:]], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1.0).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "it does not listen"
            try:
                process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
            pytest.fail(f"{command[0]} has ended: {process.stderr and process.stderr.read()}")
        yield
    finally:
        process.kill()
        process.communicate()


def servers_of(port: int, keys: Sequence[str]) -> list[str]:
    """Return which server a proxy sends each key to, asked in batches over one connection."""
    found: list[str] = []
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            connection.sendall(
                b"".join(
                    b"GET /?key=%s HTTP/1.1\r\nHost: x\r\n\r\n" % key.encode() for key in batch
                )
            )
            answer = b""
            while answer.count(b"\r\n\r\n") < len(batch):
                more = connection.recv(65536)
                assert more, "the proxy has closed the connection"
                answer += more
            # After a failure nginx names all that it asked; the last one has answered.
            names = re.findall(rb"\nx-server: (?:.*, )?(\S+)\r", answer, re.IGNORECASE)
            found += [name.decode() for name in names]
    assert len(found) == len(keys)
    return found


def chosen(nodes: Sequence[Endpoint], points: str, down: Any) -> list[str]:
    """Return which node a balancer gives each key, with one node down or none."""
    balancer = Balancer(nodes, ConsistentHash(points=points))
    assert balancer.health is not None
    for _ in range(3):
        if down is not None:
            balancer.health.report_failure(down)
    return [str(balancer.pick(hash_key=key).id) for key in KEYS]


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("dead", [None, 3], ids=["all up", "one dead"])
def test_nginx_sends_keys_to_the_same_servers(
    weights: list[int], dead: int | None, tmp_path: Path
) -> None:
    """`hash $arg_key consistent;` and points="ketama", request by request.

    Nobody listens at the one that is dead: nginx finds out by itself, and goes to the next point.
    """
    front, *ports = [free_port() for _ in range(6)]
    servers = "".join(
        f"server 127.0.0.1:{port} weight={weight} max_fails=1 fail_timeout=300;\n"
        for port, weight in zip(ports, weights, strict=True)
    )
    listens = "".join(f"listen 127.0.0.1:{p};\n" for i, p in enumerate(ports) if i != dead)
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path, servers=servers, listens=listens, front=front))
    nodes = [
        Endpoint(f"127.0.0.1:{port}", weight=weight)
        for port, weight in zip(ports, weights, strict=True)
    ]
    with running(["nginx", "-p", str(tmp_path), "-c", str(config), "-e", "stderr"], front):
        sent = servers_of(front, KEYS)
    assert sent == chosen(nodes, "ketama", None if dead is None else nodes[dead].id)
    assert len(set(sent)) == 5 - (dead is not None)


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize(
    ("balance", "down"),
    [("url_param key", None), ("url_param key", 3), ("hash url_param(key)", 1)],
    ids=["all up", "one down", "balance hash"],
)
def test_haproxy_sends_keys_to_the_same_servers(
    weights: list[int], balance: str, down: int | None, tmp_path: Path
) -> None:
    """`hash-type consistent` and points="haproxy", request by request.

    Servers have the ids that their places give them, from 1 on, unless they are given others: here
    the last two are.
    """
    front, back = free_port(), free_port()
    ids = [1, 2, 3, 40, 7]
    nodes = [Endpoint(f"s-{i}", weight=w) for i, w in zip(ids, weights, strict=True)]
    servers = "\n    ".join(
        f"server {node.id} 127.0.0.1:{back} weight {node.weight}"
        + (f" id {number}" if number > 3 else "")
        + (" disabled" if place == down else "")
        for place, (node, number) in enumerate(zip(nodes, ids, strict=True))
    )
    config = tmp_path / "haproxy.cfg"
    config.write_text(HAPROXY.format(balance=balance, servers=servers, front=front, back=back))
    with running(["haproxy", "-db", "-f", str(config)], front):
        sent = servers_of(front, KEYS)
    assert sent == chosen(nodes, "haproxy", None if down is None else nodes[down].id)
    assert len(set(sent)) == 5 - (down is not None)


@pytest.mark.parametrize("points", ["xxh64", "murmur2"])
def test_other_points_are_other_maps(points: str) -> None:
    """That they agree is no accident: with Envoy's points most keys are elsewhere."""
    nodes = [Endpoint(f"s-{number}") for number in range(1, 6)]
    same = sum(map(str.__eq__, chosen(nodes, points, None), chosen(nodes, "haproxy", None)))
    assert same < len(KEYS) / 2
