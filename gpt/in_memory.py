"""Training, sampling and evaluation in memory: no folders, no launcher, no configuration files.

model = fit_gpt(ids, tokenizer, steps=500)
rows = sample(model, tokenizer, n=64)  # rows.weights: (64, P)
table = evaluate(pictures, references)
"""

from typing import Any

import torch
from torch import Tensor

from fields.runtime.console import bar
from fields.signals.images import as_pictures
from fields.storage.rows import Rows
from gpt.data import Sequences
from gpt.evaluation.items import SignalSet, check_shapes
from gpt.evaluation.scores import Scorer
from gpt.model import GPT, GPTConfig
from gpt.options import ModelConfig, OptimizerConfig
from gpt.sampling.generate import sample_ids
from gpt.token_task import TokenTask
from gpt.training.local import Local
from gpt.training.priors import initialise_from_counts
from gpt.training.schedule import warmup_steps
from gpt.training.trainer import Trainer
from tokenizers.vocab import Vocab


def fit_gpt(
    ids: Tensor,
    tokenizer: Any = None,
    *,
    codes: int | None = None,
    labels: Tensor | None = None,
    held_out: Tensor | None = None,
    held_out_labels: Tensor | None = None,
    model: ModelConfig | None = None,
    steps: int = 1000,
    device: str = "cpu",
    progress: bool = True,
    **settings: Any,
) -> GPT:
    """Train a GPT on rows of codes.

    Args:
        ids: (N, T) int64 codes.
        tokenizer: the one that made them; it gives the number of codes, the place of each token, and which codes are
            close. Without one give `codes`.
        codes: V, if no tokenizer is given.
        labels: (N,) int64 classes, 0 or more, so that samples can be asked for by class.
        held_out: (M, T) codes to validate on; the best model is then returned, otherwise the last one.
        held_out_labels: (M,) their classes, if there are labels.
        model: sizes.
        steps: of the optimiser.
        device: where to train.
        progress: show a bar.
        settings: further options of `gpt.options.OptimizerConfig`: batch, lr, seed, ema, eval_every, ...
    Returns:
        The model in evaluation mode, on the CPU.
    Raises:
        ValueError: for codes outside the vocabulary, or without tokenizer and codes.
    """
    if tokenizer is None and codes is None:
        raise ValueError("fit_gpt needs the tokenizer that made the ids, or codes=V, the number of different codes.")
    if held_out is not None and (labels is None) != (held_out_labels is None):
        raise ValueError("labels and held_out_labels are needed together, or neither of them.")
    sizes, config = model or ModelConfig(), OptimizerConfig(steps=steps, **settings)
    v = tokenizer.codes if codes is None else codes
    width = None if tokenizer is None else tokenizer.tokens_per_field
    ids = _codes("ids", ids, width)
    held_out = None if held_out is None else _codes("held_out", held_out, ids.shape[1])
    labels, held_out_labels = (
        _classes(labels, len(ids)),
        _classes(held_out_labels, len(() if held_out is None else held_out)),
    )
    classes = max((int(known.max()) + 1 for known in (labels, held_out_labels) if known is not None), default=0)
    vocab = Vocab(v, classes)
    train = Sequences(ids, vocab, labels)
    other = None if held_out is None else Sequences(held_out, vocab, held_out_labels)
    slots = torch.zeros(ids.shape[1], 0).long() if tokenizer is None else tokenizer.slots
    slot_sizes = () if tokenizer is None else tuple(tokenizer.slot_sizes)
    made = {name: getattr(sizes, name) for name in ModelConfig.__dataclass_fields__ if name != "similar"}
    fresh = GPT.create(GPTConfig(v, ids.shape[1], slot_sizes, classes, **made), slots, config.seed)
    near = tokenizer.code_vectors if tokenizer is not None and sizes.similar else None
    initialise_from_counts(fresh, train, near, config.seed)
    weights = ids.shape[1] if tokenizer is None else tokenizer.field.size
    task = TokenTask(fresh, train, other, weights, config.eval_fields, config.token_noise, config.label_dropout)
    trainer = Trainer(config, task, Local(device))
    with bar(total=steps, desc="GPT", unit="step", quiet=not progress) as shown:

        def tick(values: dict[str, Any]) -> None:
            shown.update()
            shown.set_postfix_str(f"loss {values['loss']:.3f} nats/token", refresh=False)

        trainer.run(steps, warmup_steps(config.warmup, steps), progress=tick)
    return (trainer.best or trainer.usable()).cpu()


