"""Answers that no server has sent, and charges, of requests in requests."""

from __future__ import annotations

import io
from typing import Any
from urllib.parse import urlsplit

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from urllib3.response import HTTPResponse

from loadwise.integrations._http.metering import RequestAccount
from loadwise.integrations._http.no_node_response import Refusal
from loadwise.integrations._http.settings import Settings

__all__ = ["account_of", "answer_to"]


def answer_to(request: PreparedRequest, refusal: Refusal, adapter: HTTPAdapter) -> Response:
    """Return a response to a request that is not sent, as an adapter builds it."""
    raw = HTTPResponse(
        io.BytesIO(b"" if request.method == "HEAD" else refusal.body),
        headers=dict(refusal.headers),
        status=refusal.status,
        reason=refusal.reason,
        preload_content=False,
        request_method=request.method,
    )
    return adapter.build_response(request, raw)


def account_of(request: PreparedRequest, settings: Settings) -> RequestAccount | None:
    """Return the account of a request; ``None`` if nobody reads its body."""
    if not settings.reads_bodies:
        return None
    body: Any = request.body or b""
    told = body.encode() if isinstance(body, str) else body
    length = str(request.headers.get("Content-Length", ""))
    return settings.account(
        urlsplit(str(request.url)).path,
        told if isinstance(told, bytes) else None,
        int(length) if length.isdecimal() else None,
    )
