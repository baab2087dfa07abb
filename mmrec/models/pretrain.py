"""Train a fusion before the ranker: from what is consumed together, without a click label.

B rows, L history, D content width.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from shutil import copyfile
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmrec.errors import InputError, require
from mmrec.io.files import replacing, write_json
from mmrec.io.hashing import sha256_of
from mmrec.io.identity import require_same
from mmrec.models.build import build_items
from mmrec.models.catalogue import CHANGED, PREFIX, Catalogue
from mmrec.models.inputs import OriginalItems
from mmrec.models.recipe import Recipe
from mmrec.models.restore import Former, place
from mmrec.nn.item_encoder import ItemEncoder
from mmrec.nn.losses import info_nce

DONE, FUSION = "done.json", "fusion.safetensors"


@dataclass(frozen=True)
class PretrainResult:
    """Mean losses of each epoch, and how many pairs each showed."""

    together: tuple[float, ...]
    modalities: tuple[float, ...]
    pairs: tuple[int, ...]


def pretrain_fusion(
    items: ItemEncoder,
    histories: Iterable[Tensor],
    *,
    epochs: int = 1,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    temperature: float = 0.1,
    window: int = 3,
    modality_weight: float = 0.5,
    seed: int = 0,
) -> PretrainResult:
    """Train `items.fusion` in place, by

    loss = InfoNCE(f(i), f(j))
         + modality_weight · mean_{m<n} InfoNCE(f(i's m alone), f(i's n alone))

    over pairs (i, j) of items at most `window` apart in a history, one pair a row and epoch, the
    other pairs of the batch being the negatives (arXiv:1807.03748). Items that two pairs share are
    no negatives of one another. The second term is over pairs (m, n) of modalities and the items
    that have both, and makes the fused space hold where one is missing.
    Neither targets nor labels are looked at.

    Args:
        items: holds the features and the fusion; its ids and tags are not touched.
        histories: batches (B, L) int64, left-padded with 0; iterated once an epoch. Rows with
            fewer than two items are passed over. Give train rows only.

    Same arguments, same result, whatever random numbers were drawn before.

    Raises:
        InputError: no fusion, a fusion without parameters, or no row with two items.
    """
    if items.fusion is None:
        raise InputError("pretraining needs an item encoder with a fusion, this one has none")
    parameters = [p for p in items.fusion.parameters() if p.requires_grad]
    require(parameters, "pretraining needs a fusion with parameters, this one has none")
    device = items.tags.device
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    draw = torch.Generator().manual_seed(seed)
    epoch_means: list[tuple[float, float, int]] = []
    before = items.training
    items.train()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            for _ in range(epochs):
                totals = torch.zeros(3, dtype=torch.float64, device=device)
                for history in histories:
                    pairs = neighbours(history.cpu(), window=window, generator=draw).to(device)
                    if len(pairs) < 2:
                        continue
                    together, modalities = _losses(items, pairs, temperature)
                    optimizer.zero_grad(set_to_none=True)
                    loss = together + modality_weight * modalities
                    torch.autograd.backward(loss)
                    nn.utils.clip_grad_norm_(parameters, 1.0)
                    optimizer.step()
                    step = torch.stack([together, modalities, torch.ones_like(together)])
                    totals += step.detach().double() * len(pairs)
                first, second, shown = totals.tolist()
                require(shown, "pretraining needs histories of two items or more, got none")
                epoch_means.append((first / shown, second / shown, int(shown)))
    finally:
        items.train(before)
    return PretrainResult(*zip(*epoch_means, strict=True))


def pretrained_vectors(
    recipe: Recipe,
    items: OriginalItems,
    histories: Iterable[Tensor],
    folder: Path,
    *,
    start: Path | None = None,
) -> Tensor:
    """The first stage of two: (N, content_dim) fused vectors, of a fusion trained for itself.

    The fusion is left in `folder`; the same call again takes it from there.

    Args:
        start: the folder of another run's first stage, whose fusion is taken as it is, so that the
            ranker of that run can be trained on. None = a new one is trained.

    Raises:
        InputError: `folder` holds another fusion or one of other features, or see
            `pretrain_fusion`.
    """
    alone = recipe.changed(
        {"items.id_dim": 0, "items.tag_dim": 0, "items.categorical_dim": 0, "items.numeric": None}
    )
    seed = recipe.training.seed
    said = {"recipe": alone.binding(), "seed": seed}
    if start is not None and not (folder / DONE).exists():
        _take_over(start, folder)
    if (folder / DONE).exists():
        stored = json.loads((folder / DONE).read_text())
        stored = {name: stored[name] for name in said}
        require_same(stored, said, where=folder, remedy="use --restart or another folder")
        return fused_vectors(folder, items)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_items(alone, items)
    encoder.to(_device(recipe))
    epochs = recipe.items.pretrain_epochs
    result = pretrain_fusion(encoder, histories, epochs=epochs, seed=seed)
    print(
        "pretrained fusion: loss of items consumed together "
        f"{result.together[0]:.3f} -> {result.together[-1]:.3f}, of single modalities "
        f"{result.modalities[0]:.3f} -> {result.modalities[-1]:.3f}"
    )
    catalogue = Catalogue.of(items).named_buffers(prefix=PREFIX.removesuffix("."))
    state = {name: value.detach().cpu() for name, value in encoder.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / FUSION) as temporary:
        save_file(state | dict(catalogue), temporary)
    inputs = {"features": items.origin}
    write_json(folder / DONE, {**said, "inputs": inputs, "device": _device(recipe)})
    return encoder.content_table()


def _take_over(start: Path, folder: Path) -> None:
    """Copy a first stage, what commits it last."""
    require((start / DONE).exists(), f"there is no pretrained fusion in {start}")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (FUSION, DONE):
        with replacing(folder / name) as temporary:
            copyfile(start / name, temporary)


def _device(recipe: Recipe) -> str:
    wanted = recipe.training.device != "cpu" and torch.cuda.is_available()
    return "cuda" if wanted else "cpu"


def fused_vectors(folder: Path, items: OriginalItems) -> Tensor:
    """(N, content_dim): the items at hand through the fusion that `pretrained_vectors` left.

    Raises:
        InputError: there is none, or the items' features are not those that it was trained on.
    """
    try:
        stored = json.loads((folder / DONE).read_text())
        state = load_file(folder / FUSION)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"there is no pretrained fusion in {folder}: {error}") from None
    former = Former(stored, state)
    place(former, items)
    encoder = build_items(former.recipe, items, estimate=False)
    encoder.load_state_dict({k: v for k, v in state.items() if not k.startswith(PREFIX)})
    encoder.to(stored["device"] if torch.cuda.is_available() else "cpu")
    return encoder.content_table()


def made_by(folder: Path) -> dict[str, Any]:
    """What is said of vectors that the fusion in `folder` made, as an item table's `origin`."""
    return {"fused in": folder.name, "fusion": sha256_of(str(folder / FUSION))}


