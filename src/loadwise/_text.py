"""Text of unknown origin, made safe to show.

Names of nodes, errors of servers and texts of scenarios come from elsewhere. In a terminal a
control character of theirs may move the cursor, set the window's title or forge a line of a log,
and one that turns the direction of writing makes a text read as another.
"""

from __future__ import annotations

__all__ = ["visible", "visible_lines"]

# Controls, formats such as those of direction, halves of characters, and separators of lines.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Two formats that spell words of Persian and join pictures. They turn and hide nothing.
_SPELLING = "\u200c\u200d"


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
