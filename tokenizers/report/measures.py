"""What a report measures of a tokenizer: use of codes, bits of its tokens, PSNR of the fields they decode to."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from fields import layout
from fields.activations import OUTPUTS
from fields.metrics.pairs import psnr
from fields.model import values
from fields.signals.base import Signals
from fields.signals.images import Images
from fields.storage.dataset import WeightDataset
from fields.view.render import render
from tokenizers.base import WeightTokenizer
from tokenizers.distortion import find_signals
from tokenizers.selection import draw
from tokenizers.vocab import Counts

BLOCK = 50
"""Shapes at once."""


def held_out_split(data: WeightDataset) -> str:
    """Where a tokenizer is evaluated: validation, else test, else (and the report says so) the training fields."""
    return next(s for s in ("validation", "test", "train") if s in data.splits and len(data.splits[s]))


# -- pictures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeldOutFields:
    """Held-out fields with what their pictures are compared to.

    Attributes:
        against: `the signals`, or why not them.
        targets: per picture size (rows (n,), pictures (n, H, W, C)).
        chosen: (N,) which rows of the split they are.
        before: (N,) dB of the fields as they are; None where pictures are compared with the fields' own.
        shapes: of shapes instead: per block of fields (rows (n,), points (n, M, 3) or (M, 3), values (n, M, 1)).
        source: their signals, where they can be had.
    """

    split: str
    weights: Tensor
    against: str
    chosen: Tensor
    targets: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    before: Tensor | None = None
    fitted: float | None = None
    shapes: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    source: Signals | None = None

    def quality(self, data: WeightDataset, weights: Tensor) -> Tensor:
        """(N,) IoU of other weights for the same fields, of shapes."""
        out = torch.empty(len(weights))
        for rows, points, targets in self.shapes:
            out[rows] = data.kind.quality(data.config, values(data.config, weights[rows], points), targets)
        return out

    def psnr(self, data: WeightDataset, weights: Tensor) -> Tensor:
        """(N,) dB of other weights for the same fields."""
        out = torch.empty(len(weights))
        for rows, pictures in self.targets:
            out[rows] = psnr(render(data.config, weights[rows], *pictures.shape[1:3]), pictures)
        return out


def make_bench(
    data: WeightDataset,
    most: int,
    seed: int,
    signals: str | None,
    data_root: Path | None,
    split: str | None = None,
    chosen: Tensor | None = None,
) -> HeldOutFields:
    """At most `most` held-out fields by seed, or those chosen, and their signals where these can be had without a network."""
    split = split or held_out_split(data)
    data.split(split)
    chosen = draw(len(data.splits[split]), most, seed) if chosen is None else chosen
    weights, sizes = data.weights(split, chosen), data.extent(split)[chosen]
    recorded = data.quality(split)[chosen]
    fitted = float(recorded.mean()) if bool(recorded.isfinite().all()) else None
    if data.kind.name == "shapes":
        return _shapes(data, split, weights, chosen, signals, data_root)
    if data.kind.name != "images" or bool((sizes < 1).any()):
        reason = (
            "no pictures: the dataset records no sizes" if data.kind.name == "images" else "no pictures: not of images"
        )
        return HeldOutFields(split, weights, reason, chosen, fitted=fitted)
    source, against = find_signals(data, signals, data_root)
    names, targets = data.ids(split), []
    places = None if source is None else source.find([names[i] for i in chosen.tolist()])
    for size in torch.unique(sizes, dim=0):
        rows = (sizes == size).all(1).nonzero().flatten()
        if isinstance(source, Images) and places is not None:
            targets.append((rows, source.images(places[rows])))
        else:
            targets.append((rows, render(data.config, weights[rows], *size.tolist())))
    bench = HeldOutFields(split, weights, against, chosen, targets, fitted=fitted)
    if source is None:
        return bench
    return HeldOutFields(split, weights, against, chosen, targets, bench.psnr(data, weights), fitted)


def _shapes(
    data: WeightDataset, split: str, weights: Tensor, chosen: Tensor, signals: str | None, data_root: Path | None
) -> HeldOutFields:
    """Shapes at points of their signals that no fit has seen, or else at random points beside the fields themselves."""
    source, against = find_signals(data, signals, data_root)
    names, found = data.ids(split), []
    places = None if source is None else source.find([names[i] for i in chosen.tolist()])
    for rows in torch.arange(len(weights)).split(BLOCK):
        if source is None or places is None:
            points = data.kind.points(data.config, ())
            targets = values(data.config, weights[rows], points)
            # of a logit the values are probabilities: inside and outside as signals give them
            targets = (targets > 0.5).float() if OUTPUTS[data.config.output].is_logit else targets
        else:
            points, targets = source.measured(data.config, places[rows])
        found.append((rows, points, targets))
    against = against.replace("own render", "own insides")
    bench = HeldOutFields(split, weights, against, chosen, shapes=found, source=source)
    return bench if source is None else replace(bench, before=bench.quality(data, weights))


# -- one row of a report -------------------------------------------------------------------------------------------------------


def measure(
    tokenizer: WeightTokenizer, data: WeightDataset, bench: HeldOutFields, counts: Counts, ids: Tensor | None = None
) -> dict:
    """One row of the report. `counts` are of training tokens; `ids` of the bench's fields, if not by plain encoding."""
    per_code, t, p = counts.per_code(), tokenizer.tokens_per_field, data.config.size
    ids = tokenizer.encode(bench.weights) if ids is None else ids
    decoded = tokenizer.decode(ids).cpu()
    bits = counts.position_bits(ids)
    row = {
        "codes_asked": tokenizer.config.vocab_size,
        "codes_made": tokenizer.codes,
        "codes_used": int((per_code > 0).sum()),
        "perplexity": 2.0 ** counts.marginal_bits(),
        "tokens_per_field": t,
        "bits_per_weight_raw": float(torch.log2(torch.tensor(float(tokenizer.codes)))) * t / p,
        "bits_per_weight_marginal": counts.marginal_bits() * t / p,
        "bits_per_weight_position": bits * t / p,
        "bits_per_field": bits * t,
        "layer_error": layer_errors(tokenizer, bench.weights, decoded) if tokenizer.preserves_weights else [],
    }
    return row | picture_quality(bench, data, decoded)


