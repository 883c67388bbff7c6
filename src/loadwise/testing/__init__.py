"""Tools for tests of programs that use loadwise: time, chance and servers at your command.

Needs nothing but loadwise itself; `StrategyContract` is a plain class of test methods that pytest
collects wherever it is subclassed. Fixtures for pytest are in `loadwise.testing.pytest_plugin`.
"""

from loadwise.testing.contract import StrategyContract
from loadwise.testing.fake_fleet import Call, FakeFleet
from loadwise.testing.manual_clock import ManualClock
from loadwise.testing.scripted_random import ScriptedRandom
from loadwise.testing.virtual_time import VirtualClock

__all__ = [
    "Call",
    "FakeFleet",
    "ManualClock",
    "ScriptedRandom",
    "StrategyContract",
    "VirtualClock",
]
