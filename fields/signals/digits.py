"""The 1,797 pictures of digits inside scikit-learn: no download, fitted within seconds."""

import numpy as np
import torch

from fields.signals.base import held_out
from fields.signals.images import Images
from fields.signals.options import DIGITS, SignalsConfig

HELD_OUT = 180  # of 1,797, for validation and again for test


def load_digits(config: SignalsConfig) -> Images:
    """Pictures of 8 x 8 with values 0 .. 16."""
    from sklearn import datasets

    data = datasets.load_digits()
    split = held_out(len(data.images), config.split_seed, HELD_OUT, HELD_OUT)
    return Images(
        "digits",
        [f"digits/{i}" for i in range(len(split))],
        split,
        torch.from_numpy(data.images.astype(np.uint8))[..., None],
        labels=torch.from_numpy(data.target.astype(np.int64)),
        label_names=DIGITS,
        full_scale=16,
        split_seed=config.split_seed,
    )
