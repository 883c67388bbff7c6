"""Load measures: what a strategy consults, kept apart from how it chooses."""

from loadwise.load._measure import Cell, Forgetful, LoadMeasure
from loadwise.load.in_flight import InFlight
from loadwise.load.peak_ewma import PeakEwma

__all__ = ["Cell", "Forgetful", "InFlight", "LoadMeasure", "PeakEwma"]
