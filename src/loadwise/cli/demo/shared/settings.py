"""What a client process of ``loadwise demo --shared`` is told when it starts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from loadwise.cli.demo.plan import Plan

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a client process is to do.

    Attributes:
        place: Which of the clients it is, from 0.
        places: How many there are.
        choice: Name of the strategy.
        plan: What all of them are to run; ``concurrency`` is its own share of the threads.
        valkey: Port of the Valkey server.
        ports: Where the servers listen, by name.
    """

    place: int
    places: int
    choice: str
    plan: Plan
    valkey: int
    ports: dict[str, int]

    def to_json(self) -> str:
        """Return what `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Return the settings in such a text."""
        given = json.loads(text)
        given["plan"] = Plan(**given["plan"])
        return cls(**given)
