"""Learning-rate schedules: a factor on every group's base rate."""

import math

from mmrec.config import TrainConfig


def rate_factor(config: TrainConfig, step: int, *, total_steps: int, plateau: float = 1.0) -> float:
    """warm-up(step) · shape(step), for the step that follows `step` finished ones.

    Args:
        plateau: what evaluations without a better monitor have brought the rate down to, the shape
            of the schedule "plateau".

    >>> config = TrainConfig(schedule="cosine", warmup_steps=2)
    >>> [round(rate_factor(config, step, total_steps=12), 2) for step in (0, 1, 2, 7, 12)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "plateau":
        return warm * plateau
    if config.schedule == "constant" or step < config.warmup_steps:
        return warm
    span = max(1, total_steps - config.warmup_steps)
    share = min(1.0, (step - config.warmup_steps) / span)
    low = config.final_lr_share
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * share))
