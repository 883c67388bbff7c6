"""Arguments and request options of the transports of httpx and httpx2 are checked."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from tests.real.http.transports.support import Recorder, Start, in_flight

from loadwise import Balancer, Outcome
from loadwise.integrations._http.verdict import Verdict
from loadwise.integrations.llm import TokenMeter

pytestmark = pytest.mark.slow


def test_arguments_are_checked(ours: Any) -> None:
    """Unknown names are refused with the nearest one, bad values with their place."""
    balancer = Balancer(["127.0.0.1:1"])
    with pytest.raises(TypeError, match="'max_attempt'; did you mean 'max_attempts'"):
        ours.LoadwiseTransport(balancer, max_attempt=2)
    with pytest.raises(ValueError, match="max_attempts is 0"):
        ours.LoadwiseTransport(balancer, max_attempts=0)
    for name in ("url", "prepare", "classify", "hash_key", "meter", "budget", "max_attempts"):
        with pytest.raises(TypeError, match=f"{name} is 'x'; it must be a"):
            ours.LoadwiseTransport(balancer, **{name: "x"})
    with pytest.raises(TypeError, match="deadline is '5'"):
        ours.LoadwiseTransport(balancer, deadline="5")
    with pytest.raises(TypeError, match=r"meter is .*; it must be a meter, such as TokenMeter\(\)"):
        ours.LoadwiseTransport(balancer, meter=TokenMeter)
    with pytest.raises(ValueError, match="deadline is -1"):
        ours.AsyncLoadwiseTransport(balancer, deadline=-1)
    with pytest.raises(TypeError, match="balancer is 'x'"):
        ours.LoadwiseTransport("x")


def test_the_transport_that_sends_must_be_of_the_same_kind(library: Any, ours: Any) -> None:
    """Sync and async, or the two packages, are easily taken for one another."""
    balancer = Balancer(["127.0.0.1:1"])
    with pytest.raises(TypeError, match=r"BaseTransport, such as \w+\.HTTPTransport\(\)"):
        ours.LoadwiseTransport(balancer, library.AsyncHTTPTransport())
    with pytest.raises(TypeError, match=r"AsyncBaseTransport, such as \w+\.AsyncHTTPTransport"):
        ours.AsyncLoadwiseTransport(balancer, library.HTTPTransport())


def test_request_options_are_checked(library: Any, ours: Any, upstreams: Start) -> None:
    """An unknown option of a request is refused with the nearest one, and holds no node."""
    (server,) = upstreams(1)
    balancer = Balancer([server.address])
    with (
        library.Client(transport=ours.LoadwiseTransport(balancer)) as client,
        pytest.raises(ValueError, match="no option 'retries'; did you mean 'retry'"),
    ):
        client.get("http://service/", extensions={"loadwise": {"retries": True}})
    assert in_flight(balancer) == 0


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("deadline", 0, ValueError),
        ("deadline", -1.0, ValueError),
        ("deadline", float("nan"), ValueError),
        ("deadline", "5", TypeError),
        ("retry", "no", TypeError),
        ("cost", 5, TypeError),
    ],
)
def test_values_of_request_options_are_checked(
    library: Any, ours: Any, name: str, value: object, error: type[Exception]
) -> None:
    """What is wrong is told by name, before a node is chosen."""
    recorder = Recorder()
    balancer = Balancer(["127.0.0.1:1"], metrics=recorder)
    with (
        library.Client(transport=ours.LoadwiseTransport(balancer)) as client,
        pytest.raises(error, match=f"the request's {name} is {value!r}; it must be"),
    ):
        client.get("http://service/", extensions={"loadwise": {name: value}})
    assert balancer.status()[0].picks == 0


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_missing_package_says_what_to_install(name: str) -> None:
    """Without the package the integration says which extra to install."""
    script = f"import sys; sys.modules['{name}'] = None\nimport loadwise.integrations.{name}"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 1
    assert f"pip install 'loadwise[{name}]'" in result.stderr


@pytest.mark.parametrize("pause", [-1.0, float("nan"), float("inf")])
def test_a_verdict_pauses_for_a_time_that_can_be_waited(pause: float) -> None:
    """An impossible cooldown is refused where the verdict is made."""
    with pytest.raises(ValueError, match="retry_after is"):
        Verdict(Outcome.RATE_LIMITED, retry_after=pause)
