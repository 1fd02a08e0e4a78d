"""What every kind of signals shares: ids, splits, labels, sizes; and which ones a user asks for.

A kind of signals is a subclass that answers three questions: where its points lie, what values it has there, and how many
they are (`fields.signals.images` for pictures). What can be said of a field without its signal (how it is drawn, how far
it is from its signal) is the matter of `fields.kinds`. Nothing here fits or draws.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fields.model import FIELDS, FieldConfig
from fields.runtime.digests import of_signals

SPLITS = ("train", "validation", "test")
SMALLEST_SPLIT = 10
"""Fewer signals are not split."""


class Signals:
    """N signals in memory. A kind of signals is a subclass with `values`, `points`, `count` and `_chosen`.

    Attributes:
        kind: name of the kind, a key of `fields.kinds.registry.KINDS`.
        shared: signals of one extent have their points in common (pixels of pictures of one size); otherwise each has its
            own, as many as the others of its extent.
        in_dim: coordinates of a point.
        name: of the whole set: digits, mnist, or a folder's name.
        ids: N names such as mnist/train/58828 or photos/cats/a.png.
        split: N of train, validation, test.
        labels: (N,) int64, or None.
        label_names: class names, or None.
        extent: (N, K) int64, the size of each signal: height and width of a picture.
        channels: values at a point.
        skipped: (file, reason) of what could not be read.
    """

    kind = "points"
    shared = True
    in_dim = 2
    fresh = False
    """Whether `measured` gives other points than those that fields are fitted to."""
    comparable = False
    """Whether an evaluation compares generated fields with the signals themselves; else with the signals' fields."""

    def __init__(
        self,
        name: str,
        ids: Sequence[str],
        split: Sequence[str],
        extent: Tensor,
        *,
        channels: int = 1,
        labels: Tensor | None = None,
        label_names: Sequence[str] | None = None,
        skipped: Sequence[tuple[str, str]] = (),
        split_seed: int = 0,
    ):
        if not len(ids) == len(split) == len(extent) or (labels is not None and len(labels) != len(ids)):
            labelled = "none" if labels is None else len(labels)
            raise ValueError(
                f"ids ({len(ids)}), split ({len(split)}), signals ({len(extent)}) and labels ({labelled}) differ."
            )
        self.name, self.ids, self.split, self.extent = name, list(ids), list(split), extent
        self.labels, self.label_names = labels, None if label_names is None else list(label_names)
        self.channels, self.skipped, self.split_seed = channels, list(skipped), split_seed

    # -- what a kind of signals answers ---------------------------------------------------------------------------

    def values(self, indices: Tensor | Sequence[int]) -> Tensor:
        """Values of n signals of one extent at their points, (n, M, C) float32."""
        raise NotImplementedError

    def images(self, indices: Tensor | Sequence[int]) -> Tensor:
        """References for generated signals, (n, ...); only for kinds that are `comparable`."""
        raise NotImplementedError

    def points(self, config: FieldConfig, indices: Tensor | Sequence[int]) -> Tensor:
        """Points of n signals of one extent: (M, d) if `shared`, otherwise (n, M, d); float32."""
        raise NotImplementedError

    def measured(self, config: FieldConfig, indices: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
        """Points ([n,] K, d) and values (n, K, C) by which fields of n signals of one extent are measured: here those
        that they are fitted to."""
        return self.points(config, indices), self.values(indices)

    def count(self, extent: Sequence[int]) -> int:
        """Points of a signal of this extent, M."""
        raise NotImplementedError

    def _chosen(self, chosen: Tensor) -> dict[str, Any]:
        """Arguments of the constructor, beyond those of `Signals`, for the signals at n positions."""
        raise NotImplementedError

    def contents(self, indices: Sequence[int]) -> Iterator[Any]:
        """Content of the signals at n positions, as arrays or texts, for `digest`."""
        return (self.values([i]) for i in indices)

    def check(self, field: FieldConfig) -> None:
        """Refuse a field that does not fit the signals' points or values."""
        if field.out_dim != self.channels:
            raise ValueError(f"the field has {field.out_dim} outputs, the signals have {self.channels} channels.")
        if field.in_dim != self.in_dim:
            raise ValueError(
                f"the field has {field.in_dim} coordinates, points of the signals {self.in_dim} (--field.in-dim)."
            )

    def architecture(self) -> FieldConfig:
        """Default architecture for these signals."""
        return FieldConfig(hidden=FIELDS["default"].hidden, in_dim=self.in_dim, out_dim=self.channels)

    def steps(self) -> int:
        """Default number of Adam steps of a fit."""
        return 64

    def share(self) -> float:
        """Default share of the points used in each step of a fit, in (0, 1]."""
        smallest = min((self.count(extent) for extent in self.extent.unique(dim=0).tolist()), default=0)
        return 0.5 if smallest >= 256 else 1.0

    # -- what all have --------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        counts = Counter(self.split)
        said = ", ".join(f"{counts[split]:,} {split}" for split in SPLITS if counts[split])
        size = self._one_extent(self.extent)
        each = "of several sizes" if size is None else f"of {' x '.join(map(str, size))}"
        classes = f", {len(self.label_names)} classes" if self.label_names else ""
        return f"{type(self).__name__} {self.name!r}: {said or 'none'}; {each}, {self.channels} channels{classes}"

    @staticmethod
    def _one_extent(extent: Tensor) -> tuple[int, ...] | None:
        """The extent of all, or None when they differ."""
        return tuple(extent[0].tolist()) if len(extent) and bool((extent == extent[0]).all()) else None

    def indices(self, split: str) -> Tensor:
        """Positions of a split's signals: (n,) int64, possibly none."""
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}.")
        return torch.tensor([i for i, s in enumerate(self.split) if s == split], dtype=torch.int64)

    def subset(self, indices: Tensor | Sequence[int]) -> "Signals":
        """The signals at n positions, in that order."""
        chosen = positions(indices, len(self))
        at = chosen.tolist()
        made: dict[str, Any] = {
            "labels": None if self.labels is None else self.labels[chosen],
            "label_names": self.label_names,
        }
        made |= {"channels": self.channels, "skipped": self.skipped, "split_seed": self.split_seed}
        made |= self._chosen(chosen)
        return type(self)(name=self.name, ids=[self.ids[i] for i in at], split=[self.split[i] for i in at], **made)

    def find(self, ids: Sequence[str]) -> Tensor:
        """Positions of these ids: (n,) int64.

        Raises:
            ValueError: naming the first id that is not among the signals.
        """
        place = {name: i for i, name in enumerate(self.ids)}
        missing = next((name for name in ids if name not in place), None)
        if missing is not None:
            raise ValueError(
                f"signal {missing!r} is not among the {len(self):,} signals of {self.name}. "
                "Load the signals that the fields were fitted to."
            )
        return torch.tensor([place[name] for name in ids], dtype=torch.int64)

    def digest(self, ids: Sequence[str] | None = None) -> str:
        """16 hexadecimal digits of ids, sizes and contents; labels, splits and the order do not count.

        Args:
            ids: of these signals alone; None = of all.
        """
        names = sorted(self.ids if ids is None else set(ids))
        chosen = self.find(names)
        return of_signals(names, self.extent[chosen].long(), self.contents(chosen.tolist()))

    def describe(self) -> dict:
        """Plain values for JSON, without any local path."""
        size = self._one_extent(self.extent)
        counts = Counter(self.split)
        return {
            "name": self.name,
            "kind": self.kind,
            "label_names": self.label_names,
            "split_seed": self.split_seed,
            "channels": self.channels,
            "shape": None if size is None else list(size),
            "counts": {split: counts[split] for split in SPLITS},
            "skipped": len(self.skipped),
        }


def held_out(n: int, seed: int, validation: int, test: int) -> list[str]:
    """A seeded split of n signals with so many held out; the same on every machine."""
    split = ["train"] * n
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    for rank, i in enumerate(order[: validation + test]):
        split[i] = "validation" if rank < validation else "test"
    return split


def tenths(n: int, seed: int) -> list[str]:
    """A seeded split of n signals: 80 % train, a tenth for validation, a tenth for test; all train where they are few."""
    held = n // 10 if n >= SMALLEST_SPLIT else 0
    return held_out(n, seed, held, held)


def positions(indices: Tensor | Sequence[int], n: int) -> Tensor:
    """Indices, or a mask, as (n,) int64 that lie inside."""
    chosen = torch.as_tensor(indices)
    chosen = chosen.nonzero().flatten() if chosen.dtype == torch.bool else chosen.to("cpu", torch.int64).flatten()
    if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < n:
        raise ValueError(f"indices must lie in 0 .. {n - 1}, got {int(chosen.min())} .. {int(chosen.max())}.")
    return chosen
