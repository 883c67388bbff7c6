"""Tools for tests of programs that use loadwise: time and chance at your command.

Needs nothing but loadwise itself; `StrategyContract` is a plain class of test methods that pytest
collects wherever it is subclassed.
"""

from loadwise.testing.contract import StrategyContract
from loadwise.testing.manual_clock import ManualClock
from loadwise.testing.scripted_random import ScriptedRandom

__all__ = ["ManualClock", "ScriptedRandom", "StrategyContract"]
