"""The reference of scenario files, made from the records: ``python -m tests.simulation.reference``.

It rewrites that part of ``docs/scenario-reference.md``; a test compares the two.
"""

from __future__ import annotations

from tests.tables.reference import DOCS, Reference

from loadwise.simulation.scenario.layout import SCENARIO

__all__ = ["GUIDE", "SCENARIO_REFERENCE"]

GUIDE = DOCS / "scenarios.md"

SECTIONS = (
    ("The scenario itself", ""),
    ("`[servers]`", "servers"),
    ("`[[servers.groups]]`", "servers.groups.0"),
    ("`[servers.llm]`", "servers.llm"),
    ("`[arrivals]`", "arrivals"),
    ("`[service]`", "service"),
    ("`[clients]`", "clients"),
    ("`[network]`", "network"),
    ("`[[network.pairs]]`", "network.pairs.0"),
    ("`[callers]`", "callers"),
    ("`[health]`", "health"),
    ("`[outliers]`", "outliers"),
    ("`[slow_start]`", "slow_start"),
    ("`[limits]`", "limits"),
    ("`[[quotas]]`", "quotas.0"),
    ("`[[faults]]`", "faults.0"),
)

SCENARIO_REFERENCE = Reference(DOCS / "scenario-reference.md", SCENARIO, SECTIONS)

if __name__ == "__main__":
    SCENARIO_REFERENCE.write()