def _codes(name: str, given: Any, width: int | None) -> Tensor:
    """(N, T) integers from a tensor, array or list of lists."""
    ids = torch.as_tensor(given)
    if ids.ndim != 2 or not ids.numel() or (width is not None and ids.shape[1] != width):
        raise ValueError(f"{name} must have shape (N, {width or 'T'}), N at least 1, got {tuple(ids.shape)}.")
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, the codes that tokenizer.encode gives; got {ids.dtype}.")
    return ids.long()


def _classes(given: Any, n: int) -> Tensor | None:
    """(n,) class numbers, None where there are none."""
    try:
        labels = None if given is None else torch.as_tensor(given).long()
    except (TypeError, ValueError):
        raise ValueError(
            "labels must be numbers, the first class 0; number names with numpy.unique(labels, return_inverse=True)[1]."
        ) from None
    if labels is not None and labels.shape != (n,):
        raise ValueError(f"labels must be one number for each of {n} fields, got shape {tuple(labels.shape)}.")
    return labels


def sample(model: GPT, tokenizer: Any, n: int = 64, *, seed: int = 0, label: int | None = None, **rules: Any) -> Rows:
    """New fields from a GPT.

    Args:
        model: trained on the tokenizer's codes.
        tokenizer: decodes them.
        n: fields.
        seed: field i is the same for every n.
        label: class of the fields, for models trained with labels; None = drawn by the model.
        rules: temperature, top_k, top_p, grammar, ...: those of `gpt.sampling.generate.sample_ids`.
    Returns:
        Rows of the readable fields; `seeds` holds their indices.
    Raises:
        ValueError: if model and tokenizer do not belong together, or a setting is out of range.
    """
    if not isinstance(model, GPT) or tokenizer is None:
        raise ValueError(
            f"sample takes a GPT and its tokenizer, got {type(model).__name__} and {type(tokenizer).__name__}."
        )
    c = model.config
    if (tokenizer.codes, tokenizer.tokens_per_field) != (c.codes, c.tokens_per_field):
        raise ValueError(
            f"the model makes {c.tokens_per_field} tokens of {c.codes} codes, the tokenizer reads "
            f"{tokenizer.tokens_per_field} of {tokenizer.codes}. Give the tokenizer it was trained with."
        )
    draws = sample_ids(model, n, seed=seed, label=label, **rules)
    draws = draws.pick(draws.complete)
    labels = draws.labels if c.labels else None
    ids = [f"sample/{seed}/{i}" for i in draws.index.tolist()]
    return Rows(tokenizer.decode(draws.codes), ids=ids, labels=labels, seeds=draws.index)


@torch.no_grad()
def evaluate(samples: Tensor, references: Tensor, *, classifier: Any = None, seed: int = 0) -> dict[str, Any]:
    """Compare a set of pictures with a set of references: MMD, COV and 1-NNA under each distance, and FID.

    Args:
        samples: (N, H, W) or (N, H, W, C), uint8 or floats in [0, 1]; those that hold NaN count as unreadable.
        references: (M, H, W) or (M, H, W, C); the first min(N, M) of each are compared.
        classifier: a `gpt.evaluation.features.Classifier`, for FID.
        seed: of the intervals.
    Returns:
        distance -> metric -> value, low, high, note; `fid`; `n`.
    Raises:
        ValueError: for other shapes or values, or sets of different sizes of pictures.
    """
    row, other = (
        SignalSet(name, _pictures(given), kind=name).readable()
        for name, given in (("samples", samples), ("references", references))
    )
    check_shapes(row, other)
    return Scorer(other, classifier, seed).line(row)


def _pictures(given: Any) -> Tensor:
    """(N, H, W, C) float32 of about [0, 1], or NaN, on the CPU."""
    pictures = as_pictures(given, rendered=True).cpu()
    return pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures
