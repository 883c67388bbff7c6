"""Base paths that hold, whatever path is asked for, and base URLs that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integrations.http.clients import ASYNC, REQUESTS, SYNC, Client, every_client

from loadwise import Balancer
from loadwise._base_url import checked_base_url
from loadwise._url_paths import confined

Start = Callable[[int], list[Any]]

OUTWARD = [
    "/../../admin",
    "/%2e%2e/%2E%2E/admin",
    "/a/.%2e/../../admin",
    "/..%2f..%2Fadmin",
    "/..\\..\\admin",
    "/..%5c..%5Cadmin",
    "/..;/..;v=1/admin",
    "/..%3B/..%3bv=1/admin",
    "/a/..//../../admin",
]


@pytest.mark.slow
@every_client
def test_no_path_leaves_the_base_path(client: Client, upstreams: Start) -> None:
    """Dot segments are resolved before the path is put behind the base path."""
    (server,) = upstreams(1)
    balancer = Balancer([f"http://{server.address}/v1"])
    answers = client.send(balancer, *(f"http://service{path}?q=/../x" for path in OUTWARD))
    assert [json.loads(answer.body)["path"] for answer in answers] == [
        "/v1/admin?q=/../x" for _ in OUTWARD
    ]


@pytest.mark.slow
@pytest.mark.parametrize("client", [*SYNC, *ASYNC], ids=str)  # requests refuses relative URLs
def test_a_relative_url_does_not_leave_it_either(client: Client, upstreams: Start) -> None:
    """A client resolves a relative URL against its base URL, or not at all."""
    (server,) = upstreams(1)
    balancer = Balancer([f"http://{server.address}/v1"])
    base = {"base_url": "http://service"} if client.library == "aiohttp" else None
    answers = client.send(balancer, *(path for path in OUTWARD), client=base)
    assert {json.loads(answer.body)["path"] for answer in answers} == {"/v1/admin"}


@pytest.mark.slow
@every_client
def test_paths_that_lead_nowhere_else_arrive_as_they_are(client: Client, upstreams: Start) -> None:
    """Names with dots, encoded separators and parameters are the request's own."""
    (server,) = upstreams(1)
    paths = ["/.well-known/x", "/a..b/...", "/group%2Fproject;v=1/%2E%2Ehidden", "//twice//"]
    if client is REQUESTS:  # it has unpacked that by then, and it is a name all the same
        paths[2] = paths[2].replace("%2E", ".")
    balancer = Balancer([f"http://{server.address}/v1"])
    answers = client.send(balancer, *(f"http://service{path}" for path in paths))
    assert [json.loads(answer.body)["path"] for answer in answers] == [f"/v1{p}" for p in paths]


@pytest.mark.parametrize(
    "address",
    [
        "http://10.0.0.1 /v1",
        "http://10.0.0.1\\@evil/v1",
        "http://a b",
        "a b:80",
        "a\\b:80",
        "http://a\tb",
        "http://a%20b",
        "http://a,b",
        "http://a/v1\n",
        "http://a/v1/../v2",
        "http://a/v1/%2E%2e",
        "http://[::1",
    ],
)
def test_a_base_url_is_refused_at_construction(address: str) -> None:
    """What no library would reach, or each another way, is said before the first request."""
    for client in (client for mark in every_client.args[1:] for client in mark):
        with pytest.raises(ValueError, match="the base URL of node"):
            client.make(Balancer([address]))
        with pytest.raises(ValueError, match="the base URL of node"):
            client.make(Balancer(["node"]), url=lambda _: address)


def test_a_password_in_a_base_url_is_not_shown() -> None:
    """The error names the URL, without what stands before its host."""
    with pytest.raises(
        ValueError, match=r"is 'https://\.\.\.@a\.test/v1'; it has a user"
    ) as caught:
        checked_base_url("node", "https://me:hunter2@a.test/v1")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["http://my_service:80", "http://[::1]:8080/v1", "http://bücher.example", "a.b-c:1"]
)
def test_names_and_addresses_are_hosts(address: str) -> None:
    """Underscores, brackets and letters of other languages are in use."""
    for client in (client for mark in every_client.args[1:] for client in mark):
        client.make(Balancer([address]))


TOKENS = ["..", ".", "%2e", "%2E", "/", "\\", "%2f", "%5C", ";", "%3b", "a", "b=1", ""]


@given(st.lists(st.sampled_from(TOKENS), max_size=12).map("".join))
def test_a_confined_path_has_no_dot_segments(path: str) -> None:
    """Read with any separator, decoded or not, no segment leads up; a second time changes nothing.

    Plain dot segments are removed as RFC 3986, section 5.2.4, says.
    """
    found = confined(path)
    plain = found.lower().replace("%2e", ".").replace("%3b", ";")
    for separator in ("\\", "%2f", "%5c"):
        plain = plain.replace(separator, "/")
    assert not {segment.partition(";")[0] for segment in plain.split("/")} & {".", ".."}
    assert confined(found) == found
    assert found.startswith("/") or not path.startswith("/")
