"""A model opened to be looked at: fields drawn, completed from a part of their tokens, and compared with training fields.

Nothing here knows of a browser; `board` makes pictures of what this returns, `app` puts them on a page.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fields.fitting.memory import fit
from fields.kinds.base import Kind
from fields.kinds.registry import kind_of
from fields.metrics.distances import nearest
from fields.model import FieldConfig, random_points, values
from fields.runtime.runs import Run, read_json
from fields.storage.dataset import WeightDataset
from gpt.checkpoint import load_gpt
from gpt.model import GPT
from gpt.sampling.generate import sample_ids
from gpt.sampling.sample import find_label
from tokenizers.base import WeightTokenizer

POINTS = {"images": 256, "shapes": 2048}
"""Points at which fields are compared; a small shape holds few of those in its cube."""
CHUNK = 4096
"""Training fields evaluated at once."""
BLOCK = 16
"""Fields computed together."""
FIT_STEPS = 300
"""Of a field for a picture drawn by hand."""


@dataclass(frozen=True)
class Drawn:
    """Fields and their tokens.

    Attributes:
        weights: (N, P).
        codes: (N, T) int64.
        labels: (N,) int64, -1 where there is none.
    """

    weights: Tensor
    codes: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.weights)


@dataclass(frozen=True)
class Neighbour:
    """The nearest training field of a field, and how far it is: root mean square of values at random points."""

    signal: str
    weights: Tensor
    distance: float


class Studio:
    """A GPT, its tokenizer and, where they are at hand, the fields it was trained on.

    Attributes:
        field: the architecture of all fields here.
        kind: of their signals.
        extent: of a new field's signal: height and width of a picture.
        label_names: classes that can be asked for; empty for a model without labels.
        guided: whether the model learnt without labels too, so that a label can count for more (guidance).
        grid: regions along each coordinate if tokens stand for regions, else None.
    """

    def __init__(self, model: GPT, tokenizer: WeightTokenizer, info: dict, data: WeightDataset | None = None):
        self.model, self.tokenizer, self.data = model, tokenizer, data
        self._known: list[Tensor] | None = None
        self.field: FieldConfig = tokenizer.field
        self.kind: Kind = kind_of(self.field, info.get("signals"))
        self.extent: list[int] = list(info.get("size") or [0] * len(self.kind.axes))
        self.label_names: list[str] = list(info.get("label_names") or []) if model.config.labels else []
        self.guided: bool = bool(self.label_names) and bool(info.get("label_dropout"))
        self.name: str = str((info.get("signals") or {}).get("name") or "fields")
        self.grid: tuple[int, ...] | None = getattr(tokenizer, "grid", None)

    @property
    def shapes(self) -> bool:
        """Whether fields are shapes, which are shown as meshes."""
        return self.kind.name == "shapes"

    # -- new fields ----------------------------------------------------------------------------------------------------

    def draw(
        self, n: int, label: str | None, temperature: float, top_p: float, seed: int, guidance: float = 1.0,
        *, prompt: Tensor | None = None,
    ) -> Drawn:  # fmt: skip
        """The first n fields of a seed; fewer where one cannot be decoded.

        Args:
            prompt: (T,) codes that stay, -1 where the model draws one.
        Raises:
            ValueError: for settings out of range, or a label that the model does not have.
        """
        number, guidance = find_label(label, self.label_names), guidance if self.guided else 1.0
        rules: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "guidance": guidance}
        draws = sample_ids(self.model, n, seed=seed, label=number, block=BLOCK, prompt=prompt, **rules)
        draws = draws.pick(draws.complete)
        weights = self.tokenizer.decode(draws.codes)
        fine = weights.isfinite().all(1)
        return Drawn(weights[fine], draws.codes[fine], draws.labels[fine])

    def complete(self, codes: Tensor, kept: Tensor, *asked: Any) -> Drawn:
        """Fields that have some of their tokens in common with a given one.

        Args:
            codes: (T,) of the field.
            kept: (T,) bool, which of them stay; the model draws the others from left to right.
            asked: what `draw` takes.
        """
        return self.draw(*asked, prompt=torch.where(kept, codes, -1))

    # -- given fields --------------------------------------------------------------------------------------------------

    def of_rows(self, weights: Tensor, labels: Tensor | None = None) -> Drawn:
        """Given fields as the tokens say them."""
        codes = self.tokenizer.encode(weights)
        return Drawn(self.tokenizer.decode(codes), codes, torch.full((len(codes),), -1) if labels is None else labels)

    def held_out(self, number: int) -> tuple[str, Drawn]:
        """A field that no model was trained on, with its signal's name.

        Args:
            number: which one; counted on from the first after the last.
        Raises:
            ValueError: without training data at hand.
        """
        if self.data is None:
            raise ValueError(
                "held-out fields need the dataset. Start the demo with --fields: a folder, or user/name on the Hub."
            )
        split = next((s for s in ("test", "validation") if len(self.data.splits.get(s, ()))), "train")
        i = number % len(self.data.ids(split))
        labels = self.data.labels(split)
        row = self.data.weights(split, torch.tensor([i]))
        return self.data.ids(split)[i], self.of_rows(row, None if labels is None else labels[i : i + 1])

    def of_picture(self, picture: np.ndarray, seed: int = 0) -> Drawn:
        """A field fitted to a picture, as the tokens say it.

        Args:
            picture: (H, W) or (H, W, C) floats in [0, 1], reduced to the size of the model's signals.
        Raises:
            ValueError: for fields that are no pictures.
        """
        if self.kind.name != "images" or not self.kind.known(self.extent):
            raise ValueError("only fields of pictures can be fitted to a drawing.")
        target = torch.as_tensor(picture, dtype=torch.float32)
        target = (target[..., None] if target.ndim == 2 else target[..., :3]).permute(2, 0, 1)[None]
        target = torch.nn.functional.interpolate(target, self.extent, mode="area")[0]
        if self.field.out_dim == 1:
            target = target.mean(0, keepdim=True)
        pictures = target.expand(self.field.out_dim, -1, -1).permute(1, 2, 0)[None].clamp(0, 1)
        start = {"start": "unconditioned"} if self.data is None else {"reference": self.data.reference}
        if self.data is not None and self.data.reference.row is None:
            start = {"start": "unconditioned"}
        made = fit(pictures, field=self.field, steps=FIT_STEPS, seed=seed, quiet=True, threads=1, **start)
        return self.of_rows(made.weights("train"))

    # -- training fields -----------------------------------------------------------------------------------------------

    @cached_property
    def _points(self) -> Tensor:
        return random_points(self.field, POINTS.get(self.kind.name, 256))

    def _training_values(self, progress: Callable[[int, int], Any] | None) -> list[Tensor]:
        """What all training fields say at the points, (n, points * C) half precision each; computed once."""
        if self._known is None:
            assert self.data is not None
            known, total, done = [], len(self.data.splits["train"]), 0
            for part in self.data.batches("train", CHUNK):
                known.append(values(self.field, part, self._points).flatten(1).half())
                done += len(part)
                if progress is not None:
                    progress(done, total)
            self._known = known
        return self._known

    @torch.no_grad()
    def nearest(self, row: Tensor, progress: Callable[[int, int], Any] | None = None) -> Neighbour | None:
        """The training field that says nearly the same as a field; None without training data.

        Args:
            row: (P,).
            progress: told how many of the training fields are evaluated, the first time.
        """
        if self.data is None or not len(self.data.splits.get("train", ())):
            return None
        said = values(self.field, row[None], self._points).flatten(1)
        found = nearest(said, self._training_values(progress))
        i = int(found.where[0])
        distance = float(found.distance[0]) / said.shape[1] ** 0.5
        return Neighbour(self.data.ids("train")[i], self.data.weights("train", torch.tensor([i]))[0], distance)


def open_studio(model: str, fields: str | None = None, revision: str | None = None) -> Studio:
    """Load what a page needs.

    Args:
        model: folder of a training run or model, or user/name on the Hub.
        fields: dataset of the training; default: the one that the training run names, if it is still there.
        revision: of Hub names.
    Raises:
        ValueError: for models that write no tokens, or a dataset of other fields.
    """
    gpt, tokenizer, info = load_gpt(model, revision=revision)
    place = fields if fields is not None else _trained_on(Path(model))
    data = None if place is None else WeightDataset.load(place, flag="--fields")
    if data is not None and data.config != tokenizer.field:
        if fields is not None:
            raise ValueError(f"--fields {fields} holds fields {data.config}, the model makes {tokenizer.field}.")
        data = None
    return Studio(gpt, tokenizer, info, data)


def _trained_on(folder: Path) -> str | None:
    """The dataset that a training run names, where it is a folder that is still there."""
    for run in (folder / "run.json", folder.parent / "run.json"):
        if run.is_file():
            place = read_json(run, schema=Run)["config"].get("fields")
            return place if isinstance(place, str) and (Path(place) / "field.json").is_file() else None
    return None
