"""Recorded prompts: when they came and which blocks they have, from a JSONL file."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import attrgetter
from pathlib import Path
from random import Random
from typing import Annotated, cast

from msgspec import Meta, Struct, ValidationError
from msgspec.json import Decoder

from loadwise.errors import nearest
from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.scenario import PromptTrace
from loadwise.simulation.world.prompts import SimulatedPrompt

__all__ = ["PromptRecording", "read_prompts"]

_LONGEST_STEP = 3000.0
"""Milliseconds; the times of Mooncake's traces are told in such steps."""
_MOST_TOKENS = 10**9
_MOST_MS = 1e15

Tokens = Annotated[int, Meta(ge=1, le=_MOST_TOKENS)]
Written = Annotated[int, Meta(ge=0, le=_MOST_TOKENS)]
BlockId = Annotated[int, Meta(ge=0)]


class _Row(Struct):
    """A line of the file; what else stands there is left alone."""

    timestamp: Annotated[float, Meta(ge=0, le=_MOST_MS)]
    input_length: Tokens
    output_length: Written
    hash_ids: list[BlockId]


_WANTED = {
    "timestamp": "a number of milliseconds from 0 on",
    "input_length": "a whole number of tokens from 1 on",
    "output_length": "a whole number of tokens from 0 on",
    "hash_ids": "a list of whole numbers from 0 on, one for each block of the prompt",
}


@dataclass(frozen=True, slots=True)
class PromptRecording:
    """Prompts as they were recorded, in the order of their arrival.

    Attributes:
        prompts: They.
        times: Seconds of the arrival of each as recorded, from the first on, at the speed played.
        step: Seconds from one time to the next, at the speed played: the fewest in the file, but
            at most 3 as recorded.
    """

    prompts: tuple[SimulatedPrompt, ...]
    times: array[float]
    step: float

    @property
    def seconds(self) -> float:
        """Seconds in which they arrive."""
        return self.times[-1] + self.step

    def arrivals(self, rng: Random) -> Iterator[float]:
        """Yield when each arrives: those of a step at even intervals, from a random moment on."""
        for begin, together in groupby(self.times):
            count = len([*together])
            first = rng.random()
            yield from (begin + self.step * (first + place) / count for place in range(count))


def read_prompts(
    trace: PromptTrace, block_tokens: int, limit: int | None = None
) -> PromptRecording:
    r"""Read recorded prompts; lines out of order are sorted by time, stably. O(blocks).

    Empty lines are skipped. An answer has one token at least.

    Args:
        trace: The file, and how many times faster than recorded it is played.
        block_tokens: Tokens of a block.
        limit: Keep no more than so many requests, the earliest.

    Raises:
        ScenarioError: The file cannot be read, has no lines, or has one that is not as it must be;
            the message names the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "prompts.jsonl")
        ...     line = '{"timestamp": 0, "input_length": 600, "output_length": 9'
        ...     written = file.write_text(line + ', "hash_ids": [0, 1]}')
        ...     recording = read_prompts(PromptTrace(file=str(file)), 512)
        >>> recording.prompts[0].blocks, list(recording.times), recording.step
        ((0, 1), [0.0], 3.0)
    """
    rows = list(_rows(trace, block_tokens))
    if not rows:
        raise ScenarioError(f"{trace.file} has no requests: each line is one, a JSON object")
    rows.sort(key=attrgetter("timestamp"))
    times = pairwise(row.timestamp for row in rows)
    gaps = (later - earlier for earlier, later in times if later > earlier)
    step = min(_LONGEST_STEP, min(gaps, default=_LONGEST_STEP)) / 1000.0
    kept = rows[:limit]
    first, scale = kept[0].timestamp, 1000.0 * trace.speed
    return PromptRecording(
        tuple(
            SimulatedPrompt(row.input_length, max(1, row.output_length), tuple(row.hash_ids))
            for row in kept
        ),
        array("d", ((row.timestamp - first) / scale for row in kept)),
        step / trace.speed,
    )


def _rows(trace: PromptTrace, block_tokens: int) -> Iterator[_Row]:
    try:
        content = Path(trace.file).read_bytes()
    except (OSError, ValueError) as error:
        # A ValueError is what a path with a null character gives.
        reason = error.strerror if isinstance(error, OSError) else error
        raise ScenarioError(f"the trace {trace.file!r} cannot be read: {reason}") from None
    decode = Decoder(_Row).decode
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = decode(line)
        except (ValidationError, ValueError):
            fault = _fault(line)
        else:
            blocks = -(-row.input_length // block_tokens)
            if len(row.hash_ids) == blocks:
                yield row
                continue
            fault = (
                f"it has {len(row.hash_ids):,} hash_ids, but {row.input_length:,} tokens are "
                f"{blocks:,} blocks of {block_tokens:,}: if the trace has blocks of another size, "
                f"set servers.llm.block_tokens to it"
            )
        raise ScenarioError(f"{trace.file}, line {number}: {fault}")


def _fault(line: bytes) -> str:
    """Return what is wrong with a line that cannot be read."""
    try:
        found: object = json.loads(line)
    except UnicodeDecodeError:
        return "this is not UTF-8"
    except RecursionError:
        return "this is nested too deeply"
    except json.JSONDecodeError as error:
        return f"this is not JSON: {error.msg}, at column {error.colno}"
    if not isinstance(found, dict):
        return f"it is {_shown(found)}; it must be an object with {', '.join(_WANTED)}"
    return _fault_of_row(cast("dict[str, object]", found))


def _fault_of_row(row: dict[str, object]) -> str:
    for key, wanted in _WANTED.items():
        if key not in row:
            return (
                f"it has no {key!r}{nearest(key, row)} (it has {', '.join(row)[:200] or 'nothing'})"
            )
        try:
            _DECODERS[key].decode(json.dumps(row[key]))
        except (ValidationError, ValueError):
            return f"{key} is {_shown(row[key])}; it must be {wanted}"
    return "it cannot be read"


_DECODERS: dict[str, Decoder[object]] = {
    "timestamp": Decoder(Annotated[float, Meta(ge=0, le=_MOST_MS)]),
    "input_length": Decoder(Tokens),
    "output_length": Decoder(Written),
    "hash_ids": Decoder(list[BlockId]),
}


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - fits a line
