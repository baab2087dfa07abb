"""The training loop: epochs, evaluations, early stopping, checkpoints, resuming after a stop."""

import sys
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mmrec.batch import Batch
from mmrec.config import TrainConfig
from mmrec.errors import InputError
from mmrec.train.distributed import any_rank, barrier, current_world, gather_objects
from mmrec.train.evaluate import score
from mmrec.train.interrupt import Interrupted, StopSignal
from mmrec.train.loaders import BatchLoader
from mmrec.train.prefetch import on_device
from mmrec.train.state.checkpoint import (
    Checkpoint,
    detached,
    is_finite,
    load_checkpoint,
    load_weights,
)
from mmrec.train.state.log import RunLog
from mmrec.train.state.progress import FitResult, Progress, Sums
from mmrec.train.state.store import Store
from mmrec.train.step.guard import StepRecord, diverged, is_overflow, out_of_memory
from mmrec.train.step.precision import resolve_device
from mmrec.train.step.schedule import Schedule
from mmrec.train.step.stepper import RowLoss, Stepper, click_loss

# Overflows in a row that float16's loss scale may need to come down from its start.
_SCALE_ALLOWANCE = 24


def fit(
    model: nn.Module,
    train_loader: BatchLoader,
    valid_loader: BatchLoader,
    *,
    config: TrainConfig,
    out: Path,
    recipe: Mapping[str, Any],
    restart: bool = False,
    loss: RowLoss = click_loss,
) -> FitResult:
    """Train `model` (Batch -> logits (B,)) and leave its best weights in it.

    Writes `out/checkpoints/` (the newest `keep_last` and the best), `out/log.jsonl`. The same
    call again resumes from the newest complete checkpoint, on the CPU with bitwise the result of
    an undisturbed run; after the end it returns the result at once. Under torchrun (inside
    `mmrec.train.distributed.process_group`) every rank calls it with its own slice of the batches.

    Args:
        recipe: what the model was built from, JSON-able; kept in every checkpoint, and a
            checkpoint of another recipe is refused.
        restart: remove the checkpoints and log in `out` and start from scratch.
        loss: (logits float32 (B,), batch) -> (B,) loss of each row; a model's `auxiliary`, if
            it has one, is added (see `Stepper`).

    Raises:
        InputError: a checkpoint of another recipe, setting or data; a save that failed; too many
            bad steps in a row (`Diverged`); out of memory.
        Interrupted: after SIGTERM or Ctrl-C, with a checkpoint written.
    """
    with StopSignal() as stop:
        try:
            run = _Run(model, train_loader, valid_loader, config, Path(out), recipe, loss, stop)
            return run.go(restart=restart)
        except torch.OutOfMemoryError as error:
            raise out_of_memory(train_loader.fingerprint(), config.accumulate) from error
        except RuntimeError as error:
            if "DefaultCPUAllocator" not in str(error):  # how running out reads on the CPU
                raise
            raise out_of_memory(train_loader.fingerprint(), config.accumulate) from error


