"""Prompts with prefixes drawn anew for a recorded load that has none.

``python -m benchmarks.prompt_traces azure-llm-2023-conv.csv prompts.jsonl`` reads the times and the
lengths of a CSV file with the columns of the Azure LLM inference trace 2023, and writes prompts in
the format of Mooncake. Each request that is long enough goes on, with a chance of 0.7, with the
longest open conversation that fits into it; others begin one, under one of eight system prompts.
Times and lengths are those of the recording; who shares what is made up.
"""

from __future__ import annotations

import argparse
import csv
import json
from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import count
from pathlib import Path
from random import Random

__all__ = ["prompts"]

_BLOCK = 16
"""Tokens of a block: those prompts are too short for blocks of 512."""
_GOES_ON = 0.7
_SYSTEMS, _SYSTEM_BLOCKS = 8, 12
_OPEN = 2000
"""Conversations that may be gone on with, the latest."""

Row = tuple[float, int, int]
"""Milliseconds of its arrival, tokens read and tokens written."""


def prompts(rows: Sequence[Row], seed: int = 1) -> Iterator[dict[str, object]]:
    """Yield the lines of the trace."""
    rng, unused = Random(seed), count(_SYSTEMS * _SYSTEM_BLOCKS)
    said: list[tuple[int, int, tuple[int, ...]]] = []
    order = count()
    for at, read, written in rows:
        blocks: tuple[int, ...] = ()
        fits = bisect_right(said, (read - 1, 1 << 62, ()))
        if fits and rng.random() < _GOES_ON:
            blocks = said.pop(fits - 1)[2]
        else:
            system = rng.randrange(_SYSTEMS) * _SYSTEM_BLOCKS
            blocks = tuple(range(system, system + min(_SYSTEM_BLOCKS, read // _BLOCK)))
        missing = -(-read // _BLOCK) - len(blocks)
        ids = (*blocks, *(next(unused) for _ in range(missing)))
        fields = {"timestamp": at, "input_length": read, "output_length": written}
        yield fields | {"hash_ids": list(ids)}
        total, full = read + written, ids[: read // _BLOCK]
        answer = (next(unused) for _ in range(total // _BLOCK - len(full)))
        insort(said, (total, next(order), (*full, *answer)))
        if len(said) > _OPEN:
            said.remove(min(said, key=lambda each: each[1]))


def read(path: Path) -> list[Row]:
    """Return the rows of the recording."""
    with path.open(encoding="utf-8-sig", newline="") as lines:
        found = [
            (
                datetime.fromisoformat(row["TIMESTAMP"][:26]),
                max(1, int(row["ContextTokens"])),
                int(row["GeneratedTokens"]),
            )
            for row in csv.DictReader(lines)
        ]
    first = found[0][0]
    return [
        (round((at - first).total_seconds() * 1000.0), tokens, written)
        for at, tokens, written in found
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the trace."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prompt_traces", description=__doc__)
    parser.add_argument("recording", type=Path, help="CSV file of times and lengths")
    parser.add_argument("prompts", type=Path, help="JSONL file to write")
    given = parser.parse_args(arguments)
    with given.prompts.open("w", encoding="utf-8", newline="\n") as out:
        for line in prompts(read(given.recording)):
            out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
