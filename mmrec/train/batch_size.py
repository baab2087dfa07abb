"""Batch size none: the largest batch whose training step fits into memory, found by trying."""

import gc
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from mmrec.batch import Batch
from mmrec.config import TrainConfig
from mmrec.devices import resolve_device
from mmrec.errors import InputError, positive, require
from mmrec.io.files import write_json
from mmrec.train.distributed import alone, current_world
from mmrec.train.randomness import generators_kept
from mmrec.train.step.stepper import RowLoss, Stepper, click_loss

SMALLEST, STEPS_AN_EPOCH = 128, 100  # what the search stays within
USUAL = 512  # rows on a CPU


def largest_batch_size(
    model: nn.Module,
    sample: Batch,
    *,
    config: TrainConfig,
    start: int = 128,
    limit: int = 65_536,
    loss: RowLoss = click_loss,
) -> int:
    """The largest of start, 2 start, 4 start, … up to `limit` whose step fits on the device.

    Tries whole steps (forward, backward, optimizer state) at a learning rate of zero, on rows of
    `sample` repeated, with every place of their histories filled. One size below the first that
    did not fit is left as room for what fragments memory later. Weights stay as they were.

    Only a device that refuses memory can answer: a CPU's system kills the process instead, so
    there `limit` should be what is known to fit. Under torchrun the answer is one rank's share of
    the global batch; any rank may ask without the others.

    Raises:
        InputError: not even `start` rows fit, or the sample is empty.
    """
    require(
        len(sample) > 0 and 1 <= start <= limit,
        f"the search needs rows and 1 <= start <= limit, got {len(sample)} rows, {start}, {limit}",
    )
    device = resolve_device(config.device)
    was_training = model.training
    state = model.state_dict()  # without the item table, which no step changes
    kept = {k: state[k].clone() for k, _ in model.named_buffers() if k in state}
    fits, size = 0, start
    with alone(), generators_kept(device):
        while size <= limit and _fits(model, _filled(sample, size), config, device, loss):
            fits, size = size, size * 2
    model.train(was_training)
    model.load_state_dict(kept, strict=False)
    require(
        fits,
        f"a training step of {start} rows runs out of memory on {device}: take a smaller "
        "recipe or bfloat16",
    )
    refused = size <= limit
    return max(start, fits // 2) if refused else fits


def settled_batch_size(
    build: Callable[[], nn.Module],
    sample: Callable[[int], Batch],
    *,
    config: TrainConfig,
    train_rows: int,
    path: Path,
) -> int:
    """Rows of a global batch: the largest that fit, found once and kept in the JSON file `path`.

    A run resumes with the size that it began with. On the CPU, which refuses no memory and so
    cannot be asked, it is `USUAL` at most.

    Args:
        build: makes the model.
        sample: makes a batch of so many rows over all ranks; this rank's share of it.
        train_rows: rows of an epoch; learning rates are not scaled, so an epoch keeps enough
            steps to learn something.
    """
    if path.exists():
        size = _kept(path)
        print(f"batch size: {size:,} rows, as found at the start (--restart searches again)")
        return size
    ranks = current_world().size
    limit = max(SMALLEST, train_rows // (STEPS_AN_EPOCH * ranks))
    if resolve_device(config.device).type == "cpu":
        limit = max(1, USUAL // ranks)
    start = min(SMALLEST, limit)
    found = largest_batch_size(
        build(), sample(start * ranks), config=config, start=start, limit=limit
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"batch_size": found * ranks})
    print(f"batch size: {found * ranks:,} rows, the largest that fit on {ranks} rank(s)")
    return found * ranks


def _kept(path: Path) -> int:
    """What was found before."""
    try:
        size = json.loads(path.read_text())["batch_size"]
        positive(batch_size=size)
    except (OSError, ValueError, KeyError, TypeError) as error:
        told = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else error
        raise InputError(
            f"{path} cannot be read ({told}): remove it, and the size is searched again"
        ) from None
    return int(size)


def _filled(sample: Batch, size: int) -> Batch:
    """`size` rows of the sample, without padding in their histories: the worst that can come."""
    row = torch.arange(size) % len(sample)
    filled = sample.map(lambda tensor: tensor[row.to(tensor.device)])
    return replace(filled, history=filled.history.clamp(min=1))


def _fits(
    model: nn.Module, batch: Batch, config: TrainConfig, device: torch.device, loss: RowLoss
) -> bool:
    stepper: Stepper | None = None
    try:
        stepper = Stepper(model, config, device, loss)
        model.train()
        for step in range(2):  # the second step has the optimizer's state beside the activations
            stepper.step([(batch.to(device), batch.row)], step=step, factor=0.0)
        stepper.records.take()
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        del stepper
        for parameter in model.parameters():
            parameter.grad = None
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
