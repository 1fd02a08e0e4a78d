"""The learning rate as a pure function of the step; no prepared scheduler: accelerate steps those once per process."""

import math


def warmup_steps(asked: int | None, steps: int) -> int:
    """Warm-up steps: as asked, else a twentieth of the run."""
    return min(steps // 20, 200) if asked is None else asked


def learning_rate(step: int, *, steps: int, warmup: int, top: float, least: float) -> float:
    """Linear warm-up to `top`, then a cosine down to `least`, reached exactly at the last step.

    Args:
        step: 1 .. steps, the optimiser step about to be made.
        steps: of the whole run.
        warmup: steps until `top`.
        top: highest rate.
        least: rate of the last step.
    """
    if step <= warmup:
        return top * step / warmup
    if step >= steps:
        return least
    share = (step - warmup) / (steps - warmup)
    return least + (top - least) * 0.5 * (1.0 + math.cos(math.pi * share))