def fused_again(former: Former, items: OriginalItems, beside: Path) -> OriginalItems:
    """The items with the vectors that the ranker reads, where a first stage made these.

    Args:
        beside: the folder that holds that of the first stage.
    """
    made, known = former.described["inputs"].get("features") or {}, former.catalogue
    if "fusion" not in made or known is None or items.origin == made:
        return items
    here = Catalogue.of(items)
    places = here.places_in(known)
    if here.shows(known, places) and here.share_of_other_vectors(known, places) <= CHANGED:
        return items  # its fused vectors, ready
    folder = beside / made["fused in"]
    if not (folder / FUSION).exists() or sha256_of(str(folder / FUSION)) != made["fusion"]:
        return items  # refused, or taken, by what they are
    return items.with_vectors(fused_vectors(folder, items), origin=made)


def neighbours(history: Tensor, *, window: int, generator: torch.Generator) -> Tensor:
    """(B, L) -> (P, 2): of each row that has them, two different items at most `window` apart.

    The distance and then the place are drawn evenly by `generator`.
    """
    require(window >= 1, f"window must be at least 1, got {window}")
    history = history[(history != 0).sum(1) >= 2]
    rows, length = history.shape
    count = (history != 0).sum(1)
    gap = torch.minimum(torch.randint(1, window + 1, (rows,), generator=generator), count - 1)
    age = (torch.rand(rows, generator=generator) * (count - gap)).long()
    later = length - 1 - age  # left-padded rows have their items at the end
    row = torch.arange(rows)
    pairs = torch.stack([history[row, later - gap], history[row, later]], dim=1)
    return pairs[(pairs[:, 0] != pairs[:, 1]) & (pairs != 0).all(1)]


def _losses(items: ItemEncoder, pairs: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The two terms for pairs (P, 2)."""
    left, right = items.content(pairs).unbind(1)
    together = info_nce(left, right, temperature=temperature, ids=pairs)
    return together, _of_modalities(items, torch.unique(pairs), temperature)


def _of_modalities(items: ItemEncoder, ids: Tensor, temperature: float) -> Tensor:
    """The second term for items (P,); 0 where no two have two modalities in common."""
    vectors, present = items.features(ids)
    masks = torch.stack(list(present.values()))  # (M, P)
    some = masks.sum(0) > 1
    masks, vectors = masks[:, some], {name: x[some] for name, x in vectors.items()}
    fusion, alone = cast(nn.Module, items.fusion), []
    for own, mask in zip(vectors, masks.unbind(0), strict=True):
        nothing = torch.zeros_like(mask)
        alone.append(fusion(vectors, {m: mask if m == own else nothing for m in vectors}))
    terms = []
    for one, other in combinations(range(len(masks)), 2):
        both = masks[one] & masks[other]
        if int(both.sum()) > 1:
            terms.append(info_nce(alone[one][both], alone[other][both], temperature=temperature))
    return torch.stack(terms).mean() if terms else torch.zeros((), device=ids.device)
