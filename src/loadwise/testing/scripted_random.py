"""A random source that draws what it is told."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from loadwise._numbers import number

__all__ = ["ScriptedRandom"]


class ScriptedRandom(Random):
    """A random source whose `random` returns the given numbers, in order.

    Args:
        draws: What to return, each in [0, 1).

    Raises:
        ValueError: A number is outside [0, 1).

    Not thread-safe: with several threads there is no order to script.

    Example:
        >>> from loadwise import Random as UniformRandom
        >>> strategy = UniformRandom(rng=ScriptedRandom([0.0, 0.99]))
        >>> strategy.select(["a", "b", "c"]), strategy.select(["a", "b", "c"])
        (0, 2)
    """

    def __init__(self, draws: Iterable[float] = ()) -> None:
        super().__init__(0)
        self._draws = [float(number("a draw of the script", draw)) for draw in draws]
        for draw in self._draws:
            if not 0 <= draw < 1:
                raise ValueError(f"the script has {draw!r}; a draw must be in [0, 1)")
        self._position = 0

    def random(self) -> float:
        """Return the next number of the script.

        Raises:
            AssertionError: The script has been drawn to its end.
        """
        if self._position >= len(self._draws):
            raise AssertionError(
                f"draw {self._position + 1} was asked for, but the script has only "
                f"{len(self._draws)}"
            )
        self._position += 1
        return self._draws[self._position - 1]

    def __copy__(self) -> ScriptedRandom:
        return ScriptedRandom(self._draws[self._position :])
