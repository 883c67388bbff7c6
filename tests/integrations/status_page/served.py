"""Program with a status page, for a server in a process of its own.

One node can be killed and mended from outside: ``/kill`` and ``/mend``.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from typing import Any

from loadwise import Balancer, ConsecutiveFailurePolicy, HealthTracker
from loadwise.integrations.status_page import StatusPage

TOKEN = "of the tests"  # noqa: S105 - and of nobody else

HEALTH = HealthTracker(ConsecutiveFailurePolicy(1, 1))
BALANCER = Balancer(["steady", "doomed"], name="fleet", health=HEALTH)
PAGE = StatusPage(BALANCER, actions=True, token=TOKEN)


def change(path: str) -> str:
    """Kill or mend the node."""
    if path.endswith("/kill"):
        HEALTH.report_failure("doomed", "killed")
    else:
        HEALTH.report_success("doomed")
    return "done"


def wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Serve the page below a path, and the changes beside it."""
    path, mount = environ["PATH_INFO"], "/ops/status"
    if path in ("/kill", "/mend"):
        start_response("200 OK", [("content-type", "text/plain")])
        return [change(path).encode()]
    if path == mount or path.startswith(f"{mount}/"):
        moved = {"SCRIPT_NAME": mount, "PATH_INFO": path[len(mount) :]}
        return PAGE.wsgi({**environ, **moved}, start_response)
    start_response("404 Not Found", [("content-type", "text/plain")])
    return [b"nothing here"]


if __name__ == "__main__":
    # Ctrl-C is ignored where the tests themselves run in the background of a shell.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    PAGE.serve(int(sys.argv[1]), host=sys.argv[2])
    sys.stdout.write("closed\n")
