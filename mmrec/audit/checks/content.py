"""Content: ids of the item table, vectors, pictures, titles, and what content says of a label."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mmrec.audit.checks.probe import Probe, probe
from mmrec.audit.checks.statistics import Standard
from mmrec.audit.findings import Finding, found
from mmrec.audit.scan.images import Images
from mmrec.audit.scan.items import Content, Damage, ItemIds, Titles
from mmrec.audit.scan.split import Split
from mmrec.audit.scan.vectors import VectorFacts

PROBED = ("features", "item_info", "item_feature")  # the first table that has vectors


@dataclass(frozen=True)
class ContentFacts:
    """Facts of content; what is None is not there, or could not be measured."""

    ids: ItemIds | Damage | None
    damaged: dict[str, Damage]
    vectors: dict[str, VectorFacts]
    images: Images | None
    titles: Titles | None


@dataclass(frozen=True)
class Probed:
    """What content says of a label; None where there is none, or nothing to measure it on."""

    probe: Probe | None


def measure_content(ids: ItemIds | Damage | None, content: Content) -> ContentFacts:
    """What the scan found of items."""
    return ContentFacts(
        ids=ids,
        damaged=content.damaged,
        vectors={vectors.facts.name: vectors.facts for vectors in content.vectors},
        images=content.images,
        titles=content.titles,
    )


def measure_probe(
    content: Content, splits: Mapping[str, Split], label: str, standard: Standard
) -> Probed:
    """A linear probe of the items' vectors."""
    train, valid = splits["train"], splits.get("valid")
    if valid is None or not valid.by_label[label].counts.measurable:
        return Probed(None)
    if not train.by_label[label].counts.labelled:
        return Probed(None)
    for table in PROBED:
        vectors = [v for v in content.vectors if v.facts.name.startswith(f"{table}.")]
        if used := [v for v in vectors if v.facts.items]:
            return Probed(probe(train, valid, label, used, standard))
    return Probed(None)


def judge_content(content: ContentFacts, standard: Standard) -> Iterator[Finding]:
    """What content cannot be told from other content, and what is not there at all."""
    ids, images, titles = content.ids, content.images, content.titles
    if ids is None:
        yield Finding("serious", "no_item_info")
    elif isinstance(ids, Damage):
        yield Finding("serious", "damaged_table", ids)
    elif not ids.usable or ids.gaps + ids.repeats + ids.negative > 0:
        yield Finding("serious", "item_info_ids", ids)
    for damage in content.damaged.values():
        yield from found(damage, (damage != ids, "serious", "damaged_table"))
    for vectors in content.vectors.values():
        yield from _judge_vectors(vectors, standard)
    if images is not None:
        many = standard.share(images.broken, images.checked)
        repeated = standard.share(images.repeated, images.hashed)
        untried = not images.checked and images.missing < images.items
        yield from found(
            images,
            (images.missing > 0, "notice", "missing_images"),
            (images.broken > 0, "serious" if many else "warning", "broken_images"),
            (repeated, "warning", "duplicate_images"),
            (untried, "notice", "images_not_decoded"),
        )
    if titles is not None:
        yield from found(
            titles,
            (titles.empty > 0, "notice", "empty_titles"),
            (standard.share(titles.repeated, titles.items), "warning", "duplicate_titles"),
        )


def judge_probe(probed: Probed) -> Iterator[Finding]:
    """What content is worth, wherever it could be measured."""
    return found(probed.probe, (probed.probe is not None, "notice", "content_probe"))


def _judge_vectors(vectors: VectorFacts, standard: Standard) -> Iterator[Finding]:
    broken = vectors.present > vectors.items
    alike = vectors.largest > vectors.items / 2
    repeated = not alike and standard.share(vectors.repeated, vectors.items)
    yield from found(
        vectors,
        (not vectors.present, "warning", "no_vectors"),
        (broken, "serious", "broken_vectors"),
        (alike, "serious", "constant_vectors"),
        (repeated, "warning", "duplicate_vectors"),
        (standard.share(vectors.zero, vectors.items), "warning", "zero_vectors"),
        (vectors.constant > 0 and not alike, "notice", "constant_dimensions"),
    )
