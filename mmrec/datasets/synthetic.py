"""Synthetic data in the MicroLens layout, drawn from a click model that is known exactly.

`python -m mmrec.datasets.synthetic DEST` writes every file of the layout, JPEG covers included, and
reports the oracle: AUC and logloss of the true click probabilities. Users of train are none of
valid's or test's, as in MicroLens; some items are never shown by train.

N items, R rows, L history.
"""

import argparse
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmrec.cli import run
from mmrec.data.clicks import SPLITS
from mmrec.data.microlens import MICROLENS
from mmrec.datasets import covers
from mmrec.datasets.click_model import (
    KINDS,
    ClickModel,
    LatentItems,
    LatentUsers,
    by_kind,
    draw_distinct,
    draw_distinct_by_kind,
    draw_items,
    draw_users,
    echo,
    liked,
    logits,
    probability,
    probability_unaware,
)
from mmrec.errors import InputError, positive
from mmrec.errors import probability as check_share
from mmrec.io.files import write_json
from mmrec.io.identity import as_json, require_same
from mmrec.io.parquet import Ints, as_lists, write_parquet
from mmrec.io.pictures import picture_name
from mmrec.io.progress import Progress
from mmrec.metrics.auc import auc
from mmrec.metrics.calibration import logloss
from mmrec.schema import FILE, Categorical, Schema

DONE = "synthetic.json"
CONTENTS = ("covers", "features")
CLICKS_FOLDER = "MicroLens_1M_x1"
_TAGS = 40
_USERS = 500  # whose table of weights is held at once, one an item
_MANY_USERS = 20_000  # the same, one a kind
_MANY_ITEMS = 10_000  # from here on items are drawn kind by kind: the tables would take hours


@dataclass(frozen=True)
class SyntheticConfig:
    """Sizes and the click model of a synthetic data set; the same config, the same bytes.

    Attributes:
        num_items: items, the padding not counted; ids are 1..num_items.
        unseen_share: share of items that train never shows, as target or in a history.
        rows: rows of train, valid and test.
        rows_per_user: rows of a user, all with the same history.
        history_length: L, the width of `item_seq`.
        missing_images, truncated_images: shares of items without a cover, or with half of one.
        content: "covers" writes pictures and titles that tell the kinds; "features" writes
            `features.parquet` in the pictures' place, ready-made vectors that tell them: image_emb
            (64) of the cover's kind and text_emb (48) of the words' kind, with noise.
        overlap: how strongly a ready feature also tells the kind of the other modality, against
            that of its own: 0 not at all, 1 as strongly.
        model: the weights of the click model; with a `liked_weight` the logs have a history
            feature `history_liked`, 1 where the user liked the item of the history, else 0.
        seed: of everything.
    """

    num_items: int = 800
    unseen_share: float = 0.1
    rows: tuple[int, int, int] = (48_000, 6_000, 6_000)
    rows_per_user: int = 5
    history_length: int = 20
    missing_images: float = 0.03
    truncated_images: float = 0.02
    content: str = "covers"
    overlap: float = 0.0
    model: ClickModel = field(default_factory=ClickModel)
    seed: int = 0

    def __post_init__(self) -> None:
        positive(num_items=self.num_items, history_length=self.history_length)
        positive(rows_per_user=self.rows_per_user)
        check_share(unseen_share=self.unseen_share, missing_images=self.missing_images)
        check_share(truncated_images=self.truncated_images)
        if self.content not in CONTENTS:
            raise InputError(f"content must be one of {CONTENTS}, got {self.content!r}")
        shown = self.num_items - round(self.unseen_share * self.num_items)
        if shown < 2 * self.history_length:
            raise InputError(
                f"train must show at least twice history_length = {self.history_length} items, "
                f"got {shown} of num_items = {self.num_items}"
            )
        for rows in self.rows:
            positive(rows=rows)


