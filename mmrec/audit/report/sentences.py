"""Findings in words: for each kind of finding what was found and what it means, and what to do.

`{e}` is the finding's evidence; what `_words` adds depends on it in more than its figures.
"""

import math

from mmrec.audit.checks.categories import Disagreement
from mmrec.audit.checks.future import KnownInTrain
from mmrec.audit.checks.leaks import Score
from mmrec.audit.checks.probe import Probe
from mmrec.audit.checks.shift import LARGE, POPULARITY, Separation
from mmrec.audit.findings import Finding, Name, Severity
from mmrec.audit.scan.columns import Columns
from mmrec.audit.scan.images import Images

_WRITE_ITEM_INFO = (
    "Write item_info.parquet again: one row an item, ids 1.. without gaps, 0 the padding."
)
_HOLD_TARGET = (
    "{e.holding:,} of {e.rows:,} histories of train hold the very item that the row asks about "
    "({e.of_positives:.1%} of positives, {e.of_negatives:.1%} of negatives)"
)
_ORDERED = (
    "{subject} has AUC {e.auc:.3f} against the label: rows are ordered by it, so batches read in "
    "order, or shuffled in a window, are all alike.",
    "Shuffle the rows of the file once, and keep row numbers out of the model.",
)
_APART = (
    "{rows} of {e.second} {have} than those of {e.first}: it tells the two apart "
    "with AUC {auc:.3f} (a {size} effect), so {meaning}.",
    "A split in time does this; otherwise find out how the splits were drawn. Judge a model on "
    "rows like those it will serve.",
)
_LEAVE_OUT = (
    "Leave {e.column} out, or take it from one source for every row; report an AUC with it only "
    "beside one without."
)

