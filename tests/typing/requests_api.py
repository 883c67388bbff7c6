"""Public names of `loadwise.integrations.requests`, as a type checker sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_type

from requests import PreparedRequest, Response, Session

from loadwise import Balancer, Outcome
from loadwise.integrations.requests import (
    LoadwiseAdapter,
    NoNodeError,
    Verdict,
    by_cookie,
    by_header,
    request_options,
    route_of,
)


def judge(result: object) -> Verdict | None:
    """A rule for answers."""
    return Verdict(Outcome.FAILURE) if isinstance(result, OSError) else None


def prepare(request: PreparedRequest, node: str) -> None:
    """Set what a node needs."""
    request.headers["X-Key"] = node


def ask(session: Session, balancer: Balancer[str]) -> Response:
    """An adapter is mounted, and a session used as ever."""
    session.mount("http://a/", LoadwiseAdapter(balancer, classify=judge, prepare=prepare))
    session.mount("http://b/", LoadwiseAdapter(balancer, hash_key=by_header("X-User")))
    session.mount("http://c/", LoadwiseAdapter(balancer, hash_key=by_cookie("s"), timeout=None))
    with request_options(retry=True, deadline=2.0):
        return session.post("http://a/")


def look(response: Response, error: NoNodeError) -> None:
    """What is told of an answer, and of none."""
    assert_type(route_of(response), Mapping[str, Any])
    assert_type(error.reason, str)
    assert_type(error.retry_after, float | None)
