"""Refit: codes changed after encoding so that the decoded field matches its signal best.

Encoding rounds each number on its own; the field's values depend on all of them together. Refit keeps the numbers behind
the codes, passes the gradient of the decoded field's loss straight through the rounding to them (arXiv:1308.3432), and
remembers each field's best codes. Where codes are ordered numbers, a code's length under its position's training counts
enters the loss, so that bits are not spent where they do not change the values.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from fields.fitting import engine
from fields.kinds.registry import kind_of
from fields.model import random_points, values
from fields.runtime.resources import share
from fields.signals.images import Images, grid
from fields.storage.dataset import WeightDataset
from tokenizers.base import WeightTokenizer
from tokenizers.distortion import errors_of, find_signals
from tokenizers.options import RefitConfig
from tokenizers.selection import draw
from tokenizers.vocab import Counts

BLOCK, WIDE = 128, 1024
"""Fields refitted side by side: as many as fit the cache, and as many as fill a GPU."""
COUNTED = 5000
"""Training fields whose codes set the lengths of codes."""
LOOK = 3
"""Steps between evaluations on all points."""
POINTS = 1024
"""Points of a field without pictures."""
BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class Refit:
    """Refit of the fields of one dataset with one tokenizer.

    Attributes:
        tokenizer: on the device of the computation; plain codes and results are on the CPU.
        lengths: (T, V) bits of each code at each position; None if codes are not ordered numbers.
        signals: what the fields were fitted to; None if not available.
    """

    tokenizer: WeightTokenizer
    config: RefitConfig
    lengths: Tensor | None = None
    signals: Images | None = None
    points: dict[tuple[int, int], engine.Points] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        tokenizer: WeightTokenizer,
        data: WeightDataset,
        config: RefitConfig,
        signals: str | None = None,
        data_root: Path | None = None,
        device: torch.device | str = "cpu",
    ) -> "Refit":
        """Look up the signals, and count codes of training fields; `tokenizer` is not moved."""
        source, against = find_signals(data, signals, data_root)
        if not isinstance(source, Images):
            source, against = None, against if source is None else "the fields' own values"
        print(f"refit matches {against}")
        lengths = None
        if tokenizer.has_ordered_codes and config.refit_rate > 0 and "train" in data.splits:
            rows = data.weights("train", draw(len(data.splits["train"]), COUNTED, tokenizer.config.seed))
            counts = Counts(tokenizer.tokens_per_field, tokenizer.codes)
            counts.add(tokenizer.encode(rows))
            lengths = counts.lengths().to(device)
        if tokenizer.n_codes.device != torch.device(device):
            tokenizer = deepcopy(tokenizer).to(device)
        return cls(tokenizer, config, lengths, source)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.tokenizer.n_codes.device

    def __call__(
        self,
        weights: Tensor,
        ids: Tensor,
        names: Sequence[str],
        sizes: Tensor,
        done: Callable[[int], object] = lambda n: None,
    ) -> Tensor:
        """Better codes.

        Args:
            weights: (N, P) fields, on the CPU.
            ids: (N, T) their plain codes, on the CPU.
            names: of their signals.
            sizes: (N, 2) height and width.
            done: called with the number of fields after each block.
        Returns:
            (N, T) int64.
        """
        out, cpu = ids.clone(), self.device.type == "cpu"
        places = self.signals.find(names) if self.signals is not None else None
        jobs: list[tuple[Tensor, engine.Points]] = []
        for size in torch.unique(sizes, dim=0):
            rows = (sizes == size).all(1).nonzero().flatten()
            points = self._points(*size.tolist())
            jobs += [(block, points) for block in rows.split(BLOCK if cpu else WIDE)]

        def work(job: int) -> None:
            rows, points = jobs[job]
            fields, plain = weights[rows].to(self.device), ids[rows].to(self.device)
            if self.signals is None or places is None:
                targets = values(self.tokenizer.field, fields, points.coords)
            else:
                targets = self.signals.images(places[rows]).flatten(1, 2).to(self.device)  # (n, M, C)
            out[rows] = self.block(fields, plain, targets, points).cpu()
            done(len(rows))

        share(work, range(len(jobs)), torch.get_num_threads() if cpu else 1)
        return out

    def _points(self, height: int, width: int) -> engine.Points:
        """The pixels of a picture, or random points where there is none."""
        if (height, width) not in self.points:
            c = self.tokenizer.field
            if kind_of(c).name == "images" and height > 0 and width > 0:
                coords = grid(c, height, width)
            else:
                coords = random_points(c, POINTS)
            coords = coords.to(self.device)
            self.points[height, width] = engine.Points(c, coords, 0.5 if len(coords) >= 256 else 1.0, 0)
        return self.points[height, width]

    @torch.no_grad()
    def block(self, weights: Tensor, ids: Tensor, targets: Tensor, points: engine.Points) -> Tensor:
        """`__call__` for fields with the same points; targets (n, M, C)."""
        t, c, field_ = self.tokenizer, self.config, self.tokenizer.field
        spacing = t.code_spacing()
        latents = t.to_latents(weights)
        turned = targets.transpose(1, 2).contiguous()  # (n, C, M)
        parts = [turned if part is None else turned[..., part].contiguous() for part in points.parts]
        mean, square = torch.zeros_like(latents), torch.zeros_like(latents)
        best, cost = ids.clone(), None
        for step in range(c.refit_steps + 1):
            if step:
                ids = t.round_latents(latents)
            decoded = t._decode(ids)
            if step % LOOK == 0 or step == c.refit_steps:
                error, excess = errors_of(field_, decoded, targets, points.coords)
                now = error.log()
                if self.lengths is not None:
                    now = now + c.refit_rate * _bits(self.lengths, t.canonical_ids(ids))
                better = now < (now + 1 if cost is None else cost)
                best[better] = ids[better]
                cost = now if cost is None else torch.minimum(cost, now)
            if step == c.refit_steps:
                break
            i = step % len(parts)
            grad = t.latent_gradient(engine.gradients(field_, decoded, *points.part(i), parts[i]), ids)
            grad = grad / excess.view(-1, *[1] * (grad.ndim - 1))
            if self.lengths is not None:
                grad += (c.refit_rate / spacing * _slope(self.lengths, ids)).view_as(grad)
            mean.lerp_(grad, 1 - BETAS[0])
            square.mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
            root = (square / (1 - BETAS[1] ** (step + 1))).sqrt_().add_(1e-12)
            rate = c.refit_lr * spacing * (1 - step / c.refit_steps)
            latents = latents.addcdiv(mean, root, value=-rate / (1 - BETAS[0] ** (step + 1)))
        return t.canonical_ids(best)


def _bits(lengths: Tensor, ids: Tensor) -> Tensor:
    """(n,) bits of each field's codes, given the (T, V) bits of each code."""
    return lengths[torch.arange(ids.shape[1], device=ids.device), ids].sum(1)


def _slope(lengths: Tensor, ids: Tensor) -> Tensor:
    """(n, T) bits that the next code costs more than the one before, halved."""
    row, last = torch.arange(ids.shape[1], device=ids.device), lengths.shape[1] - 1
    up, down = (ids + 1).clamp_max(last), (ids - 1).clamp_min(0)
    return (lengths[row, up] - lengths[row, down]) / 2
