"""What differs where the hot path is compiled."""

import loadwise.balancer.lease

COMPILED = not str(loadwise.balancer.lease.__file__).endswith(".py")


def wrong_type(message: str) -> str:
    """Return the pattern of a TypeError that says ``message``.

    Compiled code checks the types of arguments before the function begins, and has words of its
    own for it.
    """
    return rf"{message}|^[\w., \[\]]+ object expected; got [\w., \[\]]+$" if COMPILED else message


def unexpected_keyword(name: str) -> str:
    """Return the pattern of a TypeError about a keyword that is not known."""
    return rf"unexpected keyword argument {name!r}|{name!r} is an invalid keyword argument"
