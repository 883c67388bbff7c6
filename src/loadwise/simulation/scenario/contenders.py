"""Contenders of a comparison: strategies by name, or classes of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loadwise._callables import refuse_async
from loadwise.errors import nearest
from loadwise.strategies import Strategy
from loadwise.strategies.catalogue import STRATEGIES, Maker, known_name

__all__ = ["STRATEGIES", "Contender", "Recipe", "contender"]

AnyStrategy = Strategy[Any]  # of whatever nodes
Recipe = str | type[AnyStrategy] | Callable[[], AnyStrategy]
"""A contender's name, or what makes a strategy: one is made for each client."""

_NO_HEALTH = "no-health"


@dataclass(frozen=True, slots=True)
class Contender:
    """A strategy that takes part in a comparison.

    Attributes:
        name: Its name in results.
        make: Makes a strategy from a random source and the tau of peak EWMA.
        health: Whether the health of servers is tracked, where the scenario tracks it.
    """

    name: str
    make: Maker
    health: bool = True


def contender(recipe: Recipe) -> Contender:
    """Return who is meant by a name, in any spelling, or by a strategy class.

    A name may end in ``/no-health``, to see what the strategy does without health tracking.

    Raises:
        ValueError: There is no such strategy.
        TypeError: It is neither a name nor callable.

    Example:
        >>> contender("PowerOfTwoChoices").name, contender("least_load/no-health").name
        ('p2c', 'least-load/no-health')
    """
    if isinstance(recipe, str):
        return _by_name(recipe)
    if not callable(recipe):
        raise TypeError(
            f"strategy is {recipe!r}; it must be a name, a strategy class or a function that "
            f"returns a strategy"
        )
    refuse_async("strategy", recipe, "give a plain function that returns a strategy")
    return Contender(getattr(recipe, "__name__", type(recipe).__name__), lambda _, __: recipe())


def _by_name(text: str) -> Contender:
    name, slash, option = text.partition("/")
    if slash and option != _NO_HEALTH:
        raise ValueError(f"{text!r} ends in an unknown option; there is only /{_NO_HEALTH}")
    known = known_name(name)
    if known is None:
        raise ValueError(
            f"{name!r} is not a strategy{nearest(name.lower(), STRATEGIES)} "
            f"(the strategies are {', '.join(STRATEGIES)})"
        )
    return Contender(known + slash + option, STRATEGIES[known], health=not slash)
