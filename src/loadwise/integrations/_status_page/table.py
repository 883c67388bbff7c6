"""Tables of nodes as HTML."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlencode

from loadwise._amounts import count, figure, in_words, latency, percent
from loadwise.integrations._status_page.facts import BalancerFacts, NodeFacts
from loadwise.integrations._status_page.history import Point
from loadwise.integrations._status_page.sparkline import sparkline
from loadwise.integrations._status_page.words import markup

__all__ = ["Columns", "table"]

_MOST_TAGS: Final = 6
_MOST_QUOTAS: Final = 4
_SHORT: Final = 60
"""Characters of what stands beside a node's id."""
_SHORTER: Final = 24
"""Characters of the name of a quota."""
_WORDS: Final = {"drain": "Drain", "resume": "Resume", "lift": "Lift"}
_FAILS: Final = 0.01
"""Share of failures from which on it is marked."""


class Columns(NamedTuple):
    """Columns that a table has because a node has something to tell in them.

    Attributes:
        quota: What is left of quotas.
        actions: Buttons.
    """

    quota: bool
    actions: bool


def table(
    place: int,
    facts: BalancerFacts,
    shown: Sequence[NodeFacts],
    points: Callable[[NodeFacts], Sequence[Point]],
    columns: Columns,
) -> str:
    """Return a table of some of a balancer's nodes. O(nodes shown).

    Args:
        place: The balancer's number on the page, from 1.
        facts: The balancer.
        shown: The nodes to show, in order.
        points: Gives the history of a node.
        columns: The columns that not every table has.
    """
    histories = [points(each) for each in shown]
    highest = max(
        (point.rate for history in histories for point in history if point.rate is not None),
        default=0.0,
    )
    total = facts.rate or 0.0
    rows = "".join(
        _row(place, each, sparkline(history, highest), total, columns)
        for each, history in zip(shown, histories, strict=True)
    )
    heads = "".join(_heads(columns))
    name = f"Nodes of balancer {markup(facts.name)}"
    return (
        f'<div class="scroll" role="region" aria-label="{name}" tabindex="0"><table role="table">'
        f"<thead><tr>{heads}</tr></thead>{rows}</table></div>"
    )


def _heads(columns: Columns) -> Iterable[str]:
    yield '<th scope="col">State</th><th scope="col" class="node">Node</th>'
    for head in (
        "Picks/s",
        "Share",
        "Last 2 min",
        "In flight",
        "Latency",
        "Failed, 1 min",
        "Picks",
    ):
        yield f'<th scope="col">{head}</th>'
    if columns.quota:
        yield '<th scope="col">Quota left</th>'
    if columns.actions:
        yield '<th scope="col">Actions</th>'


def _row(place: int, each: NodeFacts, line: str, total: float, columns: Columns) -> str:
    status, verdict = each.status, each.verdict
    share = "" if each.rate is None or not total else percent(each.rate / total)
    limit = "" if status.limit is None else f'<span class="soft"> / {status.limit:,}</span>'
    since = ""
    if verdict.of_health:
        since = f'<span class="since">{in_words(status.state_seconds)}</span>'
    cells = [
        f'<td role="cell" class="state"><span class="pill">{verdict.word}</span>{since}</td>',
        f'<th scope="row" class="node">{markup(each.text)}{_small(each)}</th>',
        _cell("picks/s", "" if each.rate is None else figure(each.rate)),
        _cell("share", share),
        f'<td role="cell" class="line">{line}</td>',
        _cell("in flight", f"{status.in_flight:,}{limit}"),
        _cell("latency", "" if status.latency is None else latency(status.latency)),
        _failed(status.recent_successes, status.recent_failures),
        _cell("picks", count(status.picks)),
    ]
    if columns.quota:
        cells.append(_cell("quota left", _quota(each)))
    if columns.actions:
        cells.append(f'<td role="cell" class="acts">{_actions(place, each)}</td>')
    key = markup(f"{place} {type(status.id).__name__} {each.text}")
    severity = verdict.severity.name.lower()
    why = ""
    if verdict.why:
        why = f'<td></td><td role="cell" colspan="{len(cells) - 1}">{markup(verdict.why)}</td>'
        why = f'<tr role="row" class="why">{why}</tr>'
    row = f'<tr role="row">{"".join(cells)}</tr>'
    return f'<tbody role="rowgroup" class="{severity}" data-key="{key}">{row}{why}</tbody>'


def _cell(label: str, content: str) -> str:
    return f'<td role="cell" data-label="{label}">{content}</td>'


def _small(each: NodeFacts) -> str:
    """Return what tells the node from others, where it has that."""
    status, told = each.status, list[str]()
    if status.zone is not None:
        told.append(f"zone {status.zone}")
    if status.priority:
        told.append(f"priority {status.priority}")
    if status.weight != 1:
        told.append(f"weight {figure(status.weight)}")
    tags = each.tags
    told += [f"{name}={value}" for name, value in list(tags.items())[:_MOST_TAGS]]
    if len(tags) > _MOST_TAGS:
        told.append(f"and {len(tags) - _MOST_TAGS} more tags")
    return f"<small>{' · '.join(markup(text, _SHORT) for text in told)}</small>" if told else ""


def _failed(successes: int, failures: int) -> str:
    total = successes + failures
    if not total:
        return _cell("failed, 1 min", "")
    told = f'0<span class="soft"> of {count(total)}</span>'
    if failures:
        told = f'{count(failures)}<span class="soft"> of {count(total)}</span>'
        if failures / total >= _FAILS:
            told = f'<span class="bad">{percent(failures / total)}</span> · {told}'
    return _cell("failed, 1 min", told)


def _quota(each: NodeFacts) -> str:
    left = list(each.status.quota_remaining.items())
    told = [
        f"{markup(name, _SHORTER)} {count(amount)}"
        for name, amount in left[:_MOST_QUOTAS]
        if amount != float("inf")
    ]
    if len(left) > _MOST_QUOTAS:
        told.append(f"and {len(left) - _MOST_QUOTAS} more")
    return " · ".join(told)


def _actions(place: int, each: NodeFacts) -> str:
    status, names = each.status, list[str]()
    if status.cooldown is not None or status.ejected:
        names.append("lift")
    # A weight of 0 cannot be resumed.
    names.append("resume" if status.drained and status.weight else "drain")
    node = each.text
    return " ".join(_button(name, place, node) for name in names)


def _button(name: str, place: int, node: str) -> str:
    query = urlencode({"balancer": place, "node": node}, errors="surrogatepass")
    words = f"{_WORDS[name]}: {node}"
    return (
        f'<button form="actions" formaction="{name}?{html.escape(query)}" '
        f'aria-label="{markup(words)}">{_WORDS[name]}</button>'
    )
