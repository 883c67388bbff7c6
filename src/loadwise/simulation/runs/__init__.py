"""Runs of scenarios: one, or many at a time, and the result of each."""
