"""Transformers over the tokens of neural fields: training, sampling, evaluation.

In memory:

    model = fit_gpt(ids, tokenizer, steps=500)  # ids (N, T) of a tokenizer
    rows = sample(model, tokenizer, n=64)  # rows.weights (64, P)
    table = evaluate(pictures, references)  # each (N, H, W, C)

With folders: `load_model`, `train(TrainConfig(...))`, `sample_folder(SampleConfig(...))`,
`evaluate_folder(EvaluateConfig(...))`, which are also the commands in scripts/. Names are imported on first use.
"""

from fields.runtime.contents import contents

_HOMES = {
    "GPT": "model",
    "GPTConfig": "model",
    "MODELS": "checkpoint",
    "load_model": "checkpoint",
    "save_model": "checkpoint",
    "fit_gpt": "in_memory",
    "sample": "in_memory",
    "evaluate": "in_memory",
    "sample_ids": "sampling.generate",
    "ModelConfig": "options",
    "TrainConfig": "options",
    "train": "train_gpt",
    "SampleConfig": "sampling.options",
    "sample_folder": "sampling.sample:sample",
    "EvaluateConfig": "options",
    "evaluate_folder": "evaluation.evaluate:evaluate",
    "Trainer": "training.trainer",
    "LoopConfig": "options",
    "Task": "training.task",
    "RegressionTransformer": "continuous.regression",
    "Flow": "continuous.flow",
}
"""Public name -> module and name there."""
__all__ = sorted(_HOMES)
__getattr__, __dir__ = contents(__name__, _HOMES)
