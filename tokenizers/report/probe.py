"""How much of the class can be read from the weights, and from the tokens: a linear probe on each."""

import torch
from torch import Tensor

from fields.storage.dataset import WeightDataset
from tokenizers.base import WeightTokenizer
from tokenizers.selection import draw

MOST = 10_000
"""Training rows the probe learns from, drawn by seed; it takes seconds then."""
VALUES = 64_000_000
"""Weights it holds at most: fields of more than VALUES / MOST weights enter in smaller numbers."""


def probe(tokenizer: WeightTokenizer, data: WeightDataset, split: str, *, seed: int = 0, most: int = MOST) -> dict:
    """Accuracy on held-out fields of a ridge classifier (scikit-learn) on standardised rows, before and after coding.

    Tokens enter as their codes' centroids, that is as the standardised rows they decode to. Both see the same fields. Where a
    tokenizer decodes to another row of the same function, weights are standardised by the probe's own training rows.

    Returns:
        weights, tokens (shares right), chance (share of the largest held-out class), rows and held_out; or only
        `skipped`, the reason.
    """
    labels, held_labels = _labels(data, "train"), _labels(data, split)
    if labels is None or held_labels is None:
        return {"skipped": "the fields have no labels"}
    if split == "train":
        return {"skipped": "there are no held-out fields"}
    most = min(most, max(1, VALUES // data.config.size))
    known = (labels >= 0).nonzero().flatten()
    rows = known[draw(len(known), most, seed)]
    held = (held_labels >= 0).nonzero().flatten()
    held = held[draw(len(held), most, seed + 1)]
    if len(labels[rows].unique()) < 2 or len(held) == 0:
        return {"skipped": "fewer than two classes are labelled"}
    scores = {}
    for name in ("weights", "tokens"):
        x, y = (_features(tokenizer, data.weights(s, i), name) for s, i in (("train", rows), (split, held)))
        if name == "weights" and not tokenizer.preserves_weights:
            mean, std = x.mean(0), x.std(0, correction=0)
            x, y = ((z - mean) / std.clamp_min(1e-12) * (std > 0) for z in (x, y))
        scores[name] = _accuracy(x, labels[rows], y, held_labels[held])
    chance = float(held_labels[held].bincount().max()) / len(held)
    return {**scores, "chance": chance, "rows": len(rows), "held_out": len(held), "model": "ridge classifier"}


def _labels(data: WeightDataset, split: str) -> Tensor | None:
    return data.labels(split) if split in data.splits else None


def _features(tokenizer: WeightTokenizer, weights: Tensor, what: str) -> Tensor:
    """(N, P) float64 standardised rows, as they are or after coding."""
    if what == "tokens":
        weights = tokenizer.decode(tokenizer.encode(weights)).cpu()
    if what == "weights" and not tokenizer.preserves_weights:
        return weights.double()
    return tokenizer.standardizer(weights.to(tokenizer.n_codes.device)).cpu().double()


def _accuracy(x: Tensor, labels: Tensor, y: Tensor, held_labels: Tensor) -> float:
    from sklearn.linear_model import RidgeClassifier  # slow to import

    scale = x.std(0).mean().clamp_min(1e-12)
    model = RidgeClassifier(alpha=float(len(x)) ** 0.5, solver="cholesky").fit((x / scale).numpy(), labels.numpy())
    return float((torch.from_numpy(model.predict((y / scale).numpy())) == held_labels).double().mean())
