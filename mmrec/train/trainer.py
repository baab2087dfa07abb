"""The training loop: epochs, evaluations, early stopping, checkpoints, resuming after a stop."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mmrec.batch import Batch
from mmrec.config import TrainConfig
from mmrec.devices import resolve_device
from mmrec.errors import InputError, require
from mmrec.io.plain import from_plain, to_plain
from mmrec.io.progress import Progress as Bar
from mmrec.train.callback import Callback
from mmrec.train.distributed import any_rank, barrier, current_world, gather_objects
from mmrec.train.evaluate import check_labels, score
from mmrec.train.interrupt import Interrupted, StopSignal
from mmrec.train.loaders import BatchLoader, on_device
from mmrec.train.randomness import generators_kept
from mmrec.train.state.checkpoint import is_finite, load_checkpoint, load_weights
from mmrec.train.state.log import RunLog
from mmrec.train.state.progress import FitResult, Progress, Sums
from mmrec.train.state.store import Store
from mmrec.train.step.guard import StepRecord, diverged, is_overflow, out_of_memory
from mmrec.train.step.optimizer import rate_factor
from mmrec.train.step.stepper import ClickLoss, RowLoss, Stepper, described, task_weights

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
    loss: RowLoss | None = None,
    callback: Callback | None = None,
) -> FitResult:
    """Train `model` (Batch -> logits (B,) or (B, T)) and leave its best weights in it.

    Writes `out/checkpoints/` (the newest `keep_last` and the best), `out/log.jsonl`. The same
    call again resumes from the newest complete checkpoint, on the CPU with bitwise the result of
    an undisturbed run; after the end it returns the result at once. Under torchrun (inside
    `mmrec.train.distributed.process_group`) every rank calls it with its own slice of the batches.

    Args:
        model: where it `HasAuxiliary` (the attribute `auxiliary`, a scalar tensor that its latest
            forward left, or None), that loss is added to the mean loss of the rows. Where it
            `HasTasks`, metrics, `monitor` and `task_weights` go by those names.
        recipe: what the model was built from, JSON-able; kept in every checkpoint, and a
            checkpoint of another recipe is refused.
        restart: remove the checkpoints and log in `out` and start from scratch.
        loss: (float32 logits as the model gives them, batch) -> (B,) loss of each row. None is
            `ClickLoss` with the config's `task_weights`.
        callback: on the first rank called with (event, step, values) for each line of the log, as
            soon as its step is done; before them with "start" (the step resumed from; recipe, loss,
            settings, data), behind them with "end" (`finished`, None where it was stopped). What
            it raises leaves `fit`, after a single rank's checkpoint; see docs/guides/tracking.md.

    Raises:
        InputError: a checkpoint of another recipe, setting or data; a save that failed; too many
            bad steps in a row (`Diverged`); out of memory.
        Interrupted: after SIGTERM or Ctrl-C, with a checkpoint written.
    """
    with StopSignal() as stop, generators_kept(resolve_device(config.device)):
        try:
            run = _Run(model, train_loader, valid_loader, config, Path(out), recipe, loss, stop)
            return run.go(restart=restart, callback=callback)
        except RuntimeError as error:
            # The second is how running out reads on the CPU.
            if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
                raise out_of_memory(train_loader.fingerprint(), config.accumulate) from error
            raise


class _Stopped(Exception):
    """A signal asked to leave, between two steps or in an evaluation, which will be repeated."""


class _Run:
    def __init__(
        self,
        model: nn.Module,
        train_loader: BatchLoader,
        valid_loader: BatchLoader,
        config: TrainConfig,
        out: Path,
        recipe: Mapping[str, Any],
        loss: RowLoss | None,
        stop: StopSignal,
    ) -> None:
        require(len(train_loader) > 0, "the training loader has no batches")
        self.model, self.config, self.out, self.stop = model, config, out, stop
        self.train_loader, self.valid_loader = train_loader, valid_loader
        self.world = current_world()
        self.device = resolve_device(config.device)
        weights = task_weights(model, config)
        loss = loss or ClickLoss(weights)
        self.stepper = Stepper(model, config, self.device, loss)
        steps = -(-len(train_loader) // config.accumulate)
        self.rate_factor = partial(rate_factor, config, total_steps=config.epochs * steps)
        self.progress = Progress()
        identity = {
            "recipe": dict(recipe),
            "loss": described(loss),
            "setting": config.binding(),
            "training data": train_loader.fingerprint(),
            "validation data": valid_loader.fingerprint(),
        }
        self.store = Store(out, identity=identity, keep_last=config.keep_last, world=self.world)
        self._saved = self._window_started = time.monotonic()
        self._loading_seconds = 0.0
        self._rows_before = 0  # of the window, from before the clock of this epoch

    def go(self, *, restart: bool, callback: Callback | None) -> FitResult:
        started = time.monotonic()
        self.unranked = check_labels(self.model, self.valid_loader, self.config.monitor)
        self._open(restart=restart, callback=callback)
        try:
            self.log.tell()
            while self.progress.finished is None:
                self._epoch()
        except _Stopped:
            self._save()
            barrier()
            last = self.store.last()
            where = f"the same call resumes from {last}" if last else "no checkpoint was written"
            message = f"stopped by a signal after step {self.progress.step}; {where}"
            self._say(message)
            raise Interrupted(message) from None
        finally:
            self.log.note("end", self.progress.step, finished=self.progress.finished)
            self.log.tell()
        return self._result(time.monotonic() - started)

    def _open(self, *, restart: bool, callback: Callback | None) -> None:
        """Load the newest checkpoint, if there is one, and open the log."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            found = self.store.open(restart=restart)
            if found is not None:
                load_weights(self.model, found)
                self.stepper.load(found.part)
                self.progress = from_plain(Progress, found.content["progress"])
                self._say(f"resuming from {found.path} (step {found.step})")
            progress = self.progress
            self.log = RunLog(
                self.out,
                keep=progress.log_lines,
                active=self.world.is_first,
                callback=callback,
            )
            self.log.note("start", progress.step, **self.store.identity)
        except OSError as error:
            raise InputError(f"cannot write to {self.out}: {error.strerror or error}") from error
        if progress.finished == "epochs" and progress.epoch < self.config.epochs:
            progress.finished = None  # more epochs than the run was first asked for

    def _epoch(self) -> None:
        """An epoch, or the rest of one, its evaluation, and a checkpoint."""
        progress, config = self.progress, self.config
        self.model.train()
        if self._due(config.evaluate_every):  # stopped between a step and its evaluation
            self._evaluate()
        if progress.finished is None and progress.batch < len(self.train_loader):
            self._train()
        if progress.finished is None:
            try:
                self._evaluate()
            except Exception as error:
                # An epoch's work is not lost to what is wrong with valid.
                if self.world.size == 1 and not isinstance(error, _Stopped):
                    self._save()
                raise
            progress.epoch, progress.batch, progress.in_epoch = progress.epoch + 1, 0, Sums()
            if progress.finished is None and progress.epoch >= config.epochs:
                progress.finished = "epochs"
        self._save()
        self.log.tell()
        if progress.finished is None and any_rank(self.stop.wanted)[0]:
            raise _Stopped

    def _train(self) -> None:
        """The rest of the epoch's batches."""
        progress, config = self.progress, self.config
        self.train_loader.seek(epoch=progress.epoch, batch=progress.batch)
        batches = on_device(self._waited_for(self.train_loader), self.device)
        self._window_started, self._rows_before = time.monotonic(), progress.window.rows
        with Bar(
            total=len(self.train_loader),
            initial=progress.batch,
            desc=f"epoch {progress.epoch + 1}/{config.epochs}",
            unit="batch",
            leave=False,
            shown=config.progress and self.world.is_first,
        ) as self.bar:
            while progress.finished is None and (group := self._next(batches)):
                factor = self.rate_factor(progress.step, plateau=progress.plateau)
                self.stepper.step(group, step=progress.step, factor=factor)
                progress.step += 1
                progress.batch += len(group)
                self.bar.update(len(group))
                self._after_step()

    def _next(self, batches: Iterator[tuple[Batch, Tensor]]) -> list[tuple[Batch, Tensor]]:
        """The batches of a step; none at the end of the epoch."""
        try:
            return list(islice(batches, self.config.accumulate))
        except RuntimeError:  # Ctrl-C in a terminal ends the loader's worker processes too
            self._stop_if_alone()
            raise

    def _waited_for(self, loader: Iterable[Batch]) -> Iterator[Batch]:
        """The loader's batches, with the time that they are waited for."""
        batches = iter(loader)
        while True:
            before = time.monotonic()
            batch = next(batches, None)
            self._loading_seconds += time.monotonic() - before
            if batch is None:
                return
            yield batch

    def _after_step(self) -> None:
        """Log, evaluate, save and stop where it is time to."""
        config, look = self.config, self._due(self.config.log_every)
        if look:
            self._settle()
            self._log_window()
        if self._due(config.evaluate_every):
            self._evaluate()
        # Several ranks agree on what only one of them may know, when they look anyway.
        seconds = config.save_every_seconds
        save = seconds is not None and time.monotonic() - self._saved >= seconds
        stop = self.stop.wanted
        if self.world.size > 1:
            stop, save = any_rank(stop, save) if look else (False, False)
        if stop:
            raise _Stopped
        if save or self._due(config.save_every_steps):
            self._save()
        self._tell()

    def _tell(self) -> None:
        """Hand the callback what is new; between two steps its failure costs none of them."""
        try:
            self.log.tell()
        except Exception:
            if self.world.size == 1:
                self._save()
            raise

    def _due(self, every: int | None) -> bool:
        step = self.progress.step
        return every is not None and step > 0 and step % every == 0

    def _stop_if_alone(self, _: int = 0) -> None:
        """Several ranks can only leave together."""
        if self.stop.wanted and self.world.size == 1:
            raise _Stopped

    def _settle(self) -> None:
        """Bring over what the latest steps left on the device, and judge it."""
        progress = self.progress
        records = self.stepper.records.take()
        for step, record in enumerate(records, start=progress.step - len(records) + 1):
            if record.skipped:
                self._judge(record, step=step)
                continue
            progress.bad_in_a_row = 0
            progress.window.add(record.loss, record.rows)
            progress.in_epoch.add(record.loss, record.rows)

    def _judge(self, record: StepRecord, *, step: int) -> None:
        """Note a skipped step; raise where there were too many."""
        progress = self.progress
        progress.bad_in_a_row += 1
        progress.bad_steps += 1
        rows = [row for part in gather_objects(torch.cat(record.row).tolist()) for row in part]
        self.log.write("skipped", step, rows=rows, loss=str(record.loss), norm=str(record.norm))
        overflow = self.stepper.scale.enabled and is_overflow(record)
        if progress.bad_in_a_row >= self.config.max_bad_steps + overflow * _SCALE_ALLOWANCE:
            raise diverged(
                record,
                step=step,
                in_a_row=progress.bad_in_a_row,
                rows=rows,
                learning_rate=self.config.learning_rate,
                last=self.store.last(),
            )

    def _log_window(self) -> None:
        progress, now = self.progress, time.monotonic()
        seconds = max(now - self._window_started, 1e-9)
        mean, rate = progress.window.mean, (progress.window.rows - self._rows_before) / seconds
        factor = self.rate_factor(progress.step - 1, plateau=progress.plateau)
        self.log.write(
            "train",
            progress.step,
            epoch=progress.epoch + 1,
            epochs=self._epochs(),
            loss=mean,
            learning_rate=self.config.learning_rate * factor,
            rows_per_second=round(rate, 1),
            data_wait=round(self._loading_seconds / seconds, 4),
        )
        if mean is not None:
            self.bar.set_postfix_str(f"loss {mean:.4f}, {rate:,.0f} rows/s")
        progress.window, self._window_started, self._loading_seconds = Sums(), now, 0.0
        self._rows_before = 0

    def _epochs(self) -> float:
        """How many epochs lie behind, with the part of this one."""
        progress = self.progress
        return round(progress.epoch + progress.batch / len(self.train_loader), 6)

    def _evaluate(self) -> None:
        """Score the validation rows, if not done after this very step, and keep the best."""
        progress, ema = self.progress, self.stepper.ema
        if progress.evaluated == progress.step:
            return
        self._settle()
        began = time.monotonic()
        with nullcontext() if ema is None else ema.in_place():
            scores = score(
                self.model,
                self.valid_loader,
                device=self.device,
                precision=self.config.precision,
                each_batch=self._stop_if_alone,
            )
            found: dict[str, Any] = scores.metrics(unranked=self.unranked)
            found |= {"train_loss": progress.in_epoch.mean}
            found |= {"epoch": progress.epoch + 1, "step": progress.step}
            improved = progress.note(found, self.config)
            self.log.write("valid", **found, epochs=self._epochs(), improved=improved)
            if improved:
                weights = {f"model/{k}": v for k, v in self.model.state_dict().items()}
                self.store.write("best", progress.step, tensors=weights, content={"metrics": found})
        each = ", ".join(
            f"{name[:-4]} {found[name]:.4f}" for name in found if name.endswith("/auc")
        )
        ranked = f"AUC {found['auc']:.4f}{f' ({each})' if each else ''}, " if "auc" in found else ""
        self._say(
            f"epoch {found['epoch']}, step {found['step']}: valid {ranked}"
            f"logloss {found['logloss']:.4f}{' (best)' if improved else ''}"
        )
        self._window_started += time.monotonic() - began  # not the training's time

    def _save(self) -> None:
        """Write a `last` checkpoint, unless the weights are in doubt."""
        self._settle()
        progress = self.progress
        if progress.bad_in_a_row > 0 or not is_finite(self.model.state_dict()):
            return
        progress.log_lines = self.log.lines
        content = {"progress": to_plain(progress)}
        self.store.write("last", progress.step, tensors=self.stepper.tensors(), content=content)
        self.store.retain(best_step=None if progress.best is None else progress.best["step"])
        self._saved = time.monotonic()

    def _say(self, line: str) -> None:
        if self.world.is_first:
            tqdm.write(line, file=sys.stderr)

    def _result(self, seconds: float) -> FitResult:
        progress = self.progress
        barrier()
        if progress.best is None or progress.finished is None:
            raise RuntimeError("a finished run has been evaluated")  # a bug, if ever
        best_path = self.store.best(progress.best["step"])
        load_weights(self.model, load_checkpoint(best_path))
        return FitResult(
            best=progress.best,
            history=progress.history,
            steps=progress.step,
            epochs=progress.epoch,
            finished=progress.finished,
            bad_steps=progress.bad_steps,
            best_path=best_path,
            seconds=seconds,
        )
