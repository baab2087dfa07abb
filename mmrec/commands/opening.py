"""How a run begins: all that can be wrong is told, then what `--restart` removes goes."""

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from mmrec.data.clicks import ClickData
from mmrec.data.counts import ClickCounts, count_clicks
from mmrec.data.items import check_features
from mmrec.errors import require
from mmrec.io.files import remove, require_folder
from mmrec.io.plain import parse_settings
from mmrec.models import Recipe, check_parts, search_space
from mmrec.predict import continued_run, starting_recipe
from mmrec.train.search import draw
from mmrec.train.step.stepper import require_tasks


def recipe_of(given: Namespace, *, width: int | None = None, trials: int = 0) -> Recipe:
    """The recipe of a command line, each of its parts checked.

    Args:
        given: recipe, set, continue_from, out, seed, device, quiet.
        width: of the fused vector that goes out; None = what the recipe says.
        trials: of a search around it.
    """
    require_folder(given.out)
    former = continued_run(given.continue_from, given.out)
    recipe = starting_recipe(given.recipe, former)
    if width is not None:
        recipe = recipe.with_fused_width(width)
    how = {"seed": given.seed, "device": given.device, "progress": not given.quiet}
    recipe = recipe.changed({f"training.{name}": value for name, value in how.items()})
    recipe = check_parts(recipe.changed(parse_settings(given.set)))
    if trials:
        require(
            former is None,
            "a search trains every setting from scratch: give --search or --continue-from, got "
            "both",
        )
        draw(search_space(recipe), trials)
    return recipe


def open_data(
    root: Path, given: Namespace, written: Iterable[str]
) -> tuple[ClickData, ClickCounts]:
    """The data set, repacked where it shuffles badly, and its counts.

    Args:
        root: its folder.
        given: of a command line: out, vectors, features, recipe, restart, continue_from.
        written: what a run leaves in `out`, which `restart` removes: after the checks, so that no
            mistake costs the former run.
    """
    data = ClickData.open(root).with_modalities(given.vectors)
    features = given.features or (data.features if given.restart else None)
    if features is not None:
        check_features(features, data.schema.items, data.num_items)
    require_tasks(data.schema.clicks.labels, given.recipe.training)
    if given.restart:
        remove(given.out, written, keep=(root, features, given.continue_from))
    given.out.mkdir(parents=True, exist_ok=True)
    data = data.pack(given.out / "packed")
    return data, count_clicks(data.train, data.schema.clicks, data.num_items)
