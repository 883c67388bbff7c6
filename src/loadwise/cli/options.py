"""Parts of options that several commands have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager

import typer

from loadwise.cli.exit_codes import FAILED

__all__ = ["config_extra", "simulation_extra", "whole_number"]


def whole_number(low: int, high: int, why: str) -> Callable[[object], int]:
    """Return a parser of whole numbers in this range.

    Args:
        low: The least.
        high: The greatest.
        why: Reason for the bounds, which the error for a number beyond them gives.
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
    """Tell the user what to install if an import in the block fails for want of ``simulation``.

    Raises:
        typer.Exit: A module of that extra is missing; the exit code is 1.
    """
    hint = "simulations need {}: pip install 'loadwise[cli,simulation]'"
    with _needing(("msgspec", "numpy", "plotly"), hint):
        yield


@contextmanager
def config_extra() -> Generator[None, None, None]:
    """Tell the user what to install if an import in the block fails for want of ``config``.

    Raises:
        typer.Exit: A module of that extra is missing; the exit code is 1.
    """
    with _needing(("msgspec",), "fleet files need {}: pip install 'loadwise[cli,config]'"):
        yield


@contextmanager
def _needing(packages: Collection[str], hint: str) -> Generator[None, None, None]:
    try:
        yield
    except ImportError as error:
        # A module with a hint of its own has what is really missing as the cause.
        missing = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        package = (missing.name or "").partition(".")[0]
        if package not in packages:
            raise
        typer.echo(hint.format(package), err=True)
        raise typer.Exit(FAILED) from None
