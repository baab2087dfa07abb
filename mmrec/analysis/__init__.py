"""What a trained model rests on, its figures and pictures.

`diagnose.py` (what carries the AUC), `summary.py` (figures beside baselines), `plots.py`.
"""

from mmrec.analysis.diagnose import (
    Contribution,
    Diagnosis,
    HasContent,
    HasItemTables,
    HasKnownItems,
    diagnose,
)
from mmrec.analysis.plots import plot_calibration, plot_run, plot_training
from mmrec.analysis.summary import summarise

__all__ = [
    "Contribution",
    "Diagnosis",
    "HasContent",
    "HasItemTables",
    "HasKnownItems",
    "diagnose",
    "plot_calibration",
    "plot_run",
    "plot_training",
    "summarise",
]
