"""Real SDKs in front of real servers that cache prefixes: prefix affinity beside round robin.

``python -m benchmarks.prefix_fleet`` starts three servers for each strategy (see
``benchmarks.prefix_server``) and has conversations with both at once, so that both have the same
noise: by OpenAI's SDK, streamed. It prints what share of the prompts' tokens was cached, and the
time to the first token.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random
from statistics import fmean, quantiles
from typing import Any

from loadwise import Balancer, RoundRobin, Strategy
from loadwise.integrations.httpx2 import LoadwiseTransport
from loadwise.llm import PrefixAffinity, PrefixIndex

__all__ = ["BLOCKS", "Ask", "asker", "cached_share", "converse", "servers"]

Ask = Callable[[list[Any]], Iterator[str]]
"""Sends the messages of a conversation; gives the words of the answer."""
BLOCKS = 4096
"""Blocks of 64 characters that a server keeps."""
_COUNT = 3


@contextmanager
def servers(count: int, rate: float) -> Generator[list[str], None, None]:
    """Run servers of so many tokens a second; give their URLs."""
    command = [sys.executable, "-m", "benchmarks.prefix_server", str(rate), str(BLOCKS)]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own program
        for _ in range(count)
    ]
    try:
        yield [f"http://127.0.0.1:{int(each.stdout.readline())}" for each in started if each.stdout]
    finally:
        for each in started:
            each.kill()
            each.communicate()


def cached_share(urls: Sequence[str]) -> float:
    """Return which share of all prompts' tokens servers had cached."""
    tokens = cached = 0
    for url in urls:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - a literal http URL
            told = json.load(answer)
        tokens, cached = tokens + told["tokens"], cached + told["cached"]
    return cached / tokens


@contextmanager
def asker(strategy: Strategy[str], urls: Sequence[str]) -> Generator[Ask, None, None]:
    """Open OpenAI's SDK over a balancer of servers."""
    import httpx2  # noqa: PLC0415 - what the tests of the parts need is not needed to list benchmarks
    from openai import OpenAI  # noqa: PLC0415 - as httpx2

    http = httpx2.Client(transport=LoadwiseTransport(Balancer(urls, strategy)))
    with OpenAI(api_key="none", base_url="http://fleet/v1", http_client=http) as client:

        def ask(messages: list[Any]) -> Iterator[str]:
            stream = client.chat.completions.create(
                model="sea",
                messages=messages,
                stream=True,
                stream_options={"include_usage": True},
            )
            for event in stream:
                if event.choices and event.choices[0].delta.content:
                    yield event.choices[0].delta.content

        yield ask


def converse(ask: Ask, name: str, turns: int, waits: list[float], pause: float = 0.0) -> None:
    """Have a conversation of so many turns, and note the seconds to each first token."""
    rng = Random(name)
    messages: list[Any] = [{"role": "system", "content": "You know the sea. " * 20}]
    for turn in range(turns):
        time.sleep(pause * rng.random())
        question = f"{name}, question {turn}: " + "what of the deep? " * rng.randrange(20, 60)
        messages.append({"role": "user", "content": question})
        began = time.perf_counter()
        answer = ""
        for word in ask(messages):
            if not answer:
                waits.append(time.perf_counter() - began)
            answer += word
        messages.append({"role": "assistant", "content": answer})


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prefix_fleet", description=__doc__)
    parser.add_argument("--conversations", type=int, default=16)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--rate", type=float, default=4000.0, help="tokens a second of a server")
    given = parser.parse_args(arguments)
    strategies: dict[str, Strategy[str]] = {
        "round robin": RoundRobin(),
        "PrefixAffinity": PrefixAffinity(PrefixIndex(BLOCKS // 4)),
    }
    waits: dict[str, list[float]] = {name: [] for name in strategies}
    with (
        servers(_COUNT * len(strategies), given.rate) as urls,
        ThreadPoolExecutor(given.conversations * len(strategies)) as pool,
    ):
        mine = {name: urls[i * _COUNT :][:_COUNT] for i, name in enumerate(strategies)}
        with (
            asker(strategies["round robin"], mine["round robin"]) as plain,
            asker(strategies["PrefixAffinity"], mine["PrefixAffinity"]) as warm,
        ):
            asks = {"round robin": plain, "PrefixAffinity": warm}
            begun = [
                pool.submit(converse, asks[name], f"user-{number}", given.turns, waits[name], 1.0)
                for number in range(given.conversations)
                for name in strategies
            ]
            for each in begun:
                each.result()
        for name, found in waits.items():
            share, high = cached_share(mine[name]), quantiles(found, n=20)[-1]
            sys.stdout.write(
                f"{name:16} cached {100 * share:5.1f} %   first token {fmean(found):6.3f} s, "
                f"95th percentile {high:6.3f} s, {len(found)} prompts\n"
            )


if __name__ == "__main__":
    main()
