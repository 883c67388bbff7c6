"""The program of `served` for ASGI: the page within FastAPI, within Starlette."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from tests.integrations.status_page.served import PAGE, change


async def _changed(request: Request) -> PlainTextResponse:
    return PlainTextResponse(change(request.url.path))


inner = FastAPI()
inner.mount("/status", PAGE)
app = Starlette(routes=[Route("/kill", _changed), Route("/mend", _changed), Mount("/ops", inner)])