TEXTS: dict[Name, tuple[str, str]] = {
    # item tables
    "no_item_info": (
        "There is no item_info.parquet, so unknown ids cannot be told from known ones.",
        _WRITE_ITEM_INFO,
    ),
    "item_info_ids": (
        "item_info.parquet has {e.real:,} ids above 0, up to {e.largest}, leaves out {e.gaps:,} "
        "below that, repeats {e.repeats:,} and has {e.negative:,} below 0: rows do not line up "
        "with ids.",
        _WRITE_ITEM_INFO,
    ),
    "damaged_table": (
        "{e.table} is damaged: {e.error}.",
        "Fetch or write it again.",
    ),
    # shape
    "drawn_negatives": (
        "Rows of label 0 were not logged but drawn ({e.how}): AUC tells clicks from such rows, and "
        "probabilities are of a click among them.",
        "Compare models on the same draw; to rank what was shown, log what was shown.",
    ),
    "missing_column": (
        "{e.table} has no column {absent}.",
        "Add it, or leave out what needs it.",
    ),
    "column_type": (
        "In {e.table}, {refused}: the loaders refuse it, and what here rests on the column may be "
        "left out.",
        "Write the column again in the type named.",
    ),
    "missing_values": (
        "{e.table} has nulls or NaN: {missing}; readers refuse them, and a NaN that gets through "
        "makes every weight NaN.",
        "Drop these rows, or write the value that missing stands for (0 is padding).",
    ),
    "values_outside": (
        "{e.table} has values that the schema rules out: {outside}; the loaders refuse them.",
        "Correct these rows, or the limit in the schema.",
    ),
    "infinite_numbers": (
        "{e.table} has infinite numbers: {infinite}; the loaders refuse them, and one that gets "
        "through makes every weight NaN.",
        "Write null where a number is missing, and cut what overflows.",
    ),
    "uneven_history": (
        "{e.table} has history features that are not as long as their row's history: {uneven}; "
        "their values would stand beside other items.",
        "Write one value for each entry of the history, padding included.",
    ),
    "empty_split": ("{e.split} has no rows.", "Write it again."),
    "right_padded_history": (
        "{e.right_padded:,} of {e.rows:,} histories of {e.split} are padded on the right (first in "
        "row {e.first_right_padded}): the newest places, which a ranker reads first, hold padding, "
        "and a mask built for the left hides items.",
        "Move the zeros to the left.",
    ),
    "holes_in_history": (
        "{e.with_gaps:,} histories of {e.split} have zeros between items.",
        "Close the gaps; padding belongs on the left.",
    ),
    "no_history": (
        "Every history of {e.split} is empty, so sequence encoders learn nothing.",
        "Check how histories were made.",
    ),
    "unknown_items": (
        "{e.unknown_targets:,} targets and {e.unknown_histories:,} histories of {e.split} have ids "
        "that are not in the item table ({e.num_items} rows with the padding): an index error on "
        "the device, or another item's vector.",
        "Add these items to item_info, or drop the rows.",
    ),
    "padding_as_target": (
        "{e.padding_targets:,} rows of {e.split} ask about item 0, the padding.",
        "Number items from 1.",
    ),
    "duplicate_rows": (
        "{e.repeated:,} of {e.sampled:,} sampled rows of {e.split} repeat another row's user, item "
        "and history; {e.both_labels:,} of the repeated rows bear both labels.",
        "Drop repeats, unless a row stands for one showing and an item is shown many times.",
    ),
    "label_values": (
        "{e.odd_labels:,} labels of {e.split} are neither 0 nor 1.",
        "Make labels 0 or 1.",
    ),
    "one_label": (
        "{e.split} has {e.positives:,} positives and {e.negatives:,} negatives, so no AUC exists.",
        "Put both kinds of rows into it.",
    ),
    "constant_column": (
        "{constant} in every row of {e.table}: a model can learn nothing from it, and meets "
        "whatever other values there will be unprepared.",
        "Leave the column out, or find where its values were lost.",
    ),
    "repeated_keys": (
        "{e.repeated:,} of {e.rows:,} rows of {e.table} have the {e.column} of an earlier row: "
        "what is known by this key belongs to both.",
        "Give each row a key of its own.",
    ),
    "no_valid": (
        "There is no labelled valid.parquet, so nothing says how a model does on new rows.",
        "Hold rows back: by user if test has new users, by time if it has later rows.",
    ),
    # leaks
    "single_column": (
        "{subject}, {kind}, has AUC {e.auc:.3f} against the label in train by itself.",
        "Expect a model that has it to do at least as well; judge models by what they add.",
    ),
    "row_order": _ORDERED,
    "neighbouring_labels": _ORDERED,
    "target_in_history": (
        _HOLD_TARGET + "; a stranger's history holds it in {e.of_strangers:.1%} of rows. It does "
        "not tell the label.",
        "Fine where people come back to items; otherwise look at how histories were cut.",
    ),
    "target_ends_history": (
        _HOLD_TARGET + ", mostly as its newest entry: histories end with the row itself, which at "
        "serving time they cannot.",
        "Cut each history before its row.",
    ),
    "category_disagrees": (
        "In {e.split}, {e.column} differs from the item's {source} in {e.share:.1%} of rows, and "
        "that marks {which}: AUC {auc:.3f} from the disagreement alone, {e.adds.value:+.3f} on top "
        "of item means. So little is what a value of the moment, as against a final one, may do.",
        _LEAVE_OUT,
    ),
    "future_items": (
        "{e.rows:,} of {e.of:,} histories of {e.split} looked at hold an item that the same user "
        "met only after the row's {e.time}: the model is told what comes next.",
        "Build each history from what came before the row's {e.time}.",
    ),
    "future_in_train": (
        "{e.rows:,} of {e.of:,} targets of {e.split} looked at stand in a train history of the "
        "same user though not in their own{labels}: train has rows from after {e.split}, and tells "
        "its answers.",
        "Split by time within each user, or by user.",
    ),
    # shift
    "users_shared": (
        "{e.users_found:,} of {e.users:,} users of {e.split} are in train too: what is learnt of a "
        "user there counts here, so this AUC says nothing about new users.",
        "Right for a split in time within users; for new users, split by user.",
    ),
    "rows_in_train": (
        "{e.pairs_found:,} of {e.pairs:,} user-item pairs of {e.split} are in train too, "
        "{e.rows_found:,} of {e.rows:,} with the same history: they can be memorised.",
        "Keep a pair of user and item in one split only.",
    ),
    "unseen_items": (
        "{e.new:.1%} of rows of {e.split} ask about an item that train never asks about, "
        "{e.never_shown:.1%} about one it never shows: their id says nothing.",
        "Give content a way past the id (id_dropout), and report these rows apart.",
    ),
    "popularity_shift": _APART,
    "shift": _APART,
    "item_means_shift": (
        "The items' positive rates in train have AUC {e.half_on_other_half.value:.3f} on other "
        "rows of train but {e.half_on_valid.value:.3f} on valid: what an id learns does not carry "
        "over in full.",
        "Expect ids to overfit; weigh content more (id_dropout), and check how negatives were "
        "drawn in either split.",
    ),
    "label_rate_shift": (
        "Positives are {e.train_rate.value:.1%} of train and {e.valid_rate.value:.1%} of valid: "
        "probabilities learnt on one are wrong on the other (logloss), though AUC is not touched "
        "by the rate alone.",
        "Calibrate on rows drawn like those to be served, before probabilities are used.",
    ),
    "groups_of_one_label": (
        "All {e.groups:,} groups of {e.split} by {e.column} have one label each, so a ranking "
        "within them is neither right nor wrong.",
        "Give rows that were shown together one {e.column}, or leave the role out.",
    ),
    # content
    "no_vectors": ("{e.name} holds no vector.", "Embed the items first."),
    "broken_vectors": (
        "{e.broken:,} of {e.present:,} vectors of {e.name} hold a NaN, an infinity or a null and "
        "{e.odd_width:,} have another width: one NaN in a batch makes every weight NaN.",
        "Embed these items again, or mark them absent (has_image, has_text).",
    ),
    "constant_vectors": (
        "{e.largest:,} of {e.items:,} items share one vector in {e.name}: content tells hardly "
        "any item from another.",
        "Embed again; look at how pictures and titles were found.",
    ),
    "duplicate_vectors": (
        "{e.repeated:,} of {e.items:,} items have a vector in {e.name} that another item has too "
        "({e.largest:,} share the commonest): content cannot tell them apart, and a filler is "
        "mistaken for content.",
        "If a default picture or text was embedded, mark these items absent instead.",
    ),
    "zero_vectors": (
        "{e.zero:,} of {e.items:,} vectors of {e.name} are all zero but not marked absent: a "
        "zero that means missing looks like content.",
        "Set has_image or has_text to False for them.",
    ),
    "constant_dimensions": (
        "{e.constant:,} of {e.width:,} dimensions of {e.name} never vary.",
        "Harmless, but they cost width; standardising must not divide by their zero.",
    ),
    "missing_images": (
        "{e.missing:,} of {e.items:,} items have no picture.",
        "Fine where has_image says so; a high share may mean a half-finished download.",
    ),
    "broken_images": (
        "{e.broken:,} of {e.checked:,} pictures tried do not decode ({why}; such as {examples}): "
        "their items lose their image.",
        "Fetch them again before embedding; what stays broken must be marked absent.",
    ),
    "duplicate_images": (
        "{e.repeated:,} of {e.hashed:,} picture files compared are, byte for byte, another item's.",
        "If it is a filler picture, delete it, so that its items count as without image.",
    ),
    "images_not_decoded": (
        "Pillow is not installed, so no picture was tried.",
        "pip install 'mmrec[prepare]'",
    ),
    "empty_titles": (
        "{e.empty:,} of {e.items:,} items have an empty title.",
        "Mark their text absent (has_text) instead of embedding an empty string.",
    ),
    "duplicate_titles": (
        "{e.repeated:,} of {e.items:,} items have another item's title, {e.commonest_items:,} of "
        "them “{e.commonest}”.",
        "Text cannot tell these items apart; treat a filler title as absent.",
    ),
    "content_probe": (
        "A linear probe of {columns} has AUC {e.content.value:.3f} on valid by itself, and {adds} "
        "item means there: {e.adds:+.4f}.",
        "This is a floor for content, linear and without the user; a fusion should beat it.",
    ),
}
# What a kind of finding says instead where it is of this severity.
VARIANTS: dict[tuple[Name, Severity], tuple[str, str]] = {
    ("single_column", "serious"): (
        "{subject} alone has AUC {e.auc:.3f} in train, where item or user means have "
        "{e.honest:.3f}: it all but is the label.",
        "Ask whether its value is known before the click. Find out how it came about; leave the "
        "column out of the model until then.",
    ),
    ("target_in_history", "serious"): (
        _HOLD_TARGET + ": AUC {e.auc:.3f} from this alone. Either the history was taken after the "
        "click, or negatives were drawn from items never met.",
        "Cut each history before its row's click; where people do come back to items, draw "
        "negatives from met items too.",
    ),
    ("category_disagrees", "serious"): (
        "In {e.split}, {e.column} differs from the item's {source} in {e.share:.1%} of rows, and "
        "that marks {which}: AUC {auc:.3f} from the disagreement alone, {e.adds.value:+.3f} on top "
        "of item means. A model that can compare the two reads the label.",
        _LEAVE_OUT,
    ),
    ("category_disagrees", "notice"): (
        "In {e.split}, {e.column} differs from the item's {source} in {e.share:.1%} of rows, and "
        "that marks {which}: AUC {auc:.3f} from the disagreement alone. It goes with the user or "
        "the moment rather than with the item, so people may just like what suits it.",
        "Fine where {e.column} is known before the click.",
    ),
    ("users_shared", "warning"): (
        "{e.users_found:,} of {e.users:,} users of {e.split} are in train too: what is learnt of a "
        "user there counts here, so this AUC says nothing about new users, and mixes known users "
        "with new ones.",
        "Right for a split in time within users; for new users, split by user. Report known and "
        "new users apart.",
    ),
    ("item_means_shift", "serious"): (
        "The items' positive rates in train have AUC {e.half_on_other_half.value:.3f} on other "
        "rows of train but {e.half_on_valid.value:.3f} on valid: what an id learns does not carry "
        "over, more than half of it is lost.",
        TEXTS["item_means_shift"][1],
    ),
}


