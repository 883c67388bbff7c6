"""What client processes are told."""

from __future__ import annotations

from loadwise.cli.demo.plan import Plan
from loadwise.cli.demo.shared.settings import Settings


def test_settings_survive_the_journey() -> None:
    """What is written for a client is what it reads."""
    settings = Settings(1, 2, "p2c", Plan(100, 8, 3), 6379, {"fast-1": 8080, "slow": 8081})
    assert Settings.from_json(settings.to_json()) == settings
