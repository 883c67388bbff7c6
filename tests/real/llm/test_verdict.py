"""The verdict for language models, by the real SDKs: for every status what they alone would get."""

from __future__ import annotations

from functools import wraps
from typing import Any

import pytest
from tests.real.llm.asking import MESSAGES, ask, ask_over, client_of, over, run
from tests.real.llm.conftest import Scripted

from loadwise import Balancer, HealthStatus, RoundRobin
from loadwise.integrations.llm import classify_llm

SDKS = pytest.mark.parametrize("sdk", ["chat", "responses", "anthropic"])
BOTH = pytest.mark.parametrize("sdk", ["chat", "anthropic"])
MODES = pytest.mark.parametrize("mode", ["sync", "async"])

RETRIED = (408, 409, 429, 500, 502, 503, 504, 529)
CALLERS = (400, 404, 413, 415, 422)
REFUSED = (401, 402, 403)
EVERY = [(status, "sync") for status in (*RETRIED, *CALLERS, *REFUSED)]
SOME = [(status, "async") for status in (408, 429, 500, 529, 400, 401, 403)]


def alone(provider: Scripted, sdk: str, mode: str, node: str, **options: Any) -> str:
    """Return what an SDK gets without loadwise."""

    async def main() -> str:
        base = node if sdk == "anthropic" else f"{node}/v1"
        client = client_of(sdk, mode, base_url=base, **options)
        try:
            return await ask(sdk, mode, client)
        finally:
            closing = client.close()
            if mode == "async":
                await closing

    return run(mode, main())


@BOTH
@pytest.mark.parametrize(("status", "mode"), [*EVERY, *SOME])
def test_every_status(provider: Scripted, sdk: str, mode: str, status: int) -> None:
    """What an SDK alone would answer is answered, and each node is asked once."""
    body = {"error": {"message": "no", "type": "x"}}
    # A wait that is told keeps the SDK's own retry short.
    bad = {"status": status, "body": body, "headers": {"retry-after-ms": "1"}}
    once = provider.node(**bad, times=1)
    before = alone(provider, sdk, mode, once, retries=1)
    ill, well = provider.node(**bad), provider.node()
    answers, balancer = ask_over(sdk, mode, [ill, well])
    assert provider.asked(ill) == 1
    # A key that is refused is no reason to give up, either, if there is another.
    assert answers == ["answer" if status in REFUSED else before]
    assert provider.asked(well) == (answers == ["answer"])
    assert (before == "answer") is (status in RETRIED)
    assert not any(each.in_flight for each in balancer.status())

    everywhere = [provider.node(**bad) for _ in range(3)]
    answers, _ = ask_over(sdk, mode, everywhere)
    assert answers == [alone(provider, sdk, mode, ill)]
    asked = [provider.asked(each) for each in everywhere]
    assert asked == ([1, 0, 0] if status in CALLERS else [1, 1, 1])


@BOTH
@MODES
def test_who_says_whether_to_retry_is_obeyed(provider: Scripted, sdk: str, mode: str) -> None:
    """The header of the providers goes before the status."""
    for status, said, retried in (
        (500, "false", False),
        (429, "false", False),
        (400, "true", True),
    ):
        ill = provider.node(status=status, headers={"x-should-retry": said})
        well = provider.node()
        answers, _ = ask_over(sdk, mode, [ill, well])
        assert (answers == ["answer"]) is retried
        assert (provider.asked(ill), provider.asked(well)) == (1, int(retried))


@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
def test_server_errors_are_failures(provider: Scripted, status: int) -> None:
    """A node that answers so is found out."""
    ill, well = provider.node(status=status), provider.node()
    answers, balancer = ask_over("chat", "sync", [ill, well], times=8)
    assert answers == ["answer"] * 8
    assert balancer.status()[0].health is HealthStatus.UNHEALTHY
    assert provider.asked(ill) == 3


