"""Writes docs/proof.md: ``python -m tests.proof``."""

from __future__ import annotations

from tests.proof.page import PAGE, page

PAGE.write_text(page(), encoding="utf-8")
