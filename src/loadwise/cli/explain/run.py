"""Carries out ``loadwise explain``: build the balancer, and ask it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import typer

from loadwise._text import visible_lines
from loadwise.cli.exit_codes import FAILED
from loadwise.config import ConfigError
from loadwise.config.building import balancer_of
from loadwise.config.file import read_fleet
from loadwise.config.sources import nodes_now
from loadwise.errors import MissingHashKey, nearest

__all__ = ["RequestToExplain", "run_explain"]

_MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class RequestToExplain:
    """The request to explain."""

    hash_key: str | None
    exclude: tuple[str, ...]
    cost: Mapping[str, float]


def run_explain(file: str, settings: Sequence[str], asked: RequestToExplain) -> int:
    """Print where such a request would go and why, and return the exit code.

    Raises:
        typer.BadParameter: An option is wrong; it is named.
    """
    try:
        fleet = read_fleet(file, settings)
        balancer = balancer_of(replace(fleet, nodes=nodes_now(fleet)))
    except (ConfigError, ImportError) as error:
        sys.stderr.write(f"{error}\n")
        return FAILED
    ids = [str(node.id) for node in balancer.all_nodes]
    for identity in asked.exclude:
        if identity not in ids:
            rest = f" and {len(ids) - _MOST_NAMED} more" if len(ids) > _MOST_NAMED else ""
            raise typer.BadParameter(
                visible_lines(
                    f"there is no node {identity!r}{nearest(identity, ids)} (the nodes are "
                    f"{', '.join(ids[:_MOST_NAMED])}{rest})."
                ),
                param_hint="--exclude",
            )
    try:
        explanation = balancer.explain(
            hash_key=asked.hash_key, exclude=asked.exclude, cost=asked.cost or None
        )
    except MissingHashKey:
        raise typer.BadParameter(
            "the strategy goes by keys; give one, such as --hash-key user-42.",
            param_hint="--hash-key",
        ) from None
    except ValueError as error:
        raise typer.BadParameter(visible_lines(f"{error}."), param_hint="--cost") from None
    typer.echo(str(explanation))
    return 0