def explain(finding: Finding) -> tuple[str, str]:
    """Sentence and advice: what was found and what it means, and what to do about it."""
    texts = VARIANTS.get((finding.name, finding.severity)) or TEXTS[finding.name]
    words = _words(finding.evidence)
    sentence, advice = (text.format(e=finding.evidence, **words) for text in texts)
    about = "" if finding.label is None else f"Label {finding.label}: "
    return about + sentence, advice


def subject(score: Score) -> str:
    """What a score is the AUC of."""
    return {
        "column": score.column,
        "id": f"{score.column} (id order)",
        "missing": f"{score.column} is missing",
        "row_number": "The row number in train",
        "row_id": f"The column {score.column} of {score.split}",
        "label_before": "The label of the row before in train, of another user and item,",
    }[score.subject]


def _words(evidence: object) -> dict[str, str | float]:
    """Words that differ from finding to finding of one kind."""
    match evidence:
        case Columns():
            return _of_columns(evidence)
        case Score():
            kind = "a function of the item" if evidence.of_item else "not a function of the item"
            return {"subject": subject(evidence), "kind": kind}
        case Disagreement(auc=auc):
            which = "negatives" if auc.value < 0.5 else "positives"
            source = {"usual": "usual value in train"}.get(evidence.source, evidence.source)
            return {"which": which, "source": source, "auc": max(auc.value, 1 - auc.value)}
        case KnownInTrain():
            shares = {"positives": evidence.of_positives, "negatives": evidence.of_negatives}
            told = [f"{share:.1%} of {name}" for name, share in shares.items() if share is not None]
            return {"labels": f" ({' and '.join(told)})" if told else ""}
        case Separation(auc=auc, first=first, second=second, column=column):
            less, lack = ("lower", "less") if auc.value < 0.5 else ("higher", "more")
            lack = f"{lack} often lack {column}"
            meaning = f"a model learns on other rows than {second} asks about"
            if first == "valid":
                meaning = f"a score from {first} need not hold for {second}"
            return {
                "rows": "Targets" if column == POPULARITY else "Rows",
                "have": lack if evidence.missing else f"have a {less} {column}",
                "size": "large" if evidence.surely > LARGE else "more than small",
                "auc": max(auc.value, 1 - auc.value),
                "meaning": meaning,
            }
        case Images(why=why):
            kinds = [f"{count} {kind}" for kind, count in why.items()]
            return {"why": ", ".join(kinds), "examples": ", ".join(evidence.examples)}
        case Probe(columns=columns, adds=adds):
            more = evidence.real and adds.value > 0
            words = "adds to" if more else "adds nothing measurable to"
            return {"columns": " and ".join(columns), "adds": words}
        case _:
            return {}


def _of_columns(columns: Columns) -> dict[str, str | float]:
    """Each list of columns as words."""
    kinds = [f"{name} is {got}, not {wanted}" for name, (got, wanted) in columns.refused.items()]
    same = [
        f"{name} holds nothing" if math.isnan(value) else f"{name} is {value:g}"
        for name, value in columns.constant.items()
    ]
    lists = {"absent": columns.absent, "refused": kinds, "constant": same}
    for what in ("missing", "outside", "infinite", "uneven"):
        rows = getattr(columns, what)
        lists[what] = [f"{name} in {count:,} rows" for name, count in rows.items()]
    return {name: ", ".join(words) for name, words in lists.items()}
