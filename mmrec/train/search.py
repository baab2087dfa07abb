"""Random search over settings, by valid alone: what `--search N` does. Resumable trial by trial."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from tqdm import tqdm

from mmrec.errors import InputError, positive, require
from mmrec.io.files import write_json
from mmrec.io.identity import bind_identity
from mmrec.train.distributed import from_first
from mmrec.train.evaluate import Scores

Setting = dict[str, Any]


class Changeable(Protocol):
    """What is searched around: a recipe."""

    def changed(self, settings: Mapping[str, Any]) -> Any: ...


R = TypeVar("R", bound=Changeable)


def draw(space: Mapping[str, Sequence[Any]], trials: int, *, seed: int = 0) -> list[Setting]:
    """Settings to try: none changed first, then drawn evenly and independently, each once.

    More trials begin with the same ones.

    Raises:
        InputError: fewer than one trial, or more than the space holds.

    >>> draw({"rate": (1, 2)}, 3)
    [{}, {'rate': 2}, {'rate': 1}]
    """
    positive(trials=trials)
    size = 1
    for values in space.values():
        size *= len(values)
    require(trials <= 1 + size, f"the space holds {size} settings, got {trials} trials")
    generator = random.Random(seed)
    found: list[Setting] = [{}]
    while len(found) < trials:
        setting = {name: generator.choice(values) for name, values in space.items()}
        if setting not in found:
            found.append(setting)
    return found


def search(
    recipe: R,
    train: Callable[[R, Path], tuple[object, Scores]],
    out: Path,
    space: Mapping[str, Sequence[Any]],
    trials: int,
    *,
    seed: int = 0,
    chosen: Sequence[Path] = (),
) -> R:
    """The best of `trials` recipes by AUC on valid, the given one among them; 0 = the given one.

    Args:
        train: trains one in a folder, resuming what is there: a model, and its scores of valid.
        out: a folder; each trial's result is kept in `NN.json` there, its training is not.
        space: dotted name of a setting -> values that are tried.
        seed: of the draws.
        chosen: folders of what was trained by an earlier choice: removed where more trials lead
            to another one.

    Raises:
        InputError: `out` holds the search of another recipe or space.
    """
    if trials == 0:
        return recipe
    settings = draw(space, trials, seed=seed)

    def bind() -> None:
        out.mkdir(parents=True, exist_ok=True)
        told = {"recipe": repr(recipe), "space": {k: list(v) for k, v in space.items()}}
        bind_identity(out / "search.json", told | {"seed": seed}, remedy="use another folder")

    from_first(bind)
    found: list[float] = []
    for number, setting in enumerate(settings):
        result, place = out / f"{number:02}.json", out / f"trial_{number:02}"
        known = from_first(partial(_kept, result))
        if known is None:
            known = train(recipe.changed(setting), place)[1].metrics()["auc"]
            from_first(partial(write_json, result, {"setting": setting, "auc": known}))
        from_first(partial(shutil.rmtree, place, ignore_errors=True))
        found.append(known)
        from_first(partial(_say, settings, found))
    best = max(range(trials), key=found.__getitem__)
    from_first(partial(_choose, out / "chosen.json", settings[best], chosen))
    return cast(R, recipe.changed(settings[best]))


def _choose(path: Path, setting: Setting, chosen: Sequence[Path]) -> None:
    said = json.loads(json.dumps({"setting": setting}))
    if path.exists() and json.loads(path.read_text()) != said:
        for folder in chosen:
            shutil.rmtree(folder, ignore_errors=True)
    write_json(path, said)


def _kept(path: Path) -> float | None:
    if not path.exists():
        return None
    try:
        return float(json.loads(path.read_text())["auc"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}): remove it, to train it again") from None


def _say(settings: Sequence[Setting], found: Sequence[float]) -> None:
    best = max(range(len(found)), key=found.__getitem__)
    said = " ".join(f"{name}={value}" for name, value in settings[best].items()) or "as it is"
    tqdm.write(
        f"search {len(found)} of {len(settings)}: AUC {found[-1]:.4f}, best {found[best]:.4f} "
        f"({said})",
        file=sys.stderr,
    )
