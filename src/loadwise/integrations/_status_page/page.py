"""The page as HTML: one file with all that it needs, rendered by the server."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from string import Template
from typing import Final

from loadwise._amounts import figure, in_words, percent, plural
from loadwise._text import visible
from loadwise.integrations._status_page.facts import BalancerFacts, NodeFacts, PageFacts
from loadwise.integrations._status_page.history import Point
from loadwise.integrations._status_page.query import PageQuery
from loadwise.integrations._status_page.table import Columns, table
from loadwise.integrations._status_page.verdicts import Severity
from loadwise.integrations._status_page.words import markup

__all__ = ["PER_PAGE", "fragment", "page", "policy", "said"]

PER_PAGE: Final = 50
"""Nodes of one balancer that are rendered at most."""
_REFRESH: Final = 5
"""Seconds after which a page without scripts loads itself again."""
_MANY: Final = 12
"""Nodes from which on a balancer's line says how many are how."""

_FORM: Final = (
    '<form class="token" id="actions" method="post" action="drain" autocomplete="on">'
    '<input type="text" name="user" value="operator" autocomplete="username" hidden>'
    '<label for="token">Token for actions</label>'
    '<input id="token" name="token" type="password" autocomplete="current-password" required>'
    "<span>Drain, resume and lift hold for this process alone.</span></form>"
)

PointsOf = Callable[[int, NodeFacts], Sequence[Point]]


@cache
def _asset(name: str) -> str:
    return (files(__package__ or "") / name).read_text(encoding="utf-8")


