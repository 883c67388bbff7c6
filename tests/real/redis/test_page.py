"""The pages on shared state and deployment are true: their examples run, on a real server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.real.redis.support import PATIENCE, Valkey

DOCS = Path(__file__).resolve().parents[3] / "docs"
BLOCK = re.compile(r"^```\{code-block\} python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("name", "least"), [("shared-state", 5), ("deployment", 2)])
def test_the_examples_run(fragile: Valkey, name: str, least: int) -> None:
    """Every block of the page runs as it stands, after those before it, but for the port.

    And with more patience: a busy machine is no outage.
    """
    page = DOCS / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "page"}
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) >= least
    for block in blocks:
        source = re.sub(r"(redis(\.asyncio)?\.Redis)\(\)", rf"\1(port={fragile.port})", block[1])
        source = re.sub(r"(Shared\w+\(client[^)]*)\)", rf"\1, timeout={PATIENCE})", source)
        padded = "\n" * text.count("\n", 0, block.start(1)) + source
        exec(compile(padded, str(page), "exec", dont_inherit=True), namespace)  # noqa: S102 - our own page
    with redis.Redis(port=fragile.port) as client:
        for key in client.scan_iter():
            assert client.pttl(key) > 0
