"""loadwise for language models: a pool of keys, and what it is made of.

client = KeyPool([{"key": ..., "base_url": ..., "rpm": 500, "tpm": 200_000}, ...]).openai()

Providers limit a key by requests and tokens per minute. What a prompt costs is known only when the
answer is there, so a `TokenMeter` reserves an estimate and settles what the answer says was used.

LoadwiseTransport(balancer, meter=TokenMeter(requests="rpm", tokens="tpm"), classify=classify_llm)

It needs nothing beyond the standard library and goes with the HTTP integrations' ``meter=``.
"""

from __future__ import annotations

from loadwise.integrations._llm.key_pool import KeyPool
from loadwise.integrations._llm.meters import TokenMeter
from loadwise.integrations._llm.verdict import classify_llm

__all__ = ["KeyPool", "TokenMeter", "classify_llm"]
