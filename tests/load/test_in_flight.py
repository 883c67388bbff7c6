"""InFlight: an exact count per id that nobody has to tidy up."""

from __future__ import annotations

import gc
from threading import Barrier, Thread

from loadwise import InFlight, LoadMeasure, Outcome
from loadwise.testing import ManualClock


def test_the_load_is_the_number_in_flight() -> None:
    """Each request that starts adds one, each that ends takes one, whatever came of it."""
    measure = InFlight()
    cell, other = measure.cell("a"), measure.cell("b")
    assert isinstance(measure, LoadMeasure)
    cell.append(None)
    cell.append(None)
    measure.use_clock(ManualClock())
    for outcome in Outcome:
        measure.observe(cell, 9.9, outcome, 0.0)
    assert (measure.load(cell), measure.load(other)) == (2, 0)
    cell.pop()
    assert measure.load(cell) == 1


def test_an_entry_lives_as_long_as_someone_holds_it() -> None:
    """The same id is the same entry while it is held; after that it begins at zero."""
    measure = InFlight()
    cell = measure.cell(("10.0.0.1", 8080))
    cell.append(None)
    assert measure.cell(("10.0.0.1", 8080)) is cell
    del cell
    gc.collect()
    assert measure.load(measure.cell(("10.0.0.1", 8080))) == 0


def test_threads_count_exactly() -> None:
    """8 threads that start and end requests on the same nodes leave every count at zero."""
    measure = InFlight()
    begin = Barrier(8)
    kept = [measure.cell(name) for name in "abc"]

    def work() -> None:
        begin.wait(timeout=30)
        for number in range(3000):
            cell = measure.cell("abc"[number % 3])
            cell.append(None)
            assert measure.load(cell) >= 1
            cell.pop()

    workers = [Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=30)
    assert [measure.load(cell) for cell in kept] == [0, 0, 0]
