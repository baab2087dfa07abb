"""What the tests of planted defects ask of a report."""

from __future__ import annotations

from typing import Any

from mmrec.audit import Report


def only_serious(report: Report, name: str) -> Any:
    """The one kind of serious finding, so that a defect is named and not just noticed."""
    assert {finding.name for finding in report.serious} == {name}
    return report.named(name)[0]
