"""How long ``import loadwise`` takes, and what else it brings along."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

from benchmarks.model import Figure, Result, Scale, Table, Target, show_seconds

__all__ = ["startup"]

_MOST_SECONDS = 0.040
_ALLOWED = {"loadwise", "xxhash"}
_SCRIPT = """
import sys, time
before = set(sys.modules)
start = time.perf_counter()
import loadwise
seconds = time.perf_counter() - start
names = {name.partition(".")[0] for name in set(sys.modules) - before}
import json
print(json.dumps([seconds, sorted(names - sys.stdlib_module_names)]))
"""


def startup(scale: Scale) -> Result:
    """Import it in fresh interpreters."""
    seconds: list[float] = []
    packages: set[str] = set()
    # An installed package has its bytecode; the first of these runs writes what is missing.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    for turn in range(scale.portion(31) + 1):
        answer = subprocess.run(  # noqa: S603 - this interpreter, the script above
            [sys.executable, "-c", _SCRIPT],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=environment,
        )
        if not turn:
            continue
        taken, names = json.loads(answer.stdout)
        seconds.append(taken)
        packages.update(names)
    median = statistics.median(seconds)
    packages -= {"_xxhash"}
    row = (
        "`import loadwise`",
        show_seconds(median),
        show_seconds(min(seconds)),
        ", ".join(sorted(packages)),
    )
    header = ("what", "median", "quickest", "packages imported")
    table = Table("startup", "Start-up", header, (row,), "In fresh interpreters, one by one.")
    targets = (
        Target(
            "`import loadwise`, median",
            f"at most {show_seconds(_MOST_SECONDS)}",
            show_seconds(median),
            median <= _MOST_SECONDS,
        ),
        Target(
            "packages that `import loadwise` imports",
            ", ".join(sorted(_ALLOWED)),
            ", ".join(sorted(packages)),
            packages <= _ALLOWED,
        ),
    )
    return Result((table,), (Figure("startup: import loadwise", tuple(seconds)),), targets)
