"""How much AUC each input of a trained ranker carries.

An input is spoiled, everything else is left as it is, and the same rows are scored again: what
AUC is lost was carried by that input. This is permutation importance (Breiman 2001) with paired
intervals over users. A loss whose interval holds zero is unclear: the model may do as well without.

B rows, L history, N items, P rows of the donors' pool.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from mmrec.analysis.spoilings import Spoiling, input_names, spoilings_of
from mmrec.devices import resolve_device
from mmrec.errors import InputError, require
from mmrec.io.progress import Progress
from mmrec.metrics.intervals import Interval, Replicates, bootstrap
from mmrec.train.evaluate import Scores, score
from mmrec.train.loaders import BatchLoader


@dataclass(frozen=True)
class Contribution:
    """What one input carries.

    Attributes:
        name: what was done to the input.
        auc: AUC with it spoiled.
        lost: AUC of the sound model less `auc`, with its interval over users.
    """

    name: str
    auc: float
    lost: Interval

    @property
    def measurable(self) -> bool:
        """Whether the model is surely better with this input than without it."""
        return self.lost.low > 0


@dataclass(frozen=True)
class Diagnosis:
    """The AUC of a ranker, and what each input contributes to it.

    Attributes:
        rows, users: what it was measured on.
        auc: AUC with its interval over users.
        level: what share of such intervals covers the truth.
        contributions: in the order of `INPUTS`, less those the model has no seam for, each
            modality after the content, then those of single columns.
    """

    rows: int
    users: int
    auc: Interval
    level: float
    contributions: tuple[Contribution, ...]

    def __getitem__(self, name: str) -> Contribution:
        """The contribution of that name."""
        named = {contribution.name: contribution for contribution in self.contributions}
        require(name in named, f"a contribution is one of {', '.join(named)}, got {name!r}")
        return named[name]

    def table(self) -> str:
        """As Markdown, a row an input; one whose interval holds zero is unclear."""
        lines = [
            f"AUC {_text(self.auc)} on {self.rows:,} rows of {self.users:,} users, "
            f"{self.level:.0%} intervals over users.",
            "",
            "| input | AUC without | AUC lost | helps |",
            "|---|---|---|---|",
        ]
        for c in self.contributions:
            verdict = "yes" if c.measurable else "harms" if c.lost.high < 0 else "unclear"
            lines.append(f"| {c.name} | {c.auc:.4f} | {_text(c.lost, sign='+')} | {verdict} |")
        return "\n".join(lines)


def _text(figure: Interval, sign: str = "") -> str:
    return f"{figure.value:{sign}.4f} [{figure.low:{sign}.4f}, {figure.high:{sign}.4f}]"


def diagnose(model: nn.Module, loader: BatchLoader, **how: Any) -> Diagnosis:
    """`diagnose_tasks` of a model with one task."""
    found = diagnose_tasks(model, loader, **how)
    require(
        len(found) == 1,
        f"this model has the tasks {', '.join(found)}: use diagnose_tasks",
    )
    return next(iter(found.values()))


def diagnose_tasks(
    model: nn.Module,
    loader: BatchLoader,
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    inputs: tuple[str, ...] | None = None,
    columns: Mapping[str, tuple[str, slice]] | None = None,
    level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
) -> dict[str, Diagnosis]:
    """Score `loader` once as it is and once for each spoiled input; a diagnosis for each task.

    - history shuffled: each row gets the history of a row of another user, with its features;
    - history removed: all padding;
    - history features permuted: the items of a batch's histories swap what is known of them;
    - content, and each modality by its name, permuted: items swap vectors and masks, in history
      and target;
    - tags, item categorical, item numeric permuted: items swap those;
    - categorical, numeric permuted: each row gets those of a row of another user;
    - ids removed: every item has the model's vector for unknown items, or, where the model has
      none, the average item's; likewise for biases of items;
    - user permuted: each row gets the id of another user.

    What the rows have none of is left out. What belongs to items needs a seam: among the model's
    modules, one that `HasContent`, one that `HasItemFeatures`, and one or more that
    `HasItemTables` (`mmrec.nn.ItemEncoder` is all three, `mmrec.models.Wide` the latter).
    A model without them is diagnosed on the other inputs. One permutation is drawn for each; the
    intervals tell the noise of users, not that of the draw.

    Args:
        model: `Batch -> logits (B,)` or (B, T); weights and buffers are left as they were found.
        loader: labelled rows, best those of the validation split.
        inputs: some of `INPUTS` and of the model's modalities ("image permuted"); None is all.
        columns: single columns that are permuted, too: name -> its field of the batch and its
            place in there, as `ClickData.places` tells.
        level, replicates, seed: of the bootstrap over users (`mmrec.metrics.intervals`).
        progress: whether to show progress on stderr; None shows it on a terminal.

    Raises:
        InputError: an unknown input, rows without labels, labels all alike, or a single user.
    """
    known = input_names(model)
    wanted = known if inputs is None else inputs
    unknown = ", ".join(name for name in wanted if name not in known)
    require(not unknown, f"inputs must be among {', '.join(known)}, got {unknown}")
    device = resolve_device(device)
    columns = columns or {}
    spoilings = spoilings_of(model.to(device), loader, columns, seed)
    with Progress(desc="diagnose", unit=" rows", unit_scale=True, shown=progress) as bar:

        def scores(spoiling: Spoiling) -> Scores:
            with spoiling:
                return score(
                    model, loader, device=device, precision=precision, each_batch=bar.update
                )

        whole = scores(nullcontext())
        if whole.label is None:
            raise InputError("a diagnosis needs labels, the loader gives none")
        single = [f"{name} permuted" for name in columns]
        names = [name for name in known if name in wanted and name in spoilings] + single
        spoiled = {name: scores(spoilings[name]) for name in names}
    resampled = partial(bootstrap, "auc", replicates=replicates, seed=seed)
    return {task: _diagnosis(task, whole, spoiled, resampled, level) for task in whole.tasks}


def _diagnosis(
    task: str,
    whole: Scores,
    spoiled: Mapping[str, Scores],
    resampled: Callable[[Any, Any, Any], Replicates],
    level: float,
) -> Diagnosis:
    of = whole.of_task(task)
    sound = resampled(of.user, of.label, of.logit)
    contributions = []
    for name, scores in spoiled.items():
        other = resampled(of.user, of.label, scores.of_task(task).logit)
        lost = (sound - other).interval(level)
        contributions.append(Contribution(name, other.value, lost))
    users, auc = len(np.unique(of.user)), sound.interval(level)
    return Diagnosis(len(of.row), users, auc, level, tuple(contributions))
