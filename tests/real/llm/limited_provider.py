"""A provider that enforces its limits by a sliding window, in a process of its own.

Run as a script with a JSON object: ``rpm`` and ``tpm`` of each key, and ``headers``, whether to
tell what is left. It prints its port. What time it is, requests tell by ``x-now``, so that minutes
take no minutes. A prompt costs a token per four characters, and is answered by as many tokens as
``x-answer`` says.
"""

import json
import sys
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

RULES = json.loads(sys.argv[1])
LOCK = Lock()
WINDOW = 60.0


class Account:
    """What a key has used in the window that ends now."""

    def __init__(self) -> None:
        self.used: deque[tuple[float, int]] = deque()
        self.tokens = self.served = self.refused = 0
        self.now = 0.0

    def admit(self, now: float, tokens: int) -> bool:
        """Charge a prompt if the limits allow it."""
        self.now = max(self.now, now)
        while self.used and self.used[0][0] + WINDOW <= self.now:
            self.tokens -= self.used.popleft()[1]
        if len(self.used) >= RULES["rpm"] or self.tokens + tokens > RULES["tpm"]:
            self.refused += 1
            return False
        self.used.append((self.now, tokens))
        self.tokens += tokens
        self.served += 1
        return True

    def headers(self) -> dict[str, str]:
        """Return what is left, as OpenAI tells it."""
        reset = self.used[0][0] + WINDOW - self.now if self.used else 0.0
        return {
            "x-ratelimit-limit-requests": str(RULES["rpm"]),
            "x-ratelimit-limit-tokens": str(RULES["tpm"]),
            "x-ratelimit-remaining-requests": str(RULES["rpm"] - len(self.used)),
            "x-ratelimit-remaining-tokens": str(RULES["tpm"] - self.tokens),
            "x-ratelimit-reset-requests": f"{reset:.3f}s",
            "x-ratelimit-reset-tokens": f"{reset:.3f}s",
        }


ACCOUNTS: dict[str, Account] = {}


class Handler(BaseHTTPRequestHandler):
    """Answers prompts."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Tell how many prompts each key has served, and how many it has refused."""
        with LOCK:
            told = {key: [each.served, each.refused] for key, each in ACCOUNTS.items()}
        self.reply(200, told, {})

    def do_POST(self) -> None:
        """Answer a prompt."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = sum(len(each["content"]) for each in asked["messages"]) // 4
        answer = int(self.headers["x-answer"])
        key = self.headers["Authorization"].removeprefix("Bearer ")
        with LOCK:
            account = ACCOUNTS.setdefault(key, Account())
            admitted = account.admit(float(self.headers["x-now"]), prompt + answer)
            headers = account.headers() if RULES["headers"] else {}
        if not admitted:
            error = {"type": "requests", "code": "rate_limit_exceeded", "message": "slow down"}
            self.reply(429, {"error": error}, {**headers, "retry-after-ms": "500"})
            return
        usage = {"prompt_tokens": prompt, "completion_tokens": answer}
        message = {"role": "assistant", "content": "done"}
        body = {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {**usage, "total_tokens": prompt + answer},
        }
        self.reply(200, body, headers)

    def reply(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        """Send a whole response."""
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay silent."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)  # noqa: T201 - this is how it tells
    server.serve_forever()
