"""The error of fleet files."""

from __future__ import annotations

from collections.abc import Iterable

from loadwise._text import visible_lines
from loadwise.errors import LoadwiseError

__all__ = ["ConfigError"]


class ConfigError(LoadwiseError, ValueError):
    """A fleet file is not as it must be; the message says where and what.

    Attributes:
        origin: The file, as it was named.
        problems: All that was found wrong with it, one text each.

    Example:
        >>> print(ConfigError("fleet.toml", ["tau is 0; it must be above 0", "nodes is empty"]))
        fleet.toml has 2 problems:
          tau is 0; it must be above 0
          nodes is empty
    """

    def __init__(self, origin: str, problems: Iterable[str]) -> None:
        self.origin = origin
        self.problems = tuple(problems)
        super().__init__(origin, self.problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return visible_lines(f"{self.origin}: {self.problems[0]}")
        lines = [f"{self.origin} has {len(self.problems)} problems:", *self.problems]
        return visible_lines("\n  ".join(lines))
