"""How far decoded fields are from the original ones, or from their signals, measured by values and not by weights."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fields.activations import OUTPUTS
from fields.model import FieldConfig, forward, to_values, values
from fields.signals.base import Signals
from fields.signals.origin import locate
from fields.signals.registry import load_signals, refuse_others
from fields.storage.dataset import WeightDataset


def distortion(field: FieldConfig, decoded: Tensor, original: Tensor, coords: Tensor, spread: float) -> Tensor:
    """Loss between decoded and original fields: of logits the mean KL divergence, else squared error over `spread`.

    Args:
        field: the architecture of both.
        decoded, original: (N, P) rows; gradients reach `decoded` only.
        coords: (M, in_dim).
        spread: variance of the values.
    """
    with torch.no_grad():
        wanted = values(field, original, coords)
    output = forward(field, decoded, coords)
    if not OUTPUTS[field.output].is_logit:
        return F.mse_loss(to_values(field, output), wanted) / spread
    entropy = -(torch.xlogy(wanted, wanted) + torch.xlogy(1 - wanted, 1 - wanted)).mean()
    return F.binary_cross_entropy_with_logits(output, wanted) - entropy


def errors_of(config: FieldConfig, weights: Tensor, targets: Tensor, coords: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared error of each field, and its loss above the best possible one (for logits the mean KL); both (n,)."""
    said = values(config, weights, coords)
    error = (said - targets).square().mean((1, 2)).clamp_min(1e-10)
    if not OUTPUTS[config.output].is_logit:
        return error, error
    said = said.clamp(1e-6, 1 - 1e-6)
    loss = -(targets * said.log() + (1 - targets) * (1 - said).log())
    best = -(torch.xlogy(targets, targets) + torch.xlogy(1 - targets, 1 - targets))
    return error, (loss - best).mean((1, 2)).clamp_min(1e-10)


def find_signals(data: WeightDataset, signals: str | None, data_root: Path | None) -> tuple[Signals | None, str]:
    """The signals by name, or None and what is compared instead."""
    own = "the fields' own render"
    config, missing = locate(data.signals, data.origin, signals, data_root)
    if config is None:
        return None, f"{own} ({missing})"
    name = config.signals
    if signals is None and config.data_root is None and data.origin is None and name != "digits":
        hint = "--data-root DIR" if name in ("mnist", "fashion-mnist") else "--signals FOLDER"
        return None, f"{own} (give {hint} to compare with the signals)"  # nothing is fetched for this
    found = load_signals(config)
    try:
        refuse_others(data.signals, (i for split in data.splits if split != "samples" for i in data.ids(split)), found)
    except ValueError:
        if signals is not None or data_root is not None:
            raise
        return None, f"{own} (the signals called {name} at hand are others; give --signals FOLDER to compare with them)"
    return found, "the signals"
