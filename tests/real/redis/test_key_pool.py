"""A pool of keys whose limits several processes share."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest
import redis

from loadwise.integrations.llm import KeyPool
from loadwise.integrations.redis import SharedQuota

CHAT = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}


def test_pools_keep_to_the_limits_of_their_keys_together(client: redis.Redis, prefix: str) -> None:
    """What one has used the other has not left; what was estimated is settled for both."""
    provider = httpx2.MockTransport(lambda _: httpx2.Response(200, json=CHAT))
    entry = {"key": "sk-1", "base_url": "http://llm/v1", "name": "a", "rpm": 5, "tpm": 10_000}
    messages: Any = [{"role": "user", "content": "Hi"}]
    with SharedQuota(client, prefix) as one, SharedQuota(client, prefix) as two:
        pools = [KeyPool([entry], quota=quota, timeout=0.0) for quota in (one, two)]
        clients = [pool.openai(transport=provider) for pool in pools]
        for number in range(5):  # of which four would have room, if nothing were settled
            clients[number % 2].chat.completions.create(
                model="m", messages=messages, max_completion_tokens=2_400
            )
        for each in clients:
            with pytest.raises(openai.APIConnectionError):
                each.chat.completions.create(model="m", messages=messages)
            each.close()
