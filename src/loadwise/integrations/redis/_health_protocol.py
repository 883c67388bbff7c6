"""Notes that processes give each other of nodes' health, and the server's replies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from loadwise.health import HealthStatus, NodeHealth
from loadwise.integrations.redis._parsing import (
    EXACT,
    Rejected,
    check_schema,
    decode_json,
    fields,
    text,
    whole,
)

__all__ = [
    "MOST_NODES",
    "Look",
    "Note",
    "Put",
    "encode_note",
    "parse_look",
    "parse_message",
    "parse_note",
    "parse_put",
]

MOST_NODES = 10_000
"""As many are kept by the server, and of others' by a process."""

_LONGEST_NOTE = 8192

_SCHEMA = 1
_SECOND = 1_000_000
_LONGEST_ID = 1024
_LONGEST_EPOCH = 20
_LONGEST_REASON = 300
_LONGEST_ERROR = 1000


@dataclass(frozen=True, slots=True)
class Note:
    """A node's change of health.

    Attributes:
        health: What the node's health has been since, by the local clock.
        at: When, by the server's clock, in microseconds.
        when: When, by the local clock.
    """

    health: NodeHealth
    at: int
    when: float


@dataclass(frozen=True, slots=True)
class Put:
    """Result of sending a note.

    Attributes:
        at: When it happened, by the server's clock, in microseconds; 0 if it came too late.
        epoch: As in `Look`; ``""`` if the note came too late.
        unpublished: Why others are not told at once; ``""`` if they are.
        later: What the server knows that happened later.
    """

    at: int
    epoch: str = ""
    unpublished: str = ""
    later: Note | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """State that the server keeps.

    Attributes:
        changed: Another text after every change; ``""`` if the server keeps nothing.
        epoch: Another text when the server has lost what it kept; ``""`` if it keeps nothing.
        now: The server's time, in microseconds.
        dropped: How many fields it had to drop.
        entries: The changes of health, for `parse_note`; none if nothing has changed.
        unreadable: Why there are none though it keeps some; the next news makes room. Else ``""``.
    """

    changed: str
    epoch: str
    now: int
    dropped: int
    entries: list[object]
    unreadable: str = ""


def encode_note(health: NodeHealth, when: float) -> bytes:
    """Return a change of health in words.

    Args:
        health: The node's health.
        when: When it changed, in seconds of the local clock; the times in it are told from there.

    Raises:
        ValueError: The id is too long, or cannot be written in UTF-8.
    """
    if not isinstance(health.id, str) or len(health.id.encode()) > _LONGEST_ID:
        raise ValueError(f"the id {health.id!r:.100} cannot be shared")
    return json.dumps(
        {
            "v": _SCHEMA,
            "id": health.id,
            "status": health.status.name,
            "failures": health.consecutive_failures,
            "successes": health.consecutive_successes,
            "failed": _ago(health.last_failure, when),
            "down": _ago(health.down_since, when),
            "reason": None if health.reason is None else _readable(health.reason),
        }
    ).encode()


def parse_put(raw: object, received: float) -> Put:
    """Return what the server answered to a note.

    Raises:
        Rejected: It makes no sense, or what the server keeps is not of loadwise.
    """
    status, answer = _status_of(raw)
    if status == "ok" and len(answer) == len(("at", "epoch", "error")):
        unpublished = text(answer[2], _LONGEST_ERROR)
        return Put(whole(answer[0]), text(answer[1], _LONGEST_EPOCH), unpublished)
    if status == "old" and len(answer) == len(("now", "note")):
        return Put(0, later=parse_note(answer[1], whole(answer[0]), received))
    raise Rejected(f"the health of nodes: {text(answer[0]) if answer else status}")


def parse_look(raw: object) -> Look:
    """Return what the server answered to a look at what it keeps.

    Raises:
        Rejected: It makes no sense, or what the server keeps is not of loadwise.
    """
    status, answer = _status_of(raw)
    if status == "full" and len(answer) == len(("now", "why")):
        return Look("", "", whole(answer[0]), 0, [], text(answer[1]))
    head = ("changed", "now", "dropped", "epoch")
    if status != "ok" or len(answer) < len(head):
        raise Rejected(f"the health of nodes: {text(answer[0]) if answer else status}")
    changed, now, dropped, epoch = answer[: len(head)]
    return Look(
        text(changed, 20),
        text(epoch, _LONGEST_EPOCH),
        whole(now),
        whole(dropped),
        answer[len(head) :],
    )


def _status_of(raw: object) -> tuple[str, list[object]]:
    answer = fields(raw)
    return text(answer[0], 16), answer[1:]


def parse_message(raw: object, now: int | None, received: float) -> Note:
    """Return the change of health that a message tells of.

    Args:
        raw: The message.
        now: The server's time, in microseconds; ``None`` to go by what the message says it is.
        received: The local clock's at the same moment, in seconds.

    Raises:
        Rejected: It makes no sense, or is dated ahead.
    """
    said, _, note = text(raw, _LONGEST_NOTE + 40).partition(" ")
    now = whole(said) if now is None else now
    ahead = whole(note.partition(" ")[0]) - now
    if ahead > _SECOND:
        raise Rejected(f"dated {ahead / _SECOND:.0f} s ahead")
    return parse_note(note, now, received)


def parse_note(raw: object, now: int, received: float) -> Note:
    """Return a change of health that the server keeps.

    Args:
        raw: What it keeps.
        now: The server's time, in microseconds.
        received: The local clock's at the same moment, in seconds.

    Raises:
        Rejected: It makes no sense.
    """
    at_text, _, body = text(raw, _LONGEST_NOTE + 20).partition(" ")
    # What is dated ahead happened just now: nothing that comes later may seem older.
    at = min(whole(at_text), now)
    content = decode_json(body)
    if not isinstance(content, dict):
        raise Rejected("no note of loadwise")
    said = cast("dict[str, Any]", content)
    check_schema(said.get("v"), _SCHEMA)
    when = received - (now - at) / _SECOND
    status, reason = said.get("status"), said.get("reason")
    if not isinstance(status, str) or status not in HealthStatus.__members__:
        raise Rejected(f"{status!r:.40} is no state of health")
    if reason is not None:
        reason = text(reason, 4 * _LONGEST_REASON)
    health = NodeHealth(
        text(said.get("id"), _LONGEST_ID),
        HealthStatus[status],
        consecutive_failures=_count(said.get("failures")),
        consecutive_successes=_count(said.get("successes")),
        last_failure=_moment(said.get("failed"), when),
        down_since=_moment(said.get("down"), when),
        reason=reason,
    )
    return Note(health, at, when)


def _readable(reason: str) -> str:
    return reason[:_LONGEST_REASON].encode(errors="replace").decode()


def _ago(moment: float | None, when: float) -> float | None:
    return None if moment is None else max(0.0, when - moment)


def _moment(ago: object, when: float) -> float | None:
    if ago is None:
        return None
    if isinstance(ago, bool) or not isinstance(ago, int | float) or not 0 <= ago <= EXACT:
        raise Rejected(f"{ago!r:.40} is no stretch of time")
    return when - ago


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= EXACT:
        raise Rejected(f"{value!r:.40} is no count")
    return value
