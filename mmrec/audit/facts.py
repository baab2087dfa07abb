"""Everything that an audit measures, and the findings that follow from it.

Comes in: what `scan/` read. Goes out: `Facts` and findings, for `report/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mmrec.audit.checks.content import ContentFacts, judge_content, measure_content
from mmrec.audit.checks.future import FutureItems, judge_future, measure_future
from mmrec.audit.checks.leaks import Leaks, judge_leaks, measure_leaks
from mmrec.audit.checks.levels import Levels, judge_levels, measure_levels
from mmrec.audit.checks.shape import Shape, judge_shape, measure_shape
from mmrec.audit.checks.shift import Shift, judge_shift, measure_shift
from mmrec.audit.checks.statistics import Standard
from mmrec.audit.findings import SEVERITIES, Finding
from mmrec.audit.scan.items import Content, Damage, ItemIds
from mmrec.audit.scan.split import Split

TESTS_A_COLUMN = 12  # by size, by value, missing; against item and item_feature; between splits
TESTS_BESIDES = 40


@dataclass(frozen=True)
class Facts:
    """Figures by check, and the standard by which a difference is a finding."""

    shape: Shape
    leaks: Leaks
    levels: Levels
    future: FutureItems
    shift: Shift
    content: ContentFacts
    standard: Standard


def measure_all(
    splits: Mapping[str, Split],
    ids: ItemIds | Damage | None,
    content: Content,
    *,
    time: str | None,
) -> Facts:
    """All facts of a data set; `splits` has train, `time` is the column of times."""
    train = splits["train"]
    valid = splits.get("valid", train)
    counts = (valid if valid.counts.labelled else train).counts
    standard = Standard.of(
        tests=TESTS_BESIDES + TESTS_A_COLUMN * (len(train.types) + 2),
        negatives=counts.negatives,
        positives=counts.positives,
    )
    return Facts(
        shape=measure_shape(splits),
        leaks=measure_leaks(splits),
        levels=measure_levels(splits, content.levels),
        future=measure_future(splits, time),
        shift=measure_shift(splits, standard),
        content=measure_content(ids, content, splits, standard),
        standard=standard,
    )


def judge_all(facts: Facts) -> list[Finding]:
    """All findings, the most severe first."""
    findings = [
        *judge_shape(facts.shape, facts.standard),
        *judge_leaks(facts.leaks, facts.standard),
        *judge_levels(facts.levels, facts.standard),
        *judge_future(facts.future, facts.standard),
        *judge_shift(facts.shift, facts.standard),
        *judge_content(facts.content, facts.standard),
    ]
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