@BOTH
@MODES
@pytest.mark.parametrize(
    ("status", "code", "why"),
    [
        (401, "invalid_api_key", "401 from the server: the key is refused (invalid_api_key)"),
        (403, None, "403 from the server: the key is refused"),
        (402, None, "402 from the server: the account has nothing left"),
        (
            429,
            "insufficient_quota",
            "429 from the server: the account has nothing left (insufficient_quota)",
        ),
    ],
)
def test_keys_that_time_does_not_mend(
    provider: Scripted, sdk: str, mode: str, status: int, code: str | None, why: str
) -> None:
    """They are on cooldown for an hour, whatever the answer says about retries, and say why."""
    secret = "sk-proj-1234"  # noqa: S105 - none
    error = {"message": f"Incorrect API key provided: {secret}", "code": code, "type": secret}
    headers = {"x-should-retry": "false", "retry-after-ms": "1"}
    ill = provider.node(status=status, headers=headers, body={"error": error})
    answers, balancer = ask_over(sdk, mode, [ill, provider.node()], times=6, max_cooldown=5.0)
    assert answers == ["answer"] * 6
    assert provider.asked(ill) == 1
    status_ = balancer.status()[0]
    assert status_.cooldown is not None
    assert 3_500 < status_.cooldown.seconds_left <= 3_600
    assert status_.cooldown.reason == f"{why}, retry after 3600 s"
    assert secret not in repr(balancer.explain()) + repr(balancer.status())


def test_a_caller_cannot_take_keys_out(provider: Scripted) -> None:
    """What blames the model, or repeats what the caller has written, says nothing of the key."""
    echo = "Invalid value: 'Your credit balance is too low. API key not valid. insufficient_quota'"
    for status, error in (
        (403, {"code": "model_not_found", "message": "no access"}),
        (400, {"type": "invalid_request_error", "message": echo}),
        (404, {"code": "insufficient", "message": echo}),
    ):
        nodes = [provider.node(status=status, body={"error": error}) for _ in range(2)]
        answers, balancer = ask_over("chat", "sync", nodes, times=2)
        assert all(answer.endswith(f" {status}") for answer in answers)
        assert [each.cooldown for each in balancer.status()] == [None, None]


@BOTH
@MODES
@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("nodes", [1, 3])
def test_a_request_that_every_key_refuses_is_at_fault_itself(
    provider: Scripted, sdk: str, mode: str, status: int, nodes: int
) -> None:
    """A firewall that dislikes a prompt, or a wrong header of a caller, rests no key for others."""
    keys = [provider.node(status=status, times=1) for _ in range(nodes)]
    answers, balancer = ask_over(sdk, mode, keys, timeout=30.0)
    assert answers[0].endswith(f" {status}")
    assert [provider.asked(key) for key in keys] == [1] * nodes
    assert [each.cooldown for each in balancer.status()] == [None] * nodes
    assert ask_over(sdk, mode, keys, balancer=balancer)[0] == ["answer"]


@MODES
def test_a_prompt_that_is_too_large_for_the_limits(provider: Scripted, mode: str) -> None:
    """It is told by a 429 that no waiting mends; other keys may have higher limits."""
    message = "Request too large for gpt-5 in organization org-1 on tokens per min (TPM): Limit 1"
    error = {"type": "tokens", "code": "rate_limit_exceeded", "message": message}
    small = [provider.node(status=429, body={"error": error}) for _ in range(2)]
    answers, balancer = ask_over("chat", mode, small, timeout=30.0)
    assert answers == ["RateLimitError 429"]
    assert [provider.asked(key) for key in small] == [1, 1]
    assert [each.cooldown for each in balancer.status()] == [None, None]
    assert ask_over("chat", mode, [*small, provider.node()])[0] == ["answer"]