@cache
def policy() -> str:
    """Return the content security policy: this page's own style and script, and nothing else."""
    script, style = (
        f"'sha256-{base64.b64encode(hashlib.sha256(_asset(name).encode()).digest()).decode()}'"
        for name in ("page.js", "page.css")
    )
    return (
        f"default-src 'none'; script-src {script}; style-src {style.replace('$', '')}; "
        "img-src data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )


def page(facts: PageFacts, query: PageQuery, main: str, *, actions: bool) -> str:
    """Return the whole page, of which ``main`` is the `fragment` of this choice."""
    return Template(_asset("page.html")).substitute(
        title=markup(_title(facts)),
        style=_asset("page.css"),
        refresh=_REFRESH,
        text=markup(query.text),
        problems=" checked" if query.problems else "",
        kept=f'<input type="hidden" name="balancer" value="{query.balancer}">'
        if query.balancer
        else "",
        token=_FORM if actions else "",
        main=main,
        script=_asset("page.js"),
    )


def said(text: str, *, done: bool) -> str:
    """Return a small page that tells what came of an action."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{'Done' if done else 'Refused'} · loadwise status</title>"
        f"<style>{_asset('page.css')}</style></head><body><header><h1>loadwise "
        f'<span>status</span></h1></header><p id="said" data-state="'
        f'{"done" if done else "refused"}" data-said>{markup(text)}</p>'
        '<p><a href="./">Back to the nodes</a></p></body></html>'
    )


def fragment(facts: PageFacts, query: PageQuery, points: PointsOf, *, actions: bool) -> str:
    """Return the part of the page that changes, in one line. O(nodes) for a text to be found."""
    data = f'data-title="{markup(_title(facts))}" data-interval="{facts.interval:.1f}"'
    parts = [
        f'<p class="verdict" {data}>{markup(_verdict(facts))}</p>',
        f'<p class="about">{_about(facts)}</p>',
    ]
    for number, each in enumerate(facts.balancers, 1):
        if query.balancer in (0, number):
            parts.append(_section(number, each, query, points, actions=actions))
    if query.balancer:
        parts.append(
            f'<p class="pages"><a href="{markup(PageQuery().link(balancer=0, page=1))}">'
            "All balancers</a></p>"
        )
    parts.append(
        "<footer>Counts are of this process. The history is kept while somebody looks. "
        '<a href="status.json">status.json</a></footer>'
    )
    return "".join(parts).replace("\n", " ")


def _title(facts: PageFacts) -> str:
    bad = _number_of(facts, Severity.DOWN) + _number_of(facts, Severity.WARNING)
    names = ", ".join(visible(each.name) for each in facts.balancers[:3])
    return f"{f'({bad}) ' if bad else ''}{names} · loadwise status"


def _number_of(facts: PageFacts, severity: Severity) -> int:
    return sum(each.severities[severity] for each in facts.balancers)


def _verdict(facts: PageFacts) -> str:
    """Return how all is in one sentence, the worst first."""
    total = sum(len(each.nodes) for each in facts.balancers)
    told = [
        f"{each.name}: {each.trouble}" if each.trouble else f"{each.name}: {each.panic}"
        for each in facts.balancers
        if each.trouble or each.panic is not None
    ]
    down, warned = (_number_of(facts, each) for each in (Severity.DOWN, Severity.WARNING))
    if not total:
        told.append("There are no nodes.")
    elif not down and not warned:
        told.append("The only node is up." if total == 1 else f"All {total:,} nodes are up.")
        if noticed := _number_of(facts, Severity.NOTICE):
            told[-1] = f"No problems; {noticed:,} of {plural(total, 'node')} to know about."
    else:
        parts = [f"{down:,} down"] * bool(down) + [f"{warned:,} in trouble"] * bool(warned)
        told.append(f"{' and '.join(parts)} of {plural(total, 'node')}.")
    return " · ".join(told)


def _about(facts: PageFacts) -> str:
    about = facts.about
    when = datetime.fromtimestamp(facts.time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    every = f", every {in_words(facts.interval)}" if facts.interval >= 2 else ""  # noqa: PLR2004
    return markup(
        f"{when}{every} · process {about['pid']} on {about['host']} · "
        f"loadwise {about['loadwise']} · Python {about['python']}"
    )


def _section(
    number: int, facts: BalancerFacts, query: PageQuery, points: PointsOf, *, actions: bool
) -> str:
    found = _found(facts, query)
    pages = max(1, -(-len(found) // PER_PAGE))
    at = min(query.page, pages)
    shown = found[(at - 1) * PER_PAGE : at * PER_PAGE]
    name, strategy = markup(facts.name), markup(facts.strategy)
    parts = [
        f'<section data-key="balancer {number}" aria-labelledby="balancer-{number}">',
        f'<div class="head"><h2 id="balancer-{number}">{name}</h2><p>{strategy}</p></div>',
    ]
    if facts.trouble:
        parts.append(f'<p class="trouble">It cannot be read: {markup(facts.trouble)}</p>')
    if facts.panic is not None:
        parts.append(f'<p class="panic">{markup(facts.panic)}</p>')
    parts.append(f'<dl class="figures">{"".join(_figures(facts))}</dl>')
    if shown:
        quota = any(each.status.quota_remaining for each in shown)
        parts.append(
            table(
                number,
                facts,
                shown,
                lambda each: points(number - 1, each),
                Columns(quota, actions),
            )
        )
    elif not facts.trouble:
        parts.append(f'<p class="none">{_nothing(facts, query)}</p>')
    if pages > 1:
        parts.append(_pages(number, at, pages, len(found), query))
    parts.append("</section>")
    return "".join(parts)


def _nothing(facts: BalancerFacts, query: PageQuery) -> str:
    if not facts.nodes:
        return "It has no nodes."
    if query.text:
        return f"None of {plural(len(facts.nodes), 'node')} has “{markup(query.text)}”."
    return f"None of {plural(len(facts.nodes), 'node')} has a problem."


def _found(facts: BalancerFacts, query: PageQuery) -> Sequence[NodeFacts]:
    found: Sequence[NodeFacts] = facts.by_severity
    if query.problems:
        found = [each for each in found if each.verdict.severity is not Severity.WELL]
    if query.text:
        text = query.text.casefold()
        found = [each for each in found if text in facts.searched[each.status.id]]
    return found


def _figures(facts: BalancerFacts) -> Iterator[str]:
    bad = facts.available < facts.members
    yield _figure("available", f"{facts.available:,} of {facts.members:,}", bad=bad)
    if facts.outside:
        total = len(facts.nodes) + facts.outside
        yield _figure("in its subset", f"{len(facts.nodes):,} of {total:,}")
    if facts.rate is not None:
        yield _figure("picks/s", figure(facts.rate))
    yield _figure("in flight", f"{facts.in_flight:,}")
    yield _figure("waiting", f"{facts.waiting:,}", bad=facts.waiting > 0)
    successes, failures = facts.recent
    if successes + failures:
        share = failures / (successes + failures)
        text = f"{percent(share)} of {successes + failures:,}"
        yield _figure("failed in the last minute", text, bad=share >= 0.01)  # noqa: PLR2004
    if len(facts.nodes) >= _MANY:
        for severity, word in _HOW:
            if facts.severities[severity]:
                yield _figure(word, f"{facts.severities[severity]:,}")


_HOW: Final = (
    (Severity.DOWN, "down"),
    (Severity.WARNING, "in trouble"),
    (Severity.NOTICE, "to know about"),
    (Severity.WELL, "up"),
)


def _figure(label: str, value: str, *, bad: bool = False) -> str:
    mark = ' class="bad"' if bad else ""
    return f"<div{mark}><dt>{label}</dt><dd>{value}</dd></div>"


def _pages(number: int, at: int, pages: int, found: int, query: PageQuery) -> str:
    first, last = (at - 1) * PER_PAGE + 1, min(at * PER_PAGE, found)
    links = [f"{first:,} to {last:,} of {plural(found, 'node')}, problems first"]
    for word, page_number in (("Previous", at - 1), ("Next", at + 1)):
        if 1 <= page_number <= pages:
            link = query.link(balancer=number, page=page_number)
            links.append(f'<a href="{markup(link)}">{word}</a>')
    return f'<nav class="pages" aria-label="Pages"><span>{"</span> ".join(links)}</nav>'
