"""Prints the table of bad days and writes it into docs/health.md: ``python -m tests.bad_days``."""

from __future__ import annotations

import logging
import sys

from tests.bad_days.table import PAGE, lines, put_into

# Each of these days is one long panic, and says so.
logging.getLogger("loadwise").setLevel(logging.ERROR)
table = ""
for line in lines():
    sys.stdout.write(line)
    sys.stdout.flush()
    table += line
PAGE.write_text(put_into(PAGE.read_text(encoding="utf-8"), table), encoding="utf-8")
