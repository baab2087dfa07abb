"""What is a data set like, and can an AUC measured on it be believed?

Read `run.py` first, then in the order of the data: `scan/` (reads the files, each once), `checks/`
and `facts.py` (what is measured, and what is a finding), `findings.py`, `report/` (sentences,
tables, plots).

>>> from mmrec.audit import audit
>>> audit("DATA").serious  # doctest: +SKIP
"""

from mmrec.audit.facts import Facts
from mmrec.audit.findings import MEANING, SEVERITIES, Finding
from mmrec.audit.report.report import Report
from mmrec.audit.report.sentences import explain
from mmrec.audit.run import audit

__all__ = ["MEANING", "SEVERITIES", "Facts", "Finding", "Report", "audit", "explain"]
