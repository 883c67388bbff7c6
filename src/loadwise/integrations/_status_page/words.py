"""Texts of unknown origin as a page shows them."""

from __future__ import annotations

import html
from typing import Final

from loadwise._text import visible

__all__ = ["markup"]

_MOST_SHOWN: Final = 300
"""Characters of one text, such as an error of a server, that are shown."""


def markup(text: object, most: int = _MOST_SHOWN) -> str:
    r"""Return a text as HTML that shows it, in content and in quoted attributes alike.

    Control characters and those that turn the direction of writing become escapes; a text of more
    than ``most`` characters is cut.

    Example:
        >>> markup("<b>\u202e")
        '&lt;b&gt;\\u202e'
    """
    plain = str(text)
    if len(plain) > most:
        plain = f"{plain[: most - 1]}…"
    return html.escape(visible(plain))
