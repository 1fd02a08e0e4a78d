"""Rows of fields in memory with all that is known of each: what travels between fitting, tokens, models and files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

FORMER = {"signal_id": "ids", "seed": "seeds", "psnr": "quality", "sizes": "extent"}
"""Names in mappings of before -> names here."""
UNKNOWN: Any = None
"""What a caller may leave out and every instance has."""


@dataclass(frozen=True, repr=False)
class Rows:
    """N fields of one architecture.

    Unknown values are filled in: ids with "", seeds with 0, quality with NaN.
    """

    weights: Tensor
    """(N, P) float32."""
    ids: Sequence[str] = UNKNOWN
    """N names of signals."""
    labels: Tensor | None = None
    """(N,) int64 classes, -1 where unknown; None for unlabelled signals."""
    seeds: Tensor = UNKNOWN
    """(N,) int64: which fit of its signal a row is."""
    quality: Tensor = UNKNOWN
    """(N,) how close to its signal, by the measure of the signals' kind."""
    extent: Tensor | None = None
    """(N, K) int64 size of each signal, such as height and width; None where it is not known."""

    def __post_init__(self):
        weights = torch.as_tensor(self.weights, dtype=torch.float32)
        if weights.ndim != 2:
            raise ValueError(f"rows need weights of shape (N, P), got {tuple(weights.shape)}.")
        n = len(weights)
        put = {"weights": weights, "ids": [""] * n if self.ids is None else list(self.ids)}
        put["seeds"] = torch.zeros(n, dtype=torch.int64) if self.seeds is None else torch.as_tensor(self.seeds).long()
        quality = torch.full((n,), torch.nan) if self.quality is None else torch.as_tensor(self.quality).float()
        put |= {"quality": quality, "labels": None if self.labels is None else torch.as_tensor(self.labels).long()}
        extent = None if self.extent is None else torch.as_tensor(self.extent).long()
        put["extent"] = extent.reshape(n, -1) if extent is not None and n else extent
        for name, value in put.items():
            if value is not None and len(value) != n:
                raise ValueError(f"{name} has {len(value)} entries for {n} rows.")
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, given: "Rows | Mapping[str, Any]") -> "Rows":
        """Rows as they are, or from a mapping; former names (signal_id, seed, psnr, sizes) are accepted."""
        if isinstance(given, Rows):
            return given
        named = {FORMER.get(name, name): value for name, value in given.items()}
        unknown = sorted(set(named) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"rows have no {unknown[0]!r}; they have {', '.join(cls.__dataclass_fields__)}.")
        return cls(**named)

    def __len__(self) -> int:
        return len(self.weights)

    def __repr__(self) -> str:
        known = self.quality[self.quality.isfinite()]
        parts = [f"{len(self):,} fields of {self.weights.shape[1]:,} weights"]
        parts += [f"quality mean {known.mean():.2f}"] if len(known) else []
        parts += [f"{len(self.labels[self.labels >= 0].unique())} classes"] if self.labels is not None else []
        extent = None if self.extent is None else self.extent.unique(dim=0)
        parts += (
            [f"signals of {' x '.join(map(str, extent[0].tolist()))}"]
            if extent is not None and len(extent) == 1
            else []
        )
        return f"Rows({', '.join(parts)})"

    def pick(self, indices: Tensor | Sequence[int] | slice) -> "Rows":
        """Rows at n positions, in that order; or those where a mask is True."""
        chosen = indices if isinstance(indices, slice) else torch.as_tensor(indices)
        if isinstance(chosen, Tensor) and not len(chosen):
            chosen = chosen.long()  # an empty list is a tensor of floats
        at = torch.arange(len(self))[chosen].reshape(-1)
        return Rows(
            self.weights[at],
            [self.ids[i] for i in at.tolist()],
            None if self.labels is None else self.labels[at],
            self.seeds[at],
            self.quality[at],
            None if self.extent is None else self.extent[at],
        )

    def with_weights(self, weights: Tensor) -> "Rows":
        """The same rows with other weights (N, P); everything else is kept, including the quality."""
        return replace(self, weights=weights)

    @staticmethod
    def concatenate(parts: Sequence["Rows"]) -> "Rows":
        """The rows of all parts, one after the other; labels and extents are kept if all parts have them."""
        if not parts:
            raise ValueError("there are no rows to concatenate.")

        def joined(name: str) -> Any:
            columns = [getattr(part, name) for part in parts]
            return None if any(column is None for column in columns) else torch.cat(columns)

        names = ("weights", "labels", "seeds", "quality", "extent")
        return Rows(ids=[i for part in parts for i in part.ids], **{name: joined(name) for name in names})
