"""Outlier ejection: nodes that do worse than the rest of their fleet are taken out for a while."""

from loadwise.outliers.detection import OutlierDetection
from loadwise.outliers.ejection import Ejection
from loadwise.outliers.ejector import Ejector
from loadwise.outliers.policy import EjectionOnly
from loadwise.outliers.rules import FailureShare, Sample, SlowShare, SuccessRate
from loadwise.outliers.sharing import SharedEjections, SharedResults
from loadwise.outliers.watched import EjectorMember

__all__ = [
    "Ejection",
    "EjectionOnly",
    "Ejector",
    "EjectorMember",
    "FailureShare",
    "OutlierDetection",
    "Sample",
    "SharedEjections",
    "SharedResults",
    "SlowShare",
    "SuccessRate",
]
