"""What ``loadwise demo --shared`` says when it is over."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadwise.cli.demo.report import count, ms, thousandths
from loadwise.cli.demo.shared.figures import SharedFigures
from loadwise.cli.demo.shared.news import Message, Outage
from loadwise.cli.demo.shared.quota import SCARCE

__all__ = ["summarise", "verdict"]


def summarise(console: Console, figures: SharedFigures) -> None:
    """Print what came of a run."""
    console.print(_clients(figures))
    console.print(_quotas(figures))
    story = Table.grid(padding=(0, 1))
    for sentence in _story(figures):
        story.add_row("-", sentence)
    console.print(story)


def verdict(figures: SharedFigures) -> Text:
    """Return the line that says whether all went well."""
    counts = (
        f"{figures.sent:,} requests sent by {len(figures.clients)} processes, "
        f"{figures.answered:,} answered, {figures.retried:,} retried, {figures.lost:,} lost."
    )
    trouble = _trouble(figures)
    if trouble:
        return Text(f"{counts} {trouble}", "bold red")
    return Text(
        f"{counts} No request was lost and no quota exceeded, and the servers' own logs agree.",
        "bold green",
    )


def _trouble(figures: SharedFigures) -> str:
    if figures.lost:
        return f"The first to be lost: {figures.why_lost}"
    if figures.unaccounted:
        return f"But the servers know nothing of {figures.unaccounted} answers."
    for quota in figures.quotas:
        if quota.most > quota.limit:
            return (
                f"But {quota.server} got {quota.most:,} requests within {figures.window:g} s, and "
                f"allows {quota.limit:,}{_outages(figures)}."
            )
    if figures.outage is not None and figures.outage.uninformed:
        return f"But {figures.outage.uninformed[0]} was never told that doomed is down."
    return ""


def _outages(figures: SharedFigures) -> str:
    outages = sum(client.outages for client in figures.clients)
    return f" (Valkey did not answer {count(outages, 'time')})" if outages else ""


def _clients(figures: SharedFigures) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), header_style="bold")
    table.add_column("process", style="bold", no_wrap=True)
    headers = ("answers", "retried", "lost", "failed\ntries", "median\nms", "p99\nms")
    for header in (*headers, "news\nfound", "news\ntold"):
        table.add_column(header, justify="right", no_wrap=True)
    for client in figures.clients:
        table.add_row(
            client.name,
            *(f"{n:,}" for n in (client.answered, client.retried, client.lost)),
            f"{client.failed_attempts:,}",
            thousandths(client.latency.p50),
            thousandths(client.latency.p99),
            f"{client.found:,}",
            f"{client.told:,}",
        )
    return table


def _quotas(figures: SharedFigures) -> Table:
    title = f"By the servers' own logs: the most requests in any {figures.window:g} s"
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), header_style="bold", title=title)
    table.add_column("server", style="bold")
    alone = (f"{client.name} alone" for client in figures.clients)
    for header in ("limit", "together", *alone, "requests in all"):
        table.add_column(header, justify="right", no_wrap=True)
    for quota in figures.quotas:
        numbers = (quota.limit, quota.most, *quota.most_by_client.values(), quota.requests)
        table.add_row(quota.server, *(f"{number:,}" for number in numbers))
    return table


def _story(figures: SharedFigures) -> list[str]:
    scarce = next(quota for quota in figures.quotas if quota.server == SCARCE)
    shortage = (
        f"{scarce.server} allows {count(scarce.limit, 'request')} in any {figures.window:g} s. It "
        f"never got more than {scarce.most:,} from both processes together. Each by itself would "
        f"have been free to send {scarce.limit:,}, so {len(figures.clients) * scarce.limit:,} in "
        f"all. What it had no room for, others answered."
    )
    story = [shortage]
    outage = figures.outage
    if outage is None:
        story.append("doomed was killed, but too few requests came its way to find it down.")
    else:
        story.append(_going(outage))
        story += [_return(message) for message in outage.back[:1]]
    if figures.messages:
        delays = sorted(message.after for message in figures.messages)
        story.append(
            f"{count(len(delays), 'change')} of health found out by one process reached the other, "
            f"half of them within {ms(delays[(len(delays) - 1) // 2])}, all within "
            f"{ms(delays[-1])}."
        )
    return story


def _going(outage: Outage) -> str:
    first = f"{outage.found_by} found {outage.server} down {ms(outage.found_after)} after the kill"
    told = "".join(f"; {each.told} was told {ms(each.after)} later" for each in outage.down)
    cost = ", ".join(f"{name} {number:,}" for name, number in outage.failures.items())
    return (
        f"{first}{told or ', and so did the other before it was told'}. It cost them "
        f"{count(sum(outage.failures.values()), 'failed request')} in all ({cost})."
    )


def _return(message: Message) -> str:
    return (
        f"When {message.server} was back, {message.found_by}'s request was the first to find it "
        f"well; {message.told} was told {ms(message.after)} later."
    )
