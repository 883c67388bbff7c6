"""EndpointSlices as endpoints: conditions, families, ports, and what cannot be used."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadwise import Endpoint
from loadwise.discovery import Found, SourceError
from loadwise.discovery.endpoint_slices import joined


def piece(*endpoints: Any, ports: Any = ({"port": 80},), family: Any = "IPv4") -> dict[str, Any]:
    """A slice."""
    return {
        "addressType": family,
        "ports": None if ports is None else [*ports],
        "endpoints": [*endpoints],
    }


def one(address: Any, pod: str | None = None, **conditions: Any) -> dict[str, Any]:
    """An endpoint of a slice."""
    target = {} if pod is None else {"targetRef": {"kind": "Pod", "name": pod, "uid": pod}}
    return {"addresses": [address], "conditions": conditions, **target}


def ids(found: Found[Endpoint]) -> list[object]:
    """The ids that were found."""
    return [node.id for node in found.nodes]


@pytest.mark.parametrize(
    ("conditions", "is_node", "is_draining"),
    [
        ({}, True, False),
        ({"ready": None, "serving": None, "terminating": None}, True, False),
        ({"ready": True}, True, False),
        ({"ready": False}, False, False),
        ({"ready": False, "serving": True}, False, False),
        ({"ready": True, "serving": True, "terminating": False}, True, False),
        ({"ready": False, "serving": True, "terminating": True}, True, True),
        ({"ready": False, "serving": False, "terminating": True}, False, False),
        ({"ready": False, "terminating": True}, False, False),
        # A service that publishes addresses that are not ready says that they are.
        ({"ready": True, "serving": True, "terminating": True}, True, False),
    ],
)
def test_conditions_say_who_is_a_node(
    conditions: dict[str, Any],
    is_node: bool,  # noqa: FBT001 - a table of cases
    is_draining: bool,  # noqa: FBT001 - as above
) -> None:
    """Ready ones are; those that are ending but serve are drained; all others are not."""
    found = joined([piece(one("10.0.0.9"), one("10.0.0.1", **conditions))], None, "search")
    assert ("10.0.0.1:80" in ids(found)) is is_node
    assert ("10.0.0.1:80" in found.draining) is is_draining


def test_if_nobody_is_ready_those_that_are_ending_are_asked() -> None:
    """As long as they serve; and it is told."""
    ending: dict[str, Any] = {"ready": False, "serving": True, "terminating": True}
    found = joined([piece(one("10.0.0.1", **ending), one("10.0.0.2", ready=False))], None, "search")
    assert ids(found) == ["10.0.0.1:80"]
    assert found.draining == frozenset()
    assert found.complaints == {"ending": "none is ready, so 1 that are ending are asked"}


def test_slices_are_joined_and_the_better_standing_counts() -> None:
    """An endpoint that moves from one slice to another is in both for a while."""
    slices = [
        piece(one("10.0.0.1", ready=False), one("10.0.0.2")),
        piece(one("10.0.0.1"), one("10.0.0.2", ready=False, serving=True, terminating=True)),
        piece(),
        piece(one("10.0.0.3"), ports=[{"port": 81}]),
        {"addressType": "IPv4", "endpoints": None, "ports": None},
    ]
    found = joined(slices, None, "search")
    assert ids(found) == ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:81"]
    assert found.draining == frozenset()


def test_zones_and_names_are_passed_on() -> None:
    """Those that are text that can be shown."""
    endpoint = one("10.0.0.1", "search-1") | {
        "zone": "eu-1a",
        "nodeName": "worker-7",
        "hostname": "search-1",
    }
    odd = one("10.0.0.2") | {"zone": "a\x1b", "nodeName": 3}
    assert joined([piece(endpoint, odd)], None, "search").nodes == (
        Endpoint(
            "10.0.0.1:80",
            zone="eu-1a",
            tags={"pod": "search-1", "node": "worker-7", "hostname": "search-1"},
        ),
        Endpoint("10.0.0.2:80"),
    )


def test_a_pod_of_two_families_is_one_node() -> None:
    """By its address of IPv4; one of IPv6 alone is a node, too."""
    slices = [
        piece(one("fd00::1", "a"), one("fd00::2", "b"), one("fd00::3"), family="IPv6"),
        piece(one("10.0.0.1", "a")),
    ]
    assert ids(joined(slices, None, "search")) == ["10.0.0.1:80", "[fd00::2]:80", "[fd00::3]:80"]


def test_ports_are_chosen_by_name_or_number() -> None:
    """In each slice its own; without a wish there must be one only."""
    ports = [{"name": "http", "port": 80}, {"name": "metrics", "port": 9}]
    slices = [
        piece(one("10.0.0.1"), ports=[*ports, {"name": "udp", "port": 5, "protocol": "UDP"}]),
        piece(one("10.0.0.2"), ports=[{"name": "http", "port": 8080}]),
    ]
    assert ids(joined(slices, "http", "search")) == ["10.0.0.1:80", "10.0.0.2:8080"]
    assert ids(joined(slices, 7, "search")) == ["10.0.0.1:7", "10.0.0.2:7"]
    assert ids(joined([piece(one("10.0.0.1"), ports=None)], 7, "search")) == ["10.0.0.1:7"]
    with pytest.raises(SourceError, match=r"search has the ports 'http', 'metrics': say which by"):
        joined(slices, None, "search")
    with pytest.raises(SourceError, match=r"search has no port 'htpp'; did you mean 'http'\?"):
        joined(slices, "htpp", "search")
    assert joined([], "http", "search").nodes == ()


def test_what_cannot_be_used_is_left_out_and_told() -> None:
    """Without a port, with a hostile address, of an unknown type."""
    slices = [
        piece(one("10.0.0.1"), ports=None),
        piece(one("10.0.0.2"), ports=[{"port": None}]),
        piece(one("10.0.0.3\x1b"), one(4), {"addresses": []}, {}, None, one("10.0.0.4")),
        piece(one("10.0.0.5"), family="IPv8"),
        piece(one("pod.test"), family="FQDN"),
    ]
    found = joined(slices, None, "search")
    assert ids(found) == ["10.0.0.4:80", "pod.test:80"]
    assert found.complaints["dropped"].startswith("8 endpoints are left out, such as ['10.0.0.1']")


def test_a_million_endpoints_are_refused() -> None:
    """Before they are all looked at."""
    slices = [piece(*[one("10.0.0.1")] * 1_000) for _ in range(1_000)]
    with pytest.raises(SourceError, match=r"search has 1,000,000 endpoints; 100,000 are the most"):
        joined(slices, None, "search")


rubbish = st.recursive(
    st.sampled_from([None, True, False, 0, 80, -1, "", "IPv4", "10.0.0.1", "a\x1b", "TCP"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "addresses",
                    "conditions",
                    "ready",
                    "ports",
                    "port",
                    "endpoints",
                    "addressType",
                    "targetRef",
                    "uid",
                    "zone",
                    "serving",
                    "terminating",
                    "name",
                    "protocol",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@settings(max_examples=40)
@given(st.lists(st.dictionaries(st.sampled_from(["ports", "endpoints", "addressType"]), rubbish)))
def test_whatever_a_server_says_is_read_or_refused(slices: list[dict[str, Any]]) -> None:
    """No other error comes of it."""
    try:
        found = joined(slices, None, "search")
    except SourceError:
        return
    assert all(isinstance(node, Endpoint) for node in found.nodes)
