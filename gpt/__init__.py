"""Transformers over the tokens of neural fields: training, sampling, evaluation.

In memory:

    model = fit_gpt(ids, tokenizer, steps=500)  # ids (N, T) of a tokenizer
    rows = sample(model, tokenizer, n=64)  # rows.weights (64, P)
    table = evaluate(pictures, references)  # each (N, H, W, C)

With folders: `load_model`, `train(TrainConfig(...))`, `sample_folder(SampleConfig(...))`,
`evaluate_folder(EvaluateConfig(...))`, which are also the commands in scripts/. Names are imported on first use.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "GPT": "model:GPT",
    "GPTConfig": "model:GPTConfig",
    "MODELS": "checkpoint:MODELS",
    "load_model": "checkpoint:load_model",
    "save_model": "checkpoint:save_model",
    "fit_gpt": "in_memory:fit_gpt",
    "sample": "in_memory:sample",
    "evaluate": "in_memory:evaluate",
    "sample_ids": "sampling.generate:sample_ids",
    "ModelConfig": "train_gpt:ModelConfig",
    "TrainConfig": "train_gpt:TrainConfig",
    "train": "train_gpt:train",
    "SampleConfig": "sampling.sample:SampleConfig",
    "sample_folder": "sampling.sample:sample",
    "EvaluateConfig": "evaluation.config:EvaluateConfig",
    "evaluate_folder": "evaluation.evaluate:evaluate",
    "Trainer": "training.trainer:Trainer",
    "LoopConfig": "training.trainer:LoopConfig",
    "Task": "training.task:Task",
    "RegressionTransformer": "continuous.regression:RegressionTransformer",
}
"""Public name -> module and name there."""
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}.")
    module, attribute = _HOMES[name].split(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return __all__
