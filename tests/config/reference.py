"""The reference of fleet files, made from the records: ``python -m tests.config.reference``.

It rewrites that part of ``docs/fleet-reference.md``; a test compares the two.
"""

from __future__ import annotations

from tests.tables.reference import DOCS, Reference

from loadwise.config.layout import FLEET

__all__ = ["FLEET_REFERENCE"]

SECTIONS = (
    ("The fleet itself", ""),
    ("`[[nodes]]`", "nodes.0"),
    ("`[source]`", "source"),
    ("`[clients]`", "clients"),
    ("`[callers]`", "callers"),
    ("`[health]`", "health"),
    ("`[outliers]`", "outliers"),
    ("`[slow_start]`", "slow_start"),
    ("`[limits]`", "limits"),
    ("`[split]`", "split"),
    ("`[[quotas]]`", "quotas.0"),
)

FLEET_REFERENCE = Reference(DOCS / "fleet-reference.md", FLEET, SECTIONS)

if __name__ == "__main__":
    FLEET_REFERENCE.write()
