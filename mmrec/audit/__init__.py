"""What is a data set like, and can an AUC measured on it be believed?

>>> from mmrec.audit import audit
>>> audit("DATA").serious  # doctest: +SKIP
"""

from mmrec.audit.report import MEANING, SEVERITIES, Finding, Report
from mmrec.audit.run import audit

__all__ = ["MEANING", "SEVERITIES", "Finding", "Report", "audit"]
