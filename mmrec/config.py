"""How to train: frozen values that JSON and TOML can hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmrec.errors import finite, not_negative, positive, probability, require, whole
from mmrec.io.plain import to_plain

MONITORS = ("auc", "logloss")
SCHEDULES = ("constant", "cosine", "plateau")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")

# What may change before a run is resumed without changing what is computed.
_FREE = frozenset(
    {"epochs", "patience", "keep_last", "max_bad_steps", "device", "progress"}
    | {"log_every", "save_every_steps", "save_every_seconds", "speed"}
)


@dataclass(frozen=True)
class Speed:
    """Switches that change how fast a run is and what it takes, never what it computes.

    Attributes:
        deduplicate: encode each item of a batch once; None = where that pays, on the CPU and for
            large batches (see `Ranker`).
        compact: compute no padding of histories; None likewise (see `Tokens`).
        recompute: patterns of module names (`fnmatch`, e.g. `"sequence*.layers.*"`) whose
            activations are computed again in the backward pass instead of kept: the same
            gradients for less memory and more time.
        workers: processes that read batches; 0 = this one.
    """

    deduplicate: bool | None = None
    compact: bool | None = None
    recompute: tuple[str, ...] = ()
    workers: int = 0

    def __post_init__(self) -> None:
        not_negative(workers=self.workers)


@dataclass(frozen=True)
class TrainConfig:
    """Settings of `fit`.

    Attributes:
        epochs: passes over the training rows, at most.
        learning_rate: of Adam, for everything that no other entry names.
        weight_decay: of weight matrices (never of biases and norms).
        embedding_learning_rate, embedding_weight_decay: of `nn.Embedding` and `nn.EmbeddingBag`
            tables; None means the same as the rest.
        groups: pattern of parameter names (`fnmatch`, e.g. `"*fusion*"`) -> {"learning_rate": …,
            "weight_decay": …}; the first that matches wins over everything above.
        decoupled: weight decay as in AdamW (True) or as an L2 term in the gradient (False).
        betas, eps: of Adam.
        clip_norm: gradients are scaled down to this global norm; None leaves them.
        schedule: "constant", "cosine" (to `final_lr_share` at the last step) or "plateau" (times
            `plateau_factor` after `plateau_patience` evaluations without a better monitor).
        warmup_steps: linear rise of the learning rate at the start, with any schedule.
        accumulate: batches whose gradients make one step.
        ema_decay: exponential moving average of the weights, evaluated and kept as best in their
            place; None for none.
        monitor: what selects the best checkpoint and stops early: "auc" or "logloss", of several
            tasks their mean; "task/auc" or "task/logloss" of one of them.
        task_weights: name of a task -> its weight in the loss; 1 where none is given.
        patience: evaluations without a better monitor before stopping; None for never.
        evaluate_every: also evaluate every that many steps, not only after each epoch.
        precision: "auto" is bfloat16 on CUDA where the card has it, else float16 with loss
            scaling; float32 on the CPU.
        compile: run the model through `torch.compile`.
        device: "auto" is CUDA where there is one.
        seed: of dropout, with the step and rank. (The order of rows is the loader's.)
        log_every: steps between looks at the device (loss, guards, log lines).
        save_every_steps, save_every_seconds: checkpoints inside an epoch; None for none.
        keep_last: newest checkpoints kept; the best one is kept besides.
        max_bad_steps: skipped steps in a row (loss or gradient not finite) before giving up.
        progress: a tqdm bar on stderr.
        speed: see `Speed`; no part of what a resumed run must share.
    """

    epochs: int = 10
    learning_rate: float = 5e-4
    weight_decay: float = 0.0
    embedding_learning_rate: float | None = None
    embedding_weight_decay: float | None = None
    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    decoupled: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip_norm: float | None = 10.0
    schedule: str = "constant"
    warmup_steps: int = 0
    final_lr_share: float = 0.0
    plateau_factor: float = 0.1
    plateau_patience: int = 0
    accumulate: int = 1
    ema_decay: float | None = None
    monitor: str = "auc"
    task_weights: Mapping[str, float] = field(default_factory=dict)
    patience: int | None = 2
    evaluate_every: int | None = None
    precision: str = "auto"
    compile: bool = False
    device: str = "auto"
    seed: int = 0
    log_every: int = 50
    save_every_steps: int | None = None
    save_every_seconds: float | None = 600.0
    keep_last: int = 2
    max_bad_steps: int = 5
    progress: bool = True
    speed: Speed = Speed()

    def __post_init__(self) -> None:
        require(
            isinstance(self.monitor, str) and self.metric in MONITORS,
            f"monitor must be auc or logloss, or task/auc or task/logloss, got {self.monitor!r}",
        )
        for name, allowed in (("schedule", SCHEDULES), ("precision", PRECISIONS)):
            require(
                getattr(self, name) in allowed,
                f"{name} must be one of {allowed}, got {getattr(self, name)!r}",
            )
        names = ("epochs", "accumulate", "log_every", "keep_last", "max_bad_steps")
        positive(**{name: getattr(self, name) for name in names})
        seed = whole("seed", self.seed)
        good = -(2**63) <= seed < 2**64  # what torch takes
        require(good, f"seed must be a whole number from -2**63 to 2**64 - 1, got {seed}")
        not_negative(warmup_steps=self.warmup_steps, plateau_patience=self.plateau_patience)
        for name in ("evaluate_every", "save_every_steps", "patience"):
            if getattr(self, name) is not None:
                positive(**{name: getattr(self, name)})
        names = ("learning_rate", "weight_decay", "eps", "final_lr_share", "plateau_factor")
        finite(**{name: getattr(self, name) for name in names})
        optional = ("embedding_learning_rate", "embedding_weight_decay", "save_every_seconds")
        for name in optional:
            if getattr(self, name) is not None:
                finite(**{name: getattr(self, name)})
        if self.clip_norm is not None:
            finite(clip_norm=self.clip_norm)
            require(self.clip_norm > 0, "clip_norm must be above 0 or None, got 0")
        if self.ema_decay is not None:
            probability(ema_decay=self.ema_decay)
            require(self.ema_decay, "ema_decay must lie between 0 and 1, got 0")
        for task, weight in self.task_weights.items():
            require(
                isinstance(weight, int | float) and weight >= 0,
                f"task_weights must not be negative, got {weight} for {task}",
            )
        for pattern, options in self.groups.items():
            unknown = sorted(set(options) - {"learning_rate", "weight_decay"})
            require(not unknown, f"group {pattern!r} has unknown settings {unknown}")

    @property
    def metric(self) -> str:
        """What `monitor` is of its task: "auc" or "logloss"."""
        return self.monitor.rpartition("/")[2]

    def binding(self) -> dict[str, Any]:
        """The settings that a resumed run must share with what it resumes."""
        free = _FREE - {"epochs"} if self.schedule == "cosine" else _FREE
        return {name: value for name, value in to_plain(self).items() if name not in free}