def make_synthetic(
    root: str | Path, config: SyntheticConfig | None = None
) -> dict[str, dict[str, float]]:
    """Write a data set under `root` and return the oracle, {split: {auc, logloss}}.

    A data set of the same config that is already there is left as it is. Besides the files of the
    layout: `test_labels.parquet` (ID, label), `oracle.parquet` (split, row, probability) and
    `synthetic.json` (config, and at the end the oracle). Where clicks depend on whether earlier
    items were liked, `unaware` and `auc_unaware` are the truth for who does not know that.
    """
    config = config or SyntheticConfig()
    root = Path(root)
    if (root / DONE).exists():
        before = json.loads((root / DONE).read_text())
        require_same(before["config"], asdict(config), where=root, remedy="name another place")
        if before["oracle"] is not None:
            return {**before["oracle"]}
    elif root.exists() and any(root.iterdir()):
        raise InputError(f"synthetic data need a place of their own, {root} holds other files")
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / DONE, {"config": as_json(asdict(config)), "oracle": None})
    clicks = root / CLICKS_FOLDER
    clicks.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(config.seed)
    items = draw_items(config.num_items, rng)
    splits = _draw_splits(config, items, rng)
    _write_items(root, config, items, splits, rng)
    for name, split in splits.items():
        row, label = {"ID": np.arange(len(split.user))}, {"label": split.label}
        columns = {"user_id": split.user, "item_seq": as_lists(split.history.astype(np.int64))}
        if config.model.liked_weight:
            columns["history_liked"] = as_lists(split.liked.astype(np.int64))
        columns |= {"item_id": split.target, **split.levels}
        columns = columns | label if name != "test" else row | columns
        write_parquet(clicks / f"{name}.parquet", pa.table(columns))
        if name == "test":
            write_parquet(root / "test_labels.parquet", pa.table(row | label))
    _write_oracle(root / "oracle.parquet", config, splits)
    write_json(root / FILE, schema(config).to_dict())
    oracle = {name: _oracle(config, split) for name, split in splits.items()}
    write_json(root / DONE, {"config": as_json(asdict(config)), "oracle": oracle})
    return oracle


def schema(config: SyntheticConfig) -> Schema:
    """MicroLens's, and where clicks depend on it whether the items of the history were liked."""
    if not config.model.liked_weight:
        return MICROLENS
    feature = Categorical("history_liked", limit=2)
    return replace(MICROLENS, clicks=replace(MICROLENS.clicks, history_categorical=(feature,)))


@dataclass(frozen=True)
class _Split:
    """R rows: user, target, label (R,), history and liked (R, L), levels, true probability (R,).

    `unaware` (R,) is the true probability for who does not know `liked`.
    """

    user: Ints
    history: NDArray[np.int32]
    liked: NDArray[np.int8]
    target: Ints
    levels: dict[str, Ints]
    label: Ints
    probability: NDArray[np.float64]
    unaware: NDArray[np.float64]


