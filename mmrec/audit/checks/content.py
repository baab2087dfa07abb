"""Checks of content: item table, vectors, pictures, titles, and what content says of the label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmrec.audit.checks import probe
from mmrec.audit.checks.context import Context
from mmrec.audit.report import Finding
from mmrec.audit.scan.images import DECODED, Images, check_images
from mmrec.audit.scan.texts import TITLE, Titles, check_titles
from mmrec.audit.scan.vectors import Vectors, read_vectors, vector_columns
from mmrec.data.items import feature_files
from mmrec.errors import InputError

Progress = Callable[[str], object]


def check_content(
    context: Context,
    *,
    most_images: int = DECODED,
    progress: Progress = lambda what: None,
) -> tuple[list[Finding], dict[str, Any]]:
    """All checks of content; pictures are listed all and decoded in part."""
    findings: list[Finding] = []
    facts: dict[str, Any] = {}
    found: dict[str, Vectors] = {}
    for table, path in context.layout.tables.items():
        findings += _read_vectors(context, table, path, found, progress)
    for vectors in found.values():
        findings += _vectors(context, vectors)
        facts.setdefault("vectors", {})[vectors.source] = _vector_facts(vectors)
    if context.layout.images is not None:
        progress("pictures")
        images = check_images(context.layout.images, context.num_items, most=most_images)
        findings += _images(context, images)
        facts["images"] = {k: v for k, v in vars(images).items() if k not in ("why", "examples")}
        facts["images"] |= {f"broken by {why}": count for why, count in images.why.items()}
    titles = _read_titles(context)
    if titles is not None:
        findings += _titles(context, titles)
        facts["titles"] = vars(titles)
    findings += _probe(context, found, facts)
    return findings, facts


def _read_vectors(
    context: Context, table: str, path: Path, found: dict[str, Vectors], progress: Progress
) -> list[Finding]:
    try:
        for column, mask in vector_columns(feature_files(path)[0]):
            source = f"{table}.{column}"
            progress(source)
            found[source] = read_vectors(source, path, column, mask, num_items=context.num_items)
    except (pa.ArrowException, OSError, InputError) as error:
        sentence = f"{path.name} cannot be read: {error}."
        advice = "Fetch or write it again."
        return [Finding("serious", "damaged_table", sentence, advice, {"table": table})]
    return []


def _read_titles(context: Context) -> Titles | None:
    path = context.layout.tables.get("item_feature")
    try:
        return None if path is None else check_titles(path)
    except (pa.ArrowException, OSError):
        return None  # told of where its vectors were read


def _vector_facts(vectors: Vectors) -> dict[str, Any]:
    names = ("width", "items", "absent", "broken", "zero", "repeated", "largest", "constant")
    facts: dict[str, Any] = {name: getattr(vectors, name) for name in names}
    if len(vectors.norms):
        quantiles = np.quantile(vectors.norms, [0.05, 0.5, 0.95])
        facts |= {f"norm q{q}": float(v) for q, v in zip((5, 50, 95), quantiles, strict=True)}
        counts, edges = np.histogram(vectors.norms, bins=30)
        facts |= {"norm counts": counts.tolist(), "norm edges": edges.tolist()}
    return facts


def _vectors(context: Context, vectors: Vectors) -> list[Finding]:
    findings = []
    name, items = vectors.source, vectors.items + vectors.broken + vectors.odd_width
    evidence = _vector_facts(vectors)
    evidence = {k: v for k, v in evidence.items() if not isinstance(v, list)} | {"column": name}

    def say(severity: Any, kind: str, sentence: str, advice: str) -> None:
        findings.append(Finding(severity, kind, sentence, advice, evidence))

    if not items:
        say("warning", "no_vectors", f"{name} holds no vector.", "Embed the items first.")
        return findings
    if vectors.broken or vectors.odd_width:
        say(
            "serious",
            "broken_vectors",
            f"{vectors.broken:,} of {items:,} vectors of {name} hold a NaN, an infinity or a null "
            f"and {vectors.odd_width:,} have another width: one NaN in a batch makes every weight "
            "NaN.",
            "Embed these items again, or mark them absent (has_image, has_text).",
        )
    if vectors.items and vectors.largest > vectors.items / 2:
        say(
            "serious",
            "constant_vectors",
            f"{vectors.largest:,} of {vectors.items:,} items share one vector in {name}: content "
            "tells hardly any item from another.",
            "Embed again; look at how pictures and titles were found.",
        )
    elif context.standard.share(vectors.repeated, vectors.items):
        say(
            "warning",
            "duplicate_vectors",
            f"{vectors.repeated:,} of {vectors.items:,} items have a vector in {name} that another "
            f"item has too ({vectors.largest:,} share the commonest): content cannot tell them "
            "apart, and a filler is mistaken for content.",
            "If a default picture or text was embedded, mark these items absent instead.",
        )
    if context.standard.share(vectors.zero, vectors.items):
        say(
            "warning",
            "zero_vectors",
            f"{vectors.zero:,} of {vectors.items:,} vectors of {name} are all zero but not marked "
            "absent: a zero that means missing looks like content.",
            "Set has_image or has_text to False for them.",
        )
    if vectors.constant > 0 and vectors.largest <= vectors.items / 2:
        say(
            "notice",
            "constant_dimensions",
            f"{vectors.constant:,} of {vectors.width:,} dimensions of {name} never vary.",
            "Harmless, but they cost width; standardising must not divide by their zero.",
        )
    return findings


def _images(context: Context, images: Images) -> list[Finding]:
    findings = []
    evidence = {k: v for k, v in vars(images).items() if k != "why"} | {"why": dict(images.why)}
    if images.missing:
        findings.append(
            Finding(
                "notice",
                "missing_images",
                f"{images.missing:,} of {images.items:,} items have no picture.",
                "Fine where has_image says so; a high share may mean a half-finished download.",
                evidence,
            )
        )
    if images.broken:
        why = ", ".join(f"{count} {kind}" for kind, count in images.why.most_common())
        serious = context.standard.share(images.broken, images.checked)
        findings.append(
            Finding(
                "serious" if serious else "warning",
                "broken_images",
                f"{images.broken:,} of {images.checked:,} pictures tried do not decode ({why}; "
                f"such as {', '.join(images.examples)}): their items lose their image.",
                "Fetch them again before embedding; what stays broken must be marked absent.",
                evidence,
            )
        )
    if context.standard.share(images.repeated, max(1, images.hashed)):
        findings.append(
            Finding(
                "warning",
                "duplicate_images",
                f"{images.repeated:,} of {images.hashed:,} picture files compared are, byte "
                "for byte, another item's.",
                "If it is a filler picture, delete it, so that its items count as without image.",
                evidence,
            )
        )
    if not images.checked and images.missing < images.items:
        findings.append(
            Finding(
                "notice",
                "images_not_decoded",
                "Pillow is not installed, so no picture was tried.",
                "pip install 'mmrec[prepare]'",
            )
        )
    return findings


def _titles(context: Context, titles: Titles) -> list[Finding]:
    findings = []
    evidence = vars(titles)
    if titles.empty:
        findings.append(
            Finding(
                "notice",
                "empty_titles",
                f"{titles.empty:,} of {titles.items:,} items have an empty {TITLE}.",
                "Mark their text absent (has_text) instead of embedding an empty string.",
                evidence,
            )
        )
    if context.standard.share(titles.repeated, titles.items):
        findings.append(
            Finding(
                "warning",
                "duplicate_titles",
                f"{titles.repeated:,} of {titles.items:,} items have another item's {TITLE}, "
                f"{titles.commonest_items:,} of them “{titles.commonest}”.",
                "Text cannot tell these items apart; treat a filler title as absent.",
                evidence,
            )
        )
    return findings


def _probe(context: Context, found: dict[str, Vectors], facts: dict[str, Any]) -> list[Finding]:
    valid = context.valid
    for group in (("features.",), ("item_info.",), ("item_feature.",)):
        used = [v for name, v in found.items() if name.startswith(group) and v.items]
        if used:
            break
    if valid is None or not used or min(valid.labels[1:]) == 0 or not context.train.labelled:
        return []
    results = probe.probe(context, valid, used)
    facts["AUC of content on valid"] = probe.facts(results)
    adds, alone = results["content adds"], results["content alone"]
    low, high = adds.interval()
    real = context.standard.real(adds, 0.0)
    words = "adds to" if real and adds.value > 0 else "adds nothing measurable to"
    return [
        Finding(
            "notice",
            "content_probe",
            f"A linear probe of {' and '.join(v.source for v in used)} has AUC {alone.value:.3f} "
            f"on valid by itself, and {words} item means there: {adds.value:+.4f} "
            f"[{low:+.4f}, {high:+.4f}].",
            "This is a floor for content, linear and without the user; a fusion should beat it.",
            probe.facts(results),
        )
    ]
