"""Integrations: one module and one extra each, all built on the same core."""
