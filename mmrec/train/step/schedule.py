"""Learning-rate schedules: a factor on every group's base rate."""

import math

from mmrec.config import TrainConfig


class Schedule:
    """factor(step) = warm-up(step) · shape(step); "plateau" also listens to evaluations.

    Warm-up and cosine are pure functions of the step; plateau's state is `state`, JSON-able.

    >>> schedule = Schedule(TrainConfig(schedule="cosine", warmup_steps=2), total_steps=12)
    >>> [round(schedule.factor(step), 2) for step in (0, 1, 2, 7, 12)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """

    def __init__(self, config: TrainConfig, *, total_steps: int) -> None:
        self.config, self.total_steps = config, total_steps
        self.state: dict[str, float] = {"factor": 1.0, "waited": 0}

    def factor(self, step: int) -> float:
        """What to multiply base rates with in the step that follows `step` finished ones."""
        config = self.config
        warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
        if config.schedule == "plateau":
            return warm * self.state["factor"]
        if config.schedule == "constant" or step < config.warmup_steps:
            return warm
        span = max(1, self.total_steps - config.warmup_steps)
        share = min(1.0, (step - config.warmup_steps) / span)
        low = config.final_lr_share
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * share))

    def observe(self, *, improved: bool) -> None:
        """Tell of an evaluation."""
        if improved:
            self.state["waited"] = 0
            return
        self.state["waited"] += 1
        if self.state["waited"] > self.config.plateau_patience:
            self.state = {"factor": self.state["factor"] * self.config.plateau_factor, "waited": 0}