def picture_quality(bench: HeldOutFields, data: WeightDataset, decoded: Tensor) -> dict:
    """PSNR (IoU of shapes) before and after, mean over fields, and how much the fields lose."""
    if bench.shapes:
        none = dict.fromkeys(("psnr_before", "psnr_after", "psnr_loss", "psnr_loss_worst"))
        reached = bench.quality(data, decoded)
        iou = {"iou_before": None if bench.before is None else float(bench.before.mean())}
        return none | iou | {"iou_after": float(reached.mean()), "iou_worst": float(reached.min())}
    # against the fields' own render the fields themselves have no finite PSNR: what they reach of their signals is another
    before = None if bench.targets and bench.before is None else bench.fitted
    found: dict = {"psnr_before": before, "psnr_after": None, "psnr_loss": None, "psnr_loss_worst": None}
    if not bench.targets:
        return found
    after = bench.psnr(data, decoded)
    found["psnr_after"] = float(after.mean())
    if bench.before is not None:
        loss = bench.before - after
        found |= {"psnr_before": float(bench.before.mean()), "psnr_loss": float(loss.mean())}
        found["psnr_loss_worst"] = float(loss.max())
    return found


def layer_errors(tokenizer: WeightTokenizer, weights: Tensor, decoded: Tensor) -> list[float]:
    """Per layer, the squared error of decoded weights over their variance about the training mean."""
    layers = layout.slots(tokenizer.field)[:, 0]
    error = (weights - decoded).double().square().mean(0)
    spread = (weights - weights.mean(0)).double().square().mean(0)
    return [
        float(error[layers == i].sum() / spread[layers == i].sum().clamp_min(1e-30))
        for i in range(int(layers.max()) + 1)
    ]
