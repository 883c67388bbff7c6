"""Text of unknown origin, made safe to show.

Names of nodes, errors of servers and texts of scenarios come from elsewhere. In a terminal a
control character of theirs may move the cursor, set the window's title or forge a line of a log,
and one that turns the direction of writing makes a text read as another.
"""

from __future__ import annotations

__all__ = ["in_seconds", "visible", "visible_lines"]

# Controls, formats such as those of direction, halves of characters, and separators of lines.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Two formats that spell words of Persian and join pictures. They turn and hide nothing.
_SPELLING = "\u200c\u200d"
_LONG = 1e6
"""Seconds from which on nobody counts in seconds."""
_DAY = 86_400.0
_YEAR = 365.25
"""Days."""


def visible(text: str) -> str:
    r"""Return a text with every character that cannot be seen as its escape, line breaks included.

    It may be given again to what it has returned, and changes nothing then. O(length).

    Example:
        >>> print(visible("a\x1b[2Jb\u202ec\n"))
        a\x1b[2Jb\u202ec\n
    """
    if text.isprintable():
        return text
    from unicodedata import category  # noqa: PLC0415 - few texts need it

    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if category(character) in _UNSEEN and character not in _SPELLING
        else character
        for character in text
    )


def visible_lines(text: str) -> str:
    """Return a text as `visible` does, but for its line breaks."""
    return text if text.isprintable() else "\n".join(map(visible, text.split("\n")))


def in_seconds(seconds: float) -> str:
    """Return a length of time as a person says it.

    Example:
        >>> in_seconds(2.5), in_seconds(86_400.0), in_seconds(3e6), in_seconds(1e9)
        ('2.5 s', '86400 s', '35 days', '32 years')
    """
    if seconds < _LONG:
        return f"{round(seconds, 3):g} s"
    days = seconds / _DAY
    return f"{days:.0f} days" if days < 2 * _YEAR else f"{days / _YEAR:,.0f} years"