def _draw_splits(
    config: SyntheticConfig, items: LatentItems, rng: np.random.Generator
) -> dict[str, _Split]:
    unseen = rng.permutation(config.num_items)[: round(config.unseen_share * config.num_items)]
    shown = np.setdiff1d(np.arange(config.num_items), unseen)
    # Likes tell something of an item's quality; views are its popularity.
    popular = items.quality + rng.normal(0.0, 1.0, config.num_items)
    levels = {"likes_level": _deciles(popular), "views_level": _deciles(items.popularity)}
    splits, first_user = {}, 1
    for name, rows in zip(SPLITS, config.rows, strict=True):
        users = draw_users(-(-rows // config.rows_per_user), rng)
        histories = _draw_histories(config, items, users, shown, rng)
        user = rng.permutation(np.arange(rows) % len(histories))
        pool = shown if name == "train" else np.arange(config.num_items)
        target = _draw_targets(pool, histories[user], rng)
        logit = logits(config.model, items, users, user, target)
        heard = echo(items, users, histories, user, target)
        term = config.model.liked_weight * heard.astype(np.float64)
        true = probability(logit + term)
        splits[name] = _Split(
            user=user + first_user,
            history=histories[user],
            liked=liked(items, users, histories)[user],
            target=target + 1,
            levels={level: values[target] for level, values in levels.items()},
            label=(rng.random(rows) < true).astype(np.int64),
            probability=true,
            unaware=probability_unaware(logit, term),
        )
        first_user += len(histories)
    return splits


def _draw_histories(
    config: SyntheticConfig,
    items: LatentItems,
    users: LatentUsers,
    shown: Ints,
    rng: np.random.Generator,
) -> Ints:
    """(U, L) item ids, left-padded: clicked items, likelier the higher their true logit."""
    width, count = config.history_length, len(users.cover_taste)
    drawn = np.empty((count, width), dtype=np.int32)
    many = len(shown) >= _MANY_ITEMS
    step = _MANY_USERS if many else _USERS
    with Progress(total=count, desc="histories", unit="user", shown=None) as progress:
        for start in range(0, count, step):
            user = np.arange(start, min(start + step, count))[:, None]
            if many:
                tables = by_kind(config.model, items, users, user, shown)
                place = draw_distinct_by_kind(*tables, width, rng)
            else:
                weights = np.exp(logits(config.model, items, users, user, shown[None, :]))
                place = draw_distinct(weights, width, rng)
            drawn[user[:, 0]] = shown[place] + 1
            progress.update(len(user))
    lengths = np.clip(rng.geometric(1 / 8, count) + 3, 1, width)
    return np.where(np.arange(width) >= width - lengths[:, None], drawn, 0)


def _draw_targets(pool: Ints, histories: Ints, rng: np.random.Generator) -> Ints:
    """(R,) places in the item table, drawn from the pool until none is in its row's history."""
    target = rng.choice(pool, len(histories))
    while (again := (histories == target[:, None] + 1).any(axis=1)).any():
        target[again] = rng.choice(pool, int(again.sum()))
    return target


def _deciles(values: NDArray[np.float64]) -> Ints:
    """Levels 1..10 of equal size, in the order of the values."""
    return values.argsort().argsort() * 10 // len(values) + 1


def _write_items(
    root: Path,
    config: SyntheticConfig,
    items: LatentItems,
    splits: dict[str, _Split],
    rng: np.random.Generator,
) -> None:
    count = config.num_items
    ids = np.arange(1, count + 1)
    titles = [covers.draw_title(int(kind), rng) for kind in items.words]
    tags = [sorted(rng.choice(np.arange(1, _TAGS), int(rng.integers(1, 5)), replace=False).tolist())
            for _ in range(count)]  # fmt: skip
    padded = np.array([[0] * 5, *([0] * (5 - len(own)) + own for own in tags)])
    kinds = np.concatenate([np.eye(KINDS)[items.cover], np.eye(KINDS)[items.words]], axis=1)
    vectors = {width: _noisy(kinds, width, rng) for width in (128, 768, 1024)}
    feature = {
        "item_id": ids,
        "item_title": pa.array(titles),
        "item_tags": pa.array(tags),
        "likes_level": np.ones(count, np.int64),
        "views_level": _deciles(items.popularity),
        "txt_emb_BERT": as_lists(vectors[768]),
        "img_emb_CLIPRN50": as_lists(vectors[1024]),
    }
    write_parquet(root / "item_feature.parquet", pa.table(feature))
    emb = {f"item_emb_d128_v{v}": as_lists(_noisy(kinds, 128, rng)) for v in (1, 2)}
    write_parquet(root / "item_emb.parquet", pa.table({"item_id": ids, **emb}))
    with_padding = np.concatenate([np.zeros((1, 128)), vectors[128].astype(np.float64)])
    info = {"item_id": np.arange(count + 1), "item_tags": as_lists(padded)}
    info["item_emb_d128"] = as_lists(with_padding)
    write_parquet(root / CLICKS_FOLDER / "item_info.parquet", pa.table(info))
    user, first = np.unique(np.concatenate([s.user for s in splits.values()]), return_index=True)
    history = as_lists(np.concatenate([s.history for s in splits.values()])[first].astype(np.int64))
    write_parquet(root / "item_seq.parquet", pa.table({"user_id": user, "item_seq": history}))
    if config.content == "features":
        _write_features(root / "features.parquet", ids, items, config)
    else:
        _write_covers(root / "item_images" / "item_images", ids, items.cover, config, rng)


def _write_features(path: Path, ids: Ints, items: LatentItems, config: SyntheticConfig) -> None:
    """Vectors as two frozen encoders would give them: each tells the kind of its own modality."""
    rng = np.random.default_rng([config.seed, 2])
    cover, words = np.eye(KINDS)[items.cover], np.eye(KINDS)[items.words]
    image = _noisy(np.concatenate([cover, config.overlap * words], axis=1), 64, rng)
    text = _noisy(np.concatenate([words, config.overlap * cover], axis=1), 48, rng)
    has_image = rng.random(len(ids)) >= config.missing_images
    image[~has_image] = 0
    columns = {"item_id": ids, "image_emb": as_lists(image), "text_emb": as_lists(text)}
    columns |= {"has_image": has_image, "has_text": np.ones(len(ids), dtype=bool)}
    write_parquet(path, pa.table(columns))


def _write_covers(
    folder: Path, ids: Ints, colours: Ints, config: SyntheticConfig, rng: np.random.Generator
) -> None:
    """`<id>.jpg` for most items; some are missing, some cut off half-way."""
    folder.mkdir(parents=True, exist_ok=True)
    fate = rng.random(len(ids))
    for item, colour, luck in zip(ids, colours, fate, strict=True):
        content = covers.draw_cover(int(colour), int(rng.integers(KINDS)), rng)
        if luck < config.missing_images:
            continue
        if luck < config.missing_images + config.truncated_images:
            content = content[: len(content) // 2]
        (folder / picture_name(item)).write_bytes(content)


def _noisy(kinds: NDArray[np.float64], width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(N, 2K) kinds -> (N, width): a random projection and as much noise again."""
    signal = kinds @ rng.standard_normal((kinds.shape[1], width))
    return (signal + rng.standard_normal(signal.shape)).astype(np.float32)


def _write_oracle(path: Path, config: SyntheticConfig, splits: dict[str, _Split]) -> None:
    columns = {
        "split": [name for name, split in splits.items() for _ in split.user],
        "row": np.concatenate([np.arange(len(split.user)) for split in splits.values()]),
        "probability": np.concatenate([split.probability for split in splits.values()]),
    }
    if config.model.liked_weight:
        columns["unaware"] = np.concatenate([split.unaware for split in splits.values()])
    write_parquet(path, pa.table(columns))


def _oracle(config: SyntheticConfig, split: _Split) -> dict[str, float]:
    found = {
        "auc": float(auc(split.label, split.probability)),
        "logloss": float(logloss(split.label, split.probability)),
    }
    if config.model.liked_weight:
        found["auc_unaware"] = float(auc(split.label, split.unaware))
    return found


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mmrec.datasets.synthetic",
        description="Write synthetic MicroLens-like data.",
    )
    parser.add_argument("dest", type=Path, help="directory to write")
    parser.add_argument("--items", type=int, default=800, help="number of items (800)")
    parser.add_argument("--train-rows", type=int, default=48_000, help="rows of train (48000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything (0)")
    parser.add_argument(
        "--content",
        default="covers",
        choices=CONTENTS,
        help="pictures and titles, or ready-made features (covers)",
    )
    weight = ClickModel.interaction_weight
    parser.add_argument(
        "--interaction",
        type=float,
        default=weight,
        help=f"weight of the image x text interaction in the click model ({weight})",
    )
    parser.add_argument(
        "--liked",
        type=float,
        default=0.0,
        metavar="WEIGHT",
        help="weight of whether the user liked earlier items of that kind of cover; histories then "
        "say what was liked (0)",
    )
    return parser.parse_args()


def main() -> None:
    """`python -m mmrec.datasets.synthetic DEST`"""
    args = _parse()
    rows = (args.train_rows, *[max(1, args.train_rows // 8)] * 2)
    config = SyntheticConfig(
        num_items=args.items,
        rows=(rows[0], rows[1], rows[2]),
        content=args.content,
        model=ClickModel(interaction_weight=args.interaction, liked_weight=args.liked),
        seed=args.seed,
    )
    oracle = make_synthetic(args.dest, config)
    for split, value in oracle.items():
        unaware = value.get("auc_unaware")
        less = "" if unaware is None else f"  not knowing what was liked {unaware:.4f}"
        print(f"{split:5}  oracle AUC {value['auc']:.4f}  logloss {value['logloss']:.4f}{less}")


if __name__ == "__main__":
    run(main)
