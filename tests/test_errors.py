"""What the exceptions say, and how they are caught."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import loadwise
from loadwise import LoadwiseError, MissingHashKey, NoNodeAvailable, UnknownNode
from loadwise.errors import nearest


def test_one_root() -> None:
    """Every public exception is a LoadwiseError, and two are also what Python calls them."""
    public = [getattr(loadwise, name) for name in loadwise.__all__]
    errors = {it for it in public if isinstance(it, type) and issubclass(it, Exception)}
    assert errors >= {LoadwiseError, MissingHashKey, NoNodeAvailable, UnknownNode}
    assert all(issubclass(error, LoadwiseError) for error in errors)
    assert issubclass(UnknownNode, KeyError)
    assert issubclass(MissingHashKey, ValueError)


@pytest.mark.parametrize(
    ("error", "reason", "text"),
    [
        (
            NoNodeAvailable("search", 0, {}),
            "empty",
            "no node available in balancer 'search': it has no nodes",
        ),
        (
            NoNodeAvailable("search", 5, {"drained": 1, "unhealthy": 3, "rate_limited": 1}, 2.5),
            "unhealthy",
            (
                "no node available in balancer 'search': "
                "of 5 nodes 3 unhealthy, 1 drained, 1 rate limited; retry after 2.5 s"
            ),
        ),
        (
            NoNodeAvailable("search", 2, {"quota": 2}, 0.0),
            "quota",
            "no node available in balancer 'search': of 2 nodes 2 quota; retry after 0 s",
        ),
        (
            NoNodeAvailable("search", 4, {"excluded": 2, "filtered": 2}),
            "excluded",
            "no node available in balancer 'search': of 4 nodes 2 excluded, 2 filtered",
        ),
    ],
    ids=["empty", "mixed", "quota", "tie"],
)
def test_no_node_available_says_why(error: NoNodeAvailable, reason: str, text: str) -> None:
    """It names the balancer, counts each reason, most first, and says when to try again."""
    assert error.reason == reason
    assert str(error) == text


def test_no_node_available_keeps_its_facts() -> None:
    """Counts and time can be read by a program, and cannot be changed by anybody."""
    counts = {"unhealthy": 2}
    error = NoNodeAvailable("search", 2, counts, 1.5)
    counts["unhealthy"] = 7
    assert (error.balancer, error.total, error.retry_after) == ("search", 2, 1.5)
    assert error.reasons == {"unhealthy": 2}
    reasons: Any = error.reasons
    with pytest.raises(TypeError):
        reasons["unhealthy"] = 7
    assert NoNodeAvailable("search", 2, {}).reason == "declined"


@pytest.mark.parametrize("seconds", [3600.0, 86_400.0])
def test_a_long_wait_is_told_in_plain_digits(seconds: float) -> None:
    """A wait of an hour or a day is readable: no exponent."""
    error = NoNodeAvailable("search", 1, {"quota": 1}, seconds)
    assert f"retry after {seconds:.0f} s" in str(error)


def test_a_wait_of_ages_is_told_as_a_person_says_it() -> None:
    """Nobody counts a year in seconds, and nobody says 1e+09; one node is no nodes."""
    error = NoNodeAvailable("search", 1, {"rate_limited": 1}, 1e9)
    assert str(error).endswith("of 1 node 1 rate limited; retry after 32 years")
    error = NoNodeAvailable("search", 2, {"rate_limited": 2}, 2e6)
    assert str(error).endswith("of 2 nodes 2 rate limited; retry after 23 days")


def test_unknown_node_names_the_nearest() -> None:
    """It names place and id, and the member that was probably meant; without one, it is short."""
    error = UnknownNode("10.0.0.1:8008", "balancer 'search'", ["10.0.0.1:8080", "cache"])
    assert error.node_id == "10.0.0.1:8008"
    start = "balancer 'search' has no node with id '10.0.0.1:8008'"
    assert str(error) == f"{start}; did you mean '10.0.0.1:8080'?"
    assert str(UnknownNode("10.0.0.1:8008", "balancer 'search'", ["cache"])) == start
    assert str(UnknownNode("10.0.0.1:8008", "balancer 'search'")) == start


def test_a_hint_can_be_typed_as_it_stands() -> None:
    """An id that is no str is shown as itself, for the str would be unknown, too."""
    assert nearest(8081, [9000, 8080]) == "; did you mean 8080?"
    assert nearest("eu-west-1", ["eu-west-l", "us-1"]) == "; did you mean 'eu-west-l'?"
    assert nearest("eu-1", []) == ""


@pytest.mark.parametrize(
    "error",
    [
        NoNodeAvailable("search", 3, {"unhealthy": 2, "drained": 1}, 2.5),
        UnknownNode("b", "balancer 'search'", ["a", "bb"]),
        MissingHashKey("ConsistentHash needs a hash_key"),
        LoadwiseError("whatever else"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))],  # noqa: S301 - own data
    ids=["copy", "deepcopy", "pickle"],
)
def test_errors_travel_between_processes(error: LoadwiseError, duplicate: Any) -> None:
    """A copy says the same: pools of processes and task queues pickle what a worker raises."""
    twin = duplicate(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.args == error.args
    assert vars(twin) == vars(error)
