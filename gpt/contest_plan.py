"""How many steps each GPT of a contest gets: --minutes as steps, measured side by side before the first training.

Measured one by one, on a machine that also does other things, a vocabulary would get as many steps as the machine had
time while it was measured. So passes of all GPTs take turns, and the fastest pass of each counts. Training then takes
as long as asked for on a machine that does nothing else, and longer for all alike on one that does.
"""

from dataclasses import replace
from typing import Any

from accelerate import DistributedDataParallelKwargs

from fields.launch import start
from gpt.corpus import load_corpus
from gpt.loop import OVERHEAD
from gpt.processes import alike, on_main
from gpt.train import TrainConfig, make_trainer, sources

ROUNDS = 12
"""Passes of each GPT; the first ones are slow."""


def seconds_per_step(trainings: list[TrainConfig], **launch: Any) -> list[float]:
    """The fastest step of each training, measured in turns; to be called by all processes.

    Args:
        trainings: of GPTs that are all held in memory, with their tokens.
        launch: threads and precision.
    """
    handlers = [DistributedDataParallelKwargs(broadcast_buffers=False)]
    accelerator = start(**launch, quiet=True, kwargs_handlers=handlers)
    trainers = []
    for config in trainings:
        corpus = alike(accelerator, load_corpus, *sources(config), config.labels)
        small = replace(corpus, tokens=None, held_out=None)  # neither is needed here
        trainers.append(alike(accelerator, make_trainer, config, small, accelerator))
    times = [[trainer.seconds_of_pass(step) for trainer in trainers] for step in range(1, ROUNDS + 1)]
    fastest = [OVERHEAD * min(seen) for seen in zip(*times, strict=True)]
    return on_main(accelerator, lambda: fastest)  # the main process' clock


def steps_within(minutes: float, seconds: float, most: int | None) -> int:
    """Steps of so many seconds in so many minutes, at least one and at most `most`."""
    steps = max(1, int(minutes * 60 / seconds))
    return steps if most is None else min(steps, most)
