"""Load measures: what a strategy consults, kept apart from how it chooses."""

from loadwise.load._gauge import MEASURED, UNMEASURED_PENALTY, EwmaCell, oldest_waiting
from loadwise.load._measure import Cell, FirstByteMeasure, Forgetful, LoadMeasure
from loadwise.load.in_flight import InFlight
from loadwise.load.peak_ewma import PeakEwma
from loadwise.load.pending_tokens import PendingTokens

__all__ = [
    "MEASURED",
    "UNMEASURED_PENALTY",
    "Cell",
    "EwmaCell",
    "FirstByteMeasure",
    "Forgetful",
    "InFlight",
    "LoadMeasure",
    "PeakEwma",
    "PendingTokens",
    "oldest_waiting",
]