@MODES
def test_an_account_of_anthropic_without_credit(provider: Scripted, mode: str) -> None:
    """That is said by a 400, and in words."""
    message = "Your credit balance is too low to access the Anthropic API."
    error = {"type": "invalid_request_error", "message": message}
    ill = provider.node(status=400, body={"type": "error", "error": error})
    answers, balancer = ask_over("anthropic", mode, [ill, provider.node()])
    assert answers == ["answer"]
    cooldown = balancer.status()[0].cooldown
    assert cooldown is not None
    assert cooldown.reason.startswith("400 from the server: the account has nothing left")


@BOTH
@MODES
def test_prompts_may_be_sent_again(provider: Scripted, sdk: str, mode: str) -> None:
    """As the SDKs hold it, without a word on it; a wrapper says so by `functools.wraps`."""

    @wraps(classify_llm)
    def wrapper(result: object) -> Any:
        return classify_llm(result)

    for bad in ({"status": 500}, {"status": 429}, {"lose": True}):
        for classify in (classify_llm, wrapper):
            nodes = [provider.node(**bad), provider.node()]
            answers, _ = ask_over(sdk, mode, nodes, hooks=False, classify=classify)
            assert answers == ["answer"]
            assert [provider.asked(node) for node in nodes] == [1, 1]

    def unmarked(result: object) -> Any:
        return classify_llm(result)

    nodes = [provider.node(status=500), provider.node()]
    answers, _ = ask_over(sdk, mode, nodes, hooks=False, classify=unmarked)
    assert answers == ["InternalServerError 500"]


@BOTH
@MODES
def test_connections_that_are_lost(provider: Scripted, sdk: str, mode: str) -> None:
    """They are judged as ever: the node has failed, and another answers."""
    dead = "http://127.0.0.1:9"
    answers, balancer = ask_over(sdk, mode, [dead, provider.node()], times=2)
    assert answers == ["answer"] * 2
    assert balancer.status()[0].recent_failures > 0


@SDKS
@MODES
@pytest.mark.parametrize(
    ("stream", "why"),
    [("error", "error in the stream"), ("cut", "the stream ended without"), ("well", None)],
)
def test_streams(provider: Scripted, sdk: str, mode: str, stream: str, why: str | None) -> None:
    """An error within a stream, or an end without its marker, is a failure of the node."""
    node = provider.node(stream=stream)
    answers, balancer = ask_over(sdk, mode, [node], stream=True, times=3)
    status = balancer.status()[0]
    if why is None:
        assert answers == ["answer"] * 3
        assert (status.recent_failures, status.health) == (0, HealthStatus.HEALTHY)
    else:
        assert status.recent_failures == 3
        assert status.health is HealthStatus.UNHEALTHY
        assert status.health_reason is not None
        assert why in status.health_reason
    assert status.in_flight == 0
    # The SDKs take a stream that was cut for a whole one; OpenAI's hands on an event of responses.
    assert ("answer" in answers) is (stream != "error" or sdk == "responses")


@BOTH
@MODES
def test_who_leaves_a_stream_blames_nobody(provider: Scripted, sdk: str, mode: str) -> None:
    """A stream that is closed early was good as far as anybody knows."""
    node = provider.node(stream="cut")
    balancer = Balancer([node], RoundRobin())

    async def main() -> None:
        http = over(balancer, mode, **({"url": str} if sdk == "anthropic" else {}))
        client = client_of(sdk, mode, base_url="http://llm", http_client=http)
        create = client.messages.create if sdk == "anthropic" else client.chat.completions.create
        more = {"max_tokens": 9} if sdk == "anthropic" else {}
        answer = create(model="m", messages=MESSAGES, stream=True, **more)
        if mode == "sync":
            next(iter(answer))
            answer.close()
            client.close()
        else:
            answer = await answer
            await anext(aiter(answer))
            await answer.close()
            await client.close()

    run(mode, main())
    assert balancer.status()[0].recent_failures == 0
    assert balancer.status()[0].in_flight == 0
