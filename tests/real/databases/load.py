"""Readers and writers of a database, in threads, while its servers come and go."""

from __future__ import annotations

import runpy
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any, Self

from tests.real.databases.servers import until

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "databases"
READERS, WRITERS = 4, 1
_PACE = 0.005
"""Seconds between two requests of one thread, for the processors are others' too."""


def program(name: str) -> dict[str, Any]:
    """Return what a program of the guide defines."""
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


class Load:
    """Readers and writers in threads, until told to end.

    Args:
        read: Returns the port of the server that answered.
        write: Writes a number.
    """

    def __init__(self, read: Callable[[], int], write: Callable[[int], object]) -> None:
        self.read: Counter[int | str] = Counter()
        self.written: dict[int, str] = {}
        self._asked = read, write
        self._over = Event()
        self._numbers = count()
        self._pool = ThreadPoolExecutor(READERS + WRITERS)

    def __enter__(self) -> Self:
        self._running = [self._pool.submit(self._keep_reading) for _ in range(READERS)]
        self._running += [self._pool.submit(self._keep_writing) for _ in range(WRITERS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._pool.shutdown()
        for each in self._running:
            each.result()

    def _keep_reading(self) -> None:
        while not self._over.wait(_PACE):
            try:
                found: int | str = self._asked[0]()
            except Exception as error:  # noqa: BLE001 - what it is is asserted
                found = repr(error)
            self.read[found] += 1

    def _keep_writing(self) -> None:
        while not self._over.wait(_PACE):
            number = next(self._numbers)
            self.written[number] = "begun"
            try:
                self._asked[1](number)
            except Exception as error:  # noqa: BLE001 - what it is is asserted
                self.written[number] = repr(error)
            else:
                self.written[number] = "ok"

    def until_read(self, more: int) -> None:
        """Wait until so many more reads have been answered."""
        aim = self.read.total() + more
        until(lambda: self.read.total() >= aim)

    def until_read_from(self, ports: set[int]) -> None:
        """Wait until each of these servers has answered once more."""
        before = Counter(self.read)
        until(lambda: all(self.read[port] > before[port] for port in ports))

    def errors(self) -> list[str]:
        """Return the errors of reads."""
        return [each for each in self.read if isinstance(each, str)]

    def written_well(self) -> set[int]:
        """Return what was written without an error."""
        return {number for number, how in list(self.written.items()) if how == "ok"}

    def lost(self) -> dict[int, str]:
        """Return the errors of writes."""
        told = list(self.written.items())
        return {number: how for number, how in told if how not in {"ok", "begun"}}
