"""OpenAI's own SDK over several API keys and base URLs, by a pool of keys.

The program talks to the SDK as ever. Beneath it, every prompt goes to a key that can afford it:
what it may cost is reserved, and settled when the answer tells. One key allows less than we were
told: its 429 puts it on cooldown for its Retry-After, and the prompt goes to another key at once.

Two providers run in threads of this program, so it needs no account, and ends by itself.

    pip install 'loadwise[httpx2]' openai
    python examples/openai_drop_in.py
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

from loadwise import RoundRobin

try:
    import openai

    from loadwise.integrations.llm import KeyPool
except ImportError as missing:
    print(f"{missing}\nThis example needs: pip install 'loadwise[httpx2]' openai")
    sys.exit()

ANSWER = "to every question there is an answer"
PROMPTS = 20
TOKENS = 10_000


class Provider(ThreadingHTTPServer):
    """Stands for a provider: it knows its keys, and how many requests each may send."""

    daemon_threads = True

    def __init__(self, allowed: dict[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), Completions)
        self.allowed = allowed
        self.answered: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.lock = Lock()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def admit(self, key: str) -> bool:
        """Count a request, and say whether the key may still send it."""
        with self.lock:
            admitted = self.answered[key] < self.allowed.get(key, 0)
            (self.answered if admitted else self.refused)[key] += 1
            return admitted


class Completions(BaseHTTPRequestHandler):
    """Answers chat completions, streamed or not, or says 429."""

    server: Provider

    def do_POST(self) -> None:
        """Answer a prompt."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.server.admit(self.headers["Authorization"].removeprefix("Bearer ")):
            self.reply(429, b'{"error": {"message": "slow down"}}', "application/json")
            return
        prompt = sum(len(message["content"].split()) for message in asked["messages"])
        words = ANSWER.split()
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": len(words),
            "total_tokens": prompt + len(words),
        }
        if asked.get("stream"):
            deltas = [{"choices": [{"index": 0, "delta": {"content": f"{w} "}}]} for w in words]
            events = [json.dumps(event) for event in (*deltas, {"choices": [], "usage": usage})]
            text = "".join(f"data: {event}\n\n" for event in (*events, "[DONE]"))
            self.reply(200, text.encode(), "text/event-stream")
        else:
            message = {"role": "assistant", "content": ANSWER}
            whole = {"choices": [{"index": 0, "message": message}], "usage": usage}
            self.reply(200, json.dumps(whole).encode(), "application/json")

    def reply(self, status: int, body: bytes, kind: str) -> None:
        """Send a response."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 429:
            self.send_header("Retry-After", "20")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay silent."""


@contextmanager
def running(provider: Provider) -> Iterator[Provider]:
    """Run a provider in a thread."""
    thread = Thread(target=provider.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield provider
    finally:
        provider.shutdown()
        thread.join()
        provider.server_close()


def ask(client: openai.OpenAI, question: str) -> str:
    """Have a question answered in one piece."""
    answer = client.chat.completions.create(
        model="any",
        messages=[{"role": "user", "content": question}],
        max_completion_tokens=50,
    )
    return answer.choices[0].message.content or ""


def ask_in_a_stream(client: openai.OpenAI, question: str) -> str:
    """Have a question answered word by word."""
    stream = client.chat.completions.create(
        model="any",
        messages=[{"role": "user", "content": question}],
        max_completion_tokens=50,
        stream=True,
        stream_options={"include_usage": True},  # so that the end tells what was used
    )
    return "".join(event.choices[0].delta.content or "" for event in stream if event.choices)


def main(eu: Provider, us: Provider) -> None:
    """Ask until no key has room."""
    keys = [("sk-eu-1", eu.url, 4), ("sk-eu-2", eu.url, 4), ("sk-us", us.url, 8)]
    pool = KeyPool(
        [
            # Here the keys are made up; a name that shows must not be a secret.
            {"key": key, "base_url": url, "rpm": rpm, "tpm": TOKENS, "name": f"key {number}"}
            for number, (key, url, rpm) in enumerate(keys)
        ],
        RoundRobin(),
        timeout=0.0,  # it would wait for a minute else
    )
    answers: list[str] = []
    with pool.openai() as client:
        try:
            for number in range(PROMPTS):
                way = ask_in_a_stream if number % 2 else ask
                answers.append(way(client, f"question {number}").strip())
        except openai.APIConnectionError as error:
            print(f"{answers.count(ANSWER)} prompts were answered, then: {error.__cause__}")
    answered, refused = eu.answered + us.answered, eu.refused + us.refused
    for number, (key, _url, _rpm) in enumerate(keys):
        left = pool.quota.remaining(f"key {number}", "tpm")
        print(
            f"{key:7} {answered[key]} answered, {refused[key]} refused, "
            f"{left:,.0f} of {TOKENS:,} tokens left in this minute"
        )


if __name__ == "__main__":
    # sk-eu-2 allows two requests only, whatever we were told.
    with (
        running(Provider({"sk-eu-1": 4, "sk-eu-2": 2})) as europe,
        running(Provider({"sk-us": 8})) as america,
    ):
        main(europe, america)
