"""What a trained model rests on, its figures and pictures.

`diagnose.py` (what carries the AUC), `spoilings.py` (how an input is spoiled), `summary.py`
(figures beside baselines), `plots.py`.
"""

from mmrec.analysis.diagnose import Contribution, Diagnosis, diagnose, diagnose_tasks
from mmrec.analysis.plots import plot_calibration, plot_run, plot_training
from mmrec.analysis.spoilings import (
    HasItemFeatures,
    HasItemTables,
    HasKnownItems,
    HasModalities,
)
from mmrec.analysis.summary import summarise

__all__ = [
    "Contribution",
    "Diagnosis",
    "HasItemFeatures",
    "HasItemTables",
    "HasKnownItems",
    "HasModalities",
    "diagnose",
    "diagnose_tasks",
    "plot_calibration",
    "plot_run",
    "plot_training",
    "summarise",
]
