"""Codecs of the pictures themselves, with no field in between: what bits and decibels of tokens are worth.

The Karhunen-Loève transform is the best linear transform for pictures of one kind; its coefficients are rounded with one step
and charged by counts, as tokens are. Lossless WebP is what a file format makes of each picture alone.
"""

import io
import math
from pathlib import Path

import torch
from torch import Tensor

from fields.metrics.pairs import psnr
from fields.signals.images import Images
from fields.storage.dataset import WeightDataset
from fields.view.render import to_pil
from tokenizers.distortion import find_signals
from tokenizers.report.measures import HeldOutFields
from tokenizers.selection import draw

RATES = (192, 384, 768)
"""Bits of a picture at which the transform is shown."""
HALVINGS = 12
"""Bisections of the step for a rate."""
FILES = 500
"""Pictures written as WebP."""
WIDEST = 4096
"""Numbers of a picture at most: the transform is a matrix of their square."""


def codec_rows(train: Tensor, held_out: Tensor, rates: tuple[float, ...] = RATES) -> list[dict]:
    """Lines for a table of bits and PSNR: name, kind, bits_per_field, psnr_after (None where nothing is lost).

    Args:
        train: (N, H, W, C) training pictures in [0, 1], for transform and counts.
        held_out: (M, H, W, C) pictures that are coded.
        rates: bits of a picture.
    """
    rows = []
    if math.prod(train.shape[1:]) <= WIDEST and len(train) > 1:
        transform = Transform(train)
        for rate in rates:
            bits, decibels = transform.at_rate(held_out, rate)
            rows.append(
                {"name": f"KLT of pixels, {rate:.0f}", "kind": "pixels", "bits_per_field": bits, "psnr_after": decibels}
            )
    bits = sum(map(webp_bits, held_out[:FILES])) / len(held_out[:FILES])
    return [*rows, {"name": "lossless WebP", "kind": "lossless", "bits_per_field": bits, "psnr_after": None}]


class Transform:
    """Principal components of pictures, rounded with one step for all.

    Args:
        train: (N, H, W, C) training pictures.
    """

    def __init__(self, train: Tensor):
        rows = train.flatten(1).double()
        self.mean = rows.mean(0)
        self.axes = torch.linalg.eigh((rows - self.mean).T @ (rows - self.mean))[1]
        self.coefficients = (rows - self.mean) @ self.axes

    def at_rate(self, pictures: Tensor, rate: float) -> tuple[float, float]:
        """Bits of a picture and mean PSNR with the step whose bits are nearest to `rate` from below."""
        low, high = 1e-3, 1e1  # a step too fine, and one too coarse
        for _ in range(HALVINGS):
            step = math.sqrt(low * high)
            low, high = (step, high) if self.at_step(pictures, step)[0] > rate else (low, step)
        return self.at_step(pictures, high)

    def at_step(self, pictures: Tensor, step: float) -> tuple[float, float]:
        """Bits under each coefficient's training counts plus 1, and mean PSNR."""
        known = (self.coefficients / step).round()
        least, most = known.amin(0), known.amax(0)
        codes = ((pictures.flatten(1).double() - self.mean) @ self.axes / step).round().clamp(least, most)
        bits = 0.0
        for i in (most > least).nonzero().flatten().tolist():  # a coefficient that is always 0 costs nothing
            counts = torch.bincount((known[:, i] - least[i]).long(), minlength=int(most[i] - least[i]) + 1) + 1.0
            bits -= float((counts / counts.sum()).log2()[(codes[:, i] - least[i]).long()].mean())
        decoded = (codes * step @ self.axes.T + self.mean).clamp(0, 1).view(pictures.shape).float()
        return bits, float(psnr(decoded, pictures).mean())


def rows_beside(
    bench: HeldOutFields, data: WeightDataset, counted: int, seed: int, signals: str | None, data_root: Path | None
) -> list[dict]:
    """`codec_rows` of a bench's pictures; none where the signals are not at hand or differ in size.

    Args:
        bench: held-out fields and their pictures.
        data: the fields, whose training split says which pictures may be learnt from.
        counted: training pictures used at most, drawn by `seed`.
        signals, data_root: where the pictures lie, as for the bench.
    """
    if bench.before is None or len(bench.targets) != 1:
        return []
    names = [name for name in dict.fromkeys(data.ids("train")) if name]
    source = find_signals(data, signals, data_root)[0]
    if not names or not isinstance(source, Images):
        return []
    places = source.find([names[i] for i in draw(len(names), counted, seed).tolist()])
    pictures = bench.targets[0][1]
    if (source.extent[places] != torch.tensor(pictures.shape[1:3])).any():
        return []
    return codec_rows(source.images(places), pictures)


def webp_bits(picture: Tensor) -> int:
    """Bits of one (H, W, C) picture as a lossless WebP file."""
    file = io.BytesIO()
    to_pil(picture).save(file, "WEBP", lossless=True, quality=100, method=6)
    return 8 * file.tell()
