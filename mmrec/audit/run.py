"""The audit: find the files, read each once, measure, judge, report."""

from pathlib import Path

from mmrec.audit.facts import judge_all, measure_all
from mmrec.audit.report.report import Report
from mmrec.audit.scan.clicks import SAMPLE_ROWS, Plan, highest_item, scan_splits, time_column
from mmrec.audit.scan.files import locate
from mmrec.audit.scan.images import DECODED
from mmrec.audit.scan.items import ItemIds, read_content, read_ids
from mmrec.io.progress import Progress


def audit(
    root: str | Path,
    *,
    out: str | Path | None = None,
    time: str | None = None,
    images: int = DECODED,
    sample_rows: int = SAMPLE_ROWS,
    progress: bool | None = None,
) -> Report:
    """Audit a data set over the roles of its schema.json, or MicroLens's where there is none.

    Every row is read and counted once; what needs rows beside each other (AUCs, duplicates) is
    measured on whole users drawn at random, about `sample_rows` of them a split, and so is exact
    for smaller splits.

    Args:
        root: the directory DATA of `docs/concepts/data_format.md`.
        out: where to write audit.md, audit.json and audit.png; None writes nothing.
        time: the column that holds each row's time; None takes the schema's, or looks for one of
            `TIMES`.
        images: how many pictures to decode, drawn at random.
        sample_rows: rows to keep in memory, per split.
        progress: whether to show progress on stderr; None shows it on a terminal.

    Raises:
        InputError: no data there, or a click log or schema.json that cannot be read at all.
            Whatever a file that can be read holds is a finding, not an error.
    """
    files = locate(root)
    schema, roles = files.schema, files.schema.clicks
    rows = sum(source.num_rows for source in files.clicks.values())
    time = time_column(files.clicks["train"], roles, time)
    columns = {*dict(roles.roles()), time} if files.told else None
    ids = read_ids(files.tables.get("item_info"), schema.items.id)
    if isinstance(ids, ItemIds) and ids.usable:
        highest = ids.largest
    else:
        highest = highest_item(files.clicks.values(), roles)
    with Progress(total=rows, desc="rows", unit=" rows", unit_scale=True, shown=progress) as bar:
        plan = Plan(roles, highest + 1, columns, sample_rows)
        splits = scan_splits(files.clicks, plan, bar.update)
        content = read_content(
            files,
            num_items=highest + 1,
            columns=splits["train"].by_name,
            most_images=images,
            progress=bar.set_postfix_str,
        )
        bar.set_postfix_str("checks")
        facts = measure_all(splits, ids, content, time=time)
    report = Report(str(root), tuple(judge_all(facts)), facts)
    if out is not None:
        report.write(out)
    return report
