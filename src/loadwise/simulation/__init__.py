"""The lab: real strategies, health tracking and quotas against a fleet in virtual time.

>>> from loadwise.simulation import load_scenario, simulate
>>> scenario = load_scenario("slow-node", ["requests=2000"])
>>> result = simulate(scenario, strategy="p2c", seed=1)
>>> result.arrived == result.completed
True
"""

from __future__ import annotations

try:
    from loadwise.simulation.comparison import Comparison, Estimate, Summary, compare
    from loadwise.simulation.contenders import STRATEGIES
    from loadwise.simulation.engine import ConservationError, simulate
    from loadwise.simulation.errors import ScenarioError
    from loadwise.simulation.gallery import scenario_names
    from loadwise.simulation.result import HealthChange, Latency, Mark, Result, Timeline
    from loadwise.simulation.scenario import Scenario
    from loadwise.simulation.scenario_file import load_scenario
except ModuleNotFoundError as error:
    if error.name not in {"msgspec", "numpy"}:
        raise
    raise ImportError(
        f"loadwise.simulation needs {error.name}: install loadwise[simulation]"
    ) from error

__all__ = [
    "STRATEGIES",
    "Comparison",
    "ConservationError",
    "Estimate",
    "HealthChange",
    "Latency",
    "Mark",
    "Result",
    "Scenario",
    "ScenarioError",
    "Summary",
    "Timeline",
    "compare",
    "load_scenario",
    "scenario_names",
    "simulate",
]
