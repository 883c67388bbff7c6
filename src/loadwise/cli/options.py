"""What options of several commands have in common."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

import typer

__all__ = ["simulation_extra", "whole_number"]

_SIMULATION_EXTRA = ("msgspec", "numpy", "plotly")


def whole_number(low: int, high: int, why: str) -> Callable[[object], int]:
    """Return what reads a whole number in this range.

    Args:
        low: The least.
        high: The greatest.
        why: Why there are bounds, for who goes beyond them.
    """

    def read(text: object) -> int:
        try:
            number = int(str(text))
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not a whole number, such as {low}.") from None
        if not low <= number <= high:
            raise typer.BadParameter(f"{number} is not between {low:,} and {high:,}; {why}.")
        return number

    return read


@contextmanager
def simulation_extra() -> Generator[None, None, None]:
    """Within the block, a module that the extra ``simulation`` brings may be missing.

    Raises:
        typer.Exit: It is, and the user has been told what to install; the exit code is 1.
    """
    try:
        yield
    except ImportError as error:
        # A module with a hint of its own has what is really missing as the cause.
        missing = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        if (missing.name or "").partition(".")[0] not in _SIMULATION_EXTRA:
            raise
        typer.echo("simulations need an extra: install loadwise[simulation]", err=True)
        raise typer.Exit(1) from None
