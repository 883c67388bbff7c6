"""A scripted provider in a process of its own, for all tests of a file."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

PROVIDER = Path(__file__).with_name("provider.py")


class Scripted:
    """The provider: nodes are made up by their names."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROVIDER)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.origin = f"http://127.0.0.1:{int(self.process.stdout.readline())}"
        self._names = count()

    def node(self, **script: Any) -> str:
        """Return the base URL of a new node that answers by a script."""
        url = f"{self.origin}/n{next(self._names)}"
        self.tell(url, **script)
        return url

    def tell(self, url: str, **script: Any) -> None:
        """Have a node answer by another script."""
        request = urllib.request.Request(url, json.dumps(script).encode(), method="PUT")  # noqa: S310 - a literal http URL
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310 - a literal http URL

    def asked(self, url: str) -> int:
        """How many prompts a node has been asked."""
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - a literal http URL
            return int(json.load(answer))

    def stop(self) -> None:
        """Kill it and wait for its end."""
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def provider() -> Iterator[Scripted]:
    """A provider that answers as it is told."""
    scripted = Scripted()
    yield scripted
    scripted.stop()
