"""Simulator: real strategies, health tracking and quotas against a fleet in virtual time.

>>> from loadwise.simulation import load_scenario, simulate
>>> scenario = load_scenario("slow-node", ["requests=2000"])
>>> result = simulate(scenario, strategy="p2c", seed=1)
>>> result.arrived == result.completed
True
"""

from __future__ import annotations

try:
    from loadwise._tables.contenders import STRATEGIES
    from loadwise.simulation.analysis.comparison import Comparison, Estimate, Summary, compare
    from loadwise.simulation.errors import ConservationError, ScenarioError
    from loadwise.simulation.runs.engine import simulate
    from loadwise.simulation.runs.result import Counts, Latency, Result
    from loadwise.simulation.scenario import Scenario
    from loadwise.simulation.scenario.file import load_scenario
    from loadwise.simulation.scenario.gallery import scenario_names
    from loadwise.simulation.world.timeline import HealthChange, Mark, Timeline
except ModuleNotFoundError as error:
    if error.name not in {"msgspec", "numpy"}:
        raise
    raise ImportError(
        f"loadwise.simulation needs {error.name}: pip install 'loadwise[simulation]'"
    ) from error

__all__ = [
    "STRATEGIES",
    "Comparison",
    "ConservationError",
    "Counts",
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
