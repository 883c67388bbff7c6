"""Uses of prefix routing whose types are checked; it is never run."""

from __future__ import annotations

from collections.abc import Hashable
from typing import assert_type

from loadwise import Balancer, Lease, SelectionContext
from loadwise.llm import PendingTokens, PrefixAffinity, PrefixIndex, Prompt


def check_prefix_routing() -> None:
    """The index, the strategy, and prompts wherever requests are described."""
    index = PrefixIndex(capacity_blocks=100, block_chars=64)
    assert_type(index.match("a prompt"), dict[Hashable, int])
    index.insert("a prompt", "a")
    index.remove("a")
    strategy: PrefixAffinity[str] = PrefixAffinity(index, new_weight=1.0)
    assert_type(strategy.index, PrefixIndex)
    balancer = Balancer(["a", "b"], strategy)
    lease = balancer.acquire(prompt="a prompt")
    assert_type(lease, Lease[str])
    lease.first_byte()
    assert_type(balancer.pick(prompt="a prompt"), str)
    assert_type(balancer.call(len, prompt="a prompt"), int)
    for attempt in balancer.attempts(2, prompt="a prompt"):
        with attempt:
            pass
    assert_type(SelectionContext(prefix="a prompt").prefix, Prompt | None)
    assert_type(PendingTokens().load(PendingTokens().cell("a")), float)
