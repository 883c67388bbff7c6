"""loadwise for language models: what a request costs in tokens, and what an answer says of its key.

Providers limit a key by requests and tokens per minute. What a prompt costs is known only when the
answer is there, so a `TokenMeter` reserves an estimate and settles what the answer says was used.

LoadwiseTransport(balancer, meter=TokenMeter(requests="rpm", tokens="tpm"), classify=classify_llm)

It needs nothing beyond the standard library and goes with the HTTP integrations' ``meter=``.
"""

from __future__ import annotations

from loadwise.integrations._llm.meters import TokenMeter
from loadwise.integrations._llm.verdict import classify_llm

__all__ = ["TokenMeter", "classify_llm"]