class _Run:
    def __init__(
        self,
        model: nn.Module,
        train_loader: BatchLoader,
        valid_loader: BatchLoader,
        config: TrainConfig,
        out: Path,
        recipe: Mapping[str, Any],
        loss: RowLoss,
        stop: StopSignal,
    ) -> None:
        if len(train_loader) == 0:
            raise InputError("the training loader has no batches")
        self.model, self.config, self.out, self.stop = model, config, out, stop
        self.train_loader, self.valid_loader = train_loader, valid_loader
        self.world = current_world()
        self.device = resolve_device(config.device)
        self.stepper = Stepper(model, config, self.device, loss)
        steps = -(-len(train_loader) // config.accumulate)
        self.schedule = Schedule(config, total_steps=config.epochs * steps)
        self.progress = Progress()
        identity = {
            "recipe": dict(recipe),
            "setting": config.binding(),
            "training data": train_loader.fingerprint(),
            "validation data": valid_loader.fingerprint(),
        }
        self.store = Store(out, identity=identity, keep_last=config.keep_last, world=self.world)
        self._saved = time.monotonic()
        self._window_started = time.monotonic()
        self._loading_seconds = 0.0

    def go(self, *, restart: bool) -> FitResult:
        started = time.monotonic()
        self._open(restart=restart)
        progress = self.progress
        if progress.finished == "epochs" and progress.epoch < self.config.epochs:
            progress.finished = None
        try:
            while progress.finished is None:
                self._epoch()
        except _StopEvaluating:
            self._leave()
        finally:
            self.log.close()
        return self._result(time.monotonic() - started)

    def _open(self, *, restart: bool) -> None:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            found = self.store.open(restart=restart)
            if found is not None:
                self._resume(found)
            self.log = RunLog(
                self.out,
                keep=self.progress.log_lines,
                step=self.progress.step,
                active=self.world.is_first,
                tensorboard=self.config.tensorboard,
            )
        except OSError as error:
            raise InputError(f"cannot write to {self.out}: {error.strerror or error}") from error

    def _resume(self, checkpoint: Checkpoint) -> None:
        load_weights(self.model, checkpoint)
        self.stepper.load(checkpoint.part)
        self.progress = Progress.from_json(checkpoint.content["progress"])
        self.schedule.state = dict(self.progress.schedule)
        self._say(f"resuming from {checkpoint.path} (step {checkpoint.step})")

    def _epoch(self) -> None:
        progress = self.progress
        self.model.train()
        if self._evaluation_due():  # stopped between a step and its evaluation
            self._evaluate()
        if progress.batch < len(self.train_loader) and progress.finished is None:
            self._pass()
        if progress.finished is None:
            self._settle()
            if progress.evaluated != progress.step:
                self._evaluate()
            progress.epoch, progress.batch, progress.in_epoch = progress.epoch + 1, 0, Sums()
            if progress.finished is None and progress.epoch >= self.config.epochs:
                progress.finished = "epochs"
        self._save()
        if progress.finished is None and any_rank([self.stop.wanted], self.device)[0]:
            self._leave()

    def _pass(self) -> None:
        """The rest of the epoch's batches."""
        progress, config = self.progress, self.config
        self.train_loader.seek(epoch=progress.epoch, batch=progress.batch)
        batches = on_device(self.train_loader, self.device)
        self._window_started = time.monotonic()
        with tqdm(
            total=len(self.train_loader),
            initial=progress.batch,
            desc=f"epoch {progress.epoch + 1}/{config.epochs}",
            unit="batch",
            leave=False,
            disable=not (config.progress and self.world.is_first),
        ) as self.bar:
            while group := self._next(batches):
                factor = self.schedule.factor(progress.step)
                self.stepper.step(group, step=progress.step, factor=factor)
                progress.step += 1
                progress.batch += len(group)
                self.bar.update(len(group))
                self._after_step()
                if progress.finished is not None:
                    return

    def _next(self, batches: Iterator[tuple[Batch, Tensor]]) -> list[tuple[Batch, Tensor]]:
        before = time.monotonic()
        try:
            group = list(islice(batches, self.config.accumulate))
        except RuntimeError:  # Ctrl-C in a terminal ends the loader's worker processes too
            if self.stop.wanted and self.world.size == 1:
                self._leave()
            raise
        self._loading_seconds += time.monotonic() - before
        return group

    def _after_step(self) -> None:
        progress, config = self.progress, self.config
        look = progress.step % config.log_every == 0
        if look or self.stepper.records.full:
            self._settle()
        if look:
            self._log_window()
        if self._evaluation_due():
            self._evaluate()
        # Several ranks agree on what only one of them may know, when they look anyway.
        stop, save = self.stop.wanted, self._save_is_due_by_time()
        if self.world.size > 1:
            stop, save = any_rank([stop, save], self.device) if look else (False, False)
        every = config.save_every_steps
        if stop:
            self._leave()
        if save or (every is not None and progress.step % every == 0):
            self._save()

    def _settle(self) -> None:
        """Bring over what the latest steps left on the device, and judge it."""
        progress = self.progress
        records = self.stepper.records.take()
        first = progress.step - len(records)
        for position, record in enumerate(records):
            if not record.skipped:
                progress.bad_in_a_row = 0
                progress.window.add(record.loss, record.rows)
                progress.in_epoch.add(record.loss, record.rows)
                continue
            progress.bad_in_a_row += 1
            progress.bad_steps += 1
            self._judge(record, step=first + position + 1)

    def _judge(self, record: StepRecord, *, step: int) -> None:
        """Note a skipped step; raise where there were too many."""
        progress = self.progress
        rows = [row for part in gather_objects(record.row_numbers()) for row in part]
        overflow = self.stepper.scale.enabled and is_overflow(record)
        self.log.write("skipped", step, rows=rows, loss=str(record.loss), norm=str(record.norm))
        limit = self.config.max_bad_steps + (_SCALE_ALLOWANCE if overflow else 0)
        if progress.bad_in_a_row < limit:
            return
        raise diverged(
            record,
            step=step,
            in_a_row=progress.bad_in_a_row,
            rows=rows,
            learning_rate=self.config.learning_rate,
            last=self.store.last(),
        )

    def _log_window(self) -> None:
        progress = self.progress
        now = time.monotonic()
        seconds = max(now - self._window_started, 1e-9)
        mean, rate = progress.window.mean, progress.window.rows / seconds
        self.log.write(
            "train",
            progress.step,
            epoch=progress.epoch + 1,
            loss=mean,
            learning_rate=self.config.learning_rate * self.schedule.factor(progress.step - 1),
            rows_per_second=round(rate, 1),
            data_wait=round(self._loading_seconds / seconds, 4),
        )
        if mean is not None:
            self.bar.set_postfix_str(f"loss {mean:.4f}, {rate:,.0f} rows/s")
        progress.window, self._window_started, self._loading_seconds = Sums(), now, 0.0

    def _evaluation_due(self) -> bool:
        every, progress = self.config.evaluate_every, self.progress
        due = every is not None and progress.step > 0 and progress.step % every == 0
        return due and progress.evaluated != progress.step

    def _evaluate(self) -> None:
        self._settle()
        began = time.monotonic()
        ema = self.stepper.ema
        if ema is None:
            self._evaluate_weights()
        else:
            with ema.in_place():
                self._evaluate_weights()
        self.model.train()
        self._window_started += time.monotonic() - began  # not the training's time

    def _evaluate_weights(self) -> None:
        progress, config = self.progress, self.config
        scores = score(
            self.model,
            self.valid_loader,
            device=self.device,
            precision=config.precision,
            each_batch=self._between_evaluated_batches,
        )
        found: dict[str, Any] = dict(scores.metrics())
        found |= {"train_loss": progress.in_epoch.mean}
        found |= {"epoch": progress.epoch + 1, "step": progress.step}
        progress.evaluated = progress.step
        progress.history.append(found)
        self.log.write("valid", **found)
        sign = 1 if config.monitor == "auc" else -1
        best = progress.best
        improved = best is None or sign * found[config.monitor] > sign * best[config.monitor]
        self.schedule.observe(improved=improved)
        if improved:
            progress.best, progress.waited = found, 0
            weights = {f"model/{name}": value for name, value in detached(self.model).items()}
            self.store.write("best", progress.step, tensors=weights, content={"metrics": found})
        else:
            progress.waited += 1
            if config.patience is not None and progress.waited >= config.patience:
                progress.finished = "early stopping"
        self._say(
            f"epoch {found['epoch']}, step {found['step']}: valid AUC {found['auc']:.4f}, "
            f"logloss {found['logloss']:.4f}" + (" (best)" if improved else "")
        )

    def _between_evaluated_batches(self, rows: int) -> None:
        if self.stop.wanted and self.world.size == 1:
            raise _StopEvaluating

    def _save_is_due_by_time(self) -> bool:
        every = self.config.save_every_seconds
        return every is not None and time.monotonic() - self._saved >= every

    def _save(self) -> None:
        """Write a `last` checkpoint, unless the weights are in doubt."""
        self._settle()
        progress = self.progress
        if progress.bad_in_a_row > 0 or not is_finite(detached(self.model)):
            return
        progress.schedule = dict(self.schedule.state)
        progress.log_lines = self.log.lines
        content = {"progress": progress.to_json(), "config": self.config.binding()}
        self.store.write("last", progress.step, tensors=self.stepper.tensors(), content=content)
        self.store.retain(best_step=None if progress.best is None else progress.best["step"])
        self._saved = time.monotonic()

    def _leave(self) -> NoReturn:
        """Save and raise, because a signal asked for it."""
        self._save()
        barrier()
        last = self.store.last()
        where = f"the same call resumes from {last}" if last else "no checkpoint was written"
        message = f"stopped by a signal after step {self.progress.step}; {where}"
        self._say(message)
        raise Interrupted(message)

    def _say(self, line: str) -> None:
        if self.world.is_first:
            tqdm.write(line, file=sys.stderr)

    def _result(self, seconds: float) -> FitResult:
        progress = self.progress
        barrier()
        best = progress.best
        if best is None or progress.finished is None:
            raise RuntimeError("a finished run has been evaluated")  # a bug, if ever
        best_path = self.store.best(best["step"])
        load_weights(self.model, load_checkpoint(best_path))
        return FitResult(
            best=best,
            history=progress.history,
            steps=progress.step,
            epochs=progress.epoch,
            finished=progress.finished,
            bad_steps=progress.bad_steps,
            best_path=best_path,
            seconds=seconds,
        )


class _StopEvaluating(Exception):
    """A signal came during an evaluation, which will be repeated."""
