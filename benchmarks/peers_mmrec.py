"""mmrec itself in `peers.py`: a recipe with some settings changed, by `fit`, from parquet."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peers_rows import Rows, read_rows
from peers_search import Outcome

from mmrec.batch import Batch
from mmrec.models import Inputs, Recipe, build_ranker, get_recipe
from mmrec.stream.loader import Loader
from mmrec.train.evaluate import score
from mmrec.train.trainer import fit

RECIPE = "recipe"  # the setting that names the recipe; all others are dotted names of it


class Clock:
    """A loader of valid that notes the CPU seconds at the start and end of each whole pass."""

    def __init__(self, loader: Loader[Batch]) -> None:
        self.loader = loader
        self.passes: list[tuple[float, float]] = []

    def __iter__(self) -> Iterator[Batch]:
        began = time.process_time()
        yield from self.loader
        self.passes.append((began, time.process_time()))

    def __len__(self) -> int:
        return len(self.loader)

    def seek(self, *, epoch: int, batch: int) -> None:
        """As the loader's."""
        self.loader.seek(epoch=epoch, batch=batch)

    def fingerprint(self) -> dict[str, Any]:
        """As the loader's."""
        return self.loader.fingerprint()


def recipe_of(setting: dict[str, Any], seed: int) -> Recipe:
    """The recipe that is trained."""
    changes = {name: value for name, value in setting.items() if name != RECIPE}
    always = {"training.seed": seed, "training.device": "cpu", "training.progress": False}
    return get_recipe(str(setting[RECIPE])).changed(changes | always)


def train(name: str, setting: dict[str, Any], seed: int, root: Path) -> Outcome:
    """Train and score; a killed training starts again."""
    rows, recipe = read_rows(root), recipe_of(setting, seed)
    torch.manual_seed(seed)
    before = time.process_time()
    ranker = build_ranker(recipe, rows.items, inputs_of(rows))
    loader = rows.files.loader(
        "train", batch_size=recipe.batch_size or 512, shuffle=True, seed=seed
    )
    valid = Clock(rows.files.loader("valid"))
    folder = Path(tempfile.mkdtemp())
    began = time.process_time()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the bar over all cells says enough
            found = fit(
                ranker, loader, valid, config=recipe.training, out=folder, recipe={"model": name}
            )
    finally:
        shutil.rmtree(folder)
    seconds = time.process_time() - began
    at = next(i for i, some in enumerate(found.history) if some["step"] == found.best["step"])
    evaluating = sum(end - start for start, end in valid.passes)
    device = recipe.training.device
    return Outcome(
        valid_auc=float(found.best["auc"]),
        prepare_seconds=began - before,
        best_seconds=valid.passes[at][1] - began,
        seconds=seconds,
        rows_per_second=found.steps * (recipe.batch_size or 512) / (seconds - evaluating),
        parameters=sum(p.numel() for p in ranker.parameters()),
        best_at=f"{found.best['step'] / len(loader):.1f} epochs",
        valid=score(ranker, rows.files.loader("valid"), device=device).logit,
        test=score(ranker, rows.files.loader("test"), device=device).logit,
    )


def inputs_of(rows: Rows) -> Inputs:
    """What the ranker is told of the data."""
    known = None if rows.users is None else torch.from_numpy(rows.users)
    return Inputs.of(rows.files, rows.counts, rows.items, known_users=known)
