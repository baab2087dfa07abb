"""Everything that an audit measures, and the findings that follow from it.

Comes in: what `scan/` read. Goes out: `Facts` and findings, for `report/`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from mmrec.audit.checks.categories import Categories, judge_categories, measure_categories
from mmrec.audit.checks.content import (
    ContentFacts,
    Probed,
    judge_content,
    judge_probe,
    measure_content,
    measure_probe,
)
from mmrec.audit.checks.future import FutureItems, judge_future, measure_future
from mmrec.audit.checks.groups import Grouped, judge_groups, measure_groups
from mmrec.audit.checks.leaks import Leaks, judge_leaks, measure_leaks
from mmrec.audit.checks.shape import Shape, judge_shape, measure_shape
from mmrec.audit.checks.shift import (
    Rates,
    Shift,
    judge_rates,
    judge_shift,
    measure_rates,
    measure_shift,
)
from mmrec.audit.checks.statistics import Standard
from mmrec.audit.findings import SEVERITIES, Finding
from mmrec.audit.scan.items import Content, Damage, ItemIds
from mmrec.audit.scan.split import Split

TESTS_A_COLUMN = 12  # by size, by value, missing; against item and its tables; between splits
TESTS_BESIDES = 40


@dataclass(frozen=True)
class TaskFacts:
    """Figures of one label by check, and the standard by which a difference is a finding."""

    leaks: Leaks
    categories: Categories
    rates: Rates
    groups: Grouped
    probe: Probed
    standard: Standard


@dataclass(frozen=True)
class Facts:
    """Figures by check, those of labels by label, and the standard of the others.

    That is the strictest of the labels'.
    """

    shape: Shape
    tasks: dict[str, TaskFacts]
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
    labels = splits["train"].roles.labels
    standards = {label: _standard(splits, label) for label in labels}
    strictest = min(standards.values(), key=lambda standard: standard.resolution)
    return Facts(
        shape=measure_shape(splits, content),
        tasks={label: _measure_task(splits, content, label, standards[label]) for label in labels},
        future=measure_future(splits, time),
        shift=measure_shift(splits, strictest),
        content=measure_content(ids, content),
        standard=strictest,
    )


def _standard(splits: Mapping[str, Split], label: str) -> Standard:
    train = splits["train"]
    valid = splits.get("valid", train).by_label[label].counts
    counts = valid if valid.labelled else train.by_label[label].counts
    columns = len({*train.types, *train.sample.others}) + 2
    return Standard.of(
        tests=(TESTS_BESIDES + TESTS_A_COLUMN * columns) * len(train.by_label),
        negatives=counts.negatives,
        positives=counts.positives,
    )


def _measure_task(
    splits: Mapping[str, Split], content: Content, label: str, standard: Standard
) -> TaskFacts:
    return TaskFacts(
        leaks=measure_leaks(splits, label),
        categories=measure_categories(splits, label, content.given, standard),
        rates=measure_rates(splits, label),
        groups=measure_groups(splits, label),
        probe=measure_probe(content, splits, label, standard),
        standard=standard,
    )


def judge_all(facts: Facts) -> list[Finding]:
    """All findings, the most severe first."""
    standard = facts.standard
    findings = [
        *judge_shape(facts.shape, standard),
        *_of_tasks(facts, lambda task: judge_leaks(task.leaks, task.standard)),
        *_of_tasks(facts, lambda task: judge_categories(task.categories, task.standard)),
        *judge_future(facts.future, standard),
        *judge_shift(facts.shift, standard),
        *_of_tasks(facts, lambda task: judge_rates(task.rates, task.standard)),
        *_of_tasks(facts, lambda task: judge_groups(task.groups)),
        *judge_content(facts.content, standard),
        *_of_tasks(facts, lambda task: judge_probe(task.probe)),
    ]
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _of_tasks(facts: Facts, judge: Callable[[TaskFacts], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of every label, which they name where there are several."""
    for label, task in facts.tasks.items():
        name = label if len(facts.tasks) > 1 else None
        yield from (replace(finding, label=name) for finding in judge(task))
