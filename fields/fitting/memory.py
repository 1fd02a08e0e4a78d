"""Fitting in memory: arrays in, a weight dataset out, without folders, launcher or config files."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fields.fitting.fit import Worker, architecture_for, field_seed
from fields.fitting.options import FitConfig, Start
from fields.fitting.parts import cut, described, rows_of
from fields.fitting.starts import make_reference, schedule_for
from fields.model import FieldConfig
from fields.runtime.console import bar
from fields.runtime.resources import one_thread
from fields.signals.base import SPLITS, Signals
from fields.signals.images import Images, as_pictures
from fields.signals.samples import Samples
from fields.storage.dataset import WeightDataset
from fields.storage.reference import Reference


def fit(
    signals: Signals | Tensor | np.ndarray,
    values: Tensor | np.ndarray | None = None,
    *,
    labels: Tensor | Sequence[int] | Sequence[str] | None = None,
    label_names: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    split: Sequence[str] | None = None,
    name: str = "signals",
    kind: str = "points",
    field: FieldConfig | None = None,
    start: Start = "meta",
    reference: Reference | None = None,
    device: torch.device | str = "cpu",
    quiet: bool = False,
    **options: Any,
) -> WeightDataset:
    """Fit one neural field to every signal.

    For example:
        data = fit(images)                    # (N, H, W) or (N, H, W, C), uint8 or floats in [0, 1]
        data = fit(points, values)            # (M, d) or (N, M, d), and (N, M, C): any dimension, any range
        data.weights("train")                 # (N, P)

    Args:
        signals: pictures, points, or any `Signals`.
        values: at the points; None for pictures.
        labels: N classes, counted from 0, or their names.
        label_names: of the classes; default: their numbers.
        ids: N names of the signals; default: numbers.
        split: N of train, validation, test; default: all train.
        name: of the whole set.
        kind: of points and values: `points`, or `shapes` for signed distances and occupancies in space.
        field: the architecture; default: what suits the signals.
        start: unconditioned, conditioned, meta (learnt over the training signals) or amortised (predicted from each).
        reference: an existing start, such as that of another dataset; `start` is then ignored.
        device: device of the computation.
        quiet: no progress bar.
        options: of `FitConfig`, such as steps, lr, fits, target_psnr, seed.
    Returns:
        The fields with their signals' ids, labels and sizes, in memory; `save` writes them to a folder.
    Raises:
        ValueError: for arrays that do not fit together.
        RuntimeError: if every field diverged or failed.
    """
    if not isinstance(signals, Signals):
        about: dict[str, Any] = {"labels": None}
        if labels is not None:
            if len(labels) and isinstance(labels[0], str):
                said = [str(label) for label in labels]
                label_names = list(label_names or sorted(set(said)))
                labels = [label_names.index(name) for name in said]
            classes = torch.as_tensor(labels, dtype=torch.int64)
            count = int(classes.max()) + 1 if len(classes) else 0
            about = {"labels": classes, "label_names": list(label_names or map(str, range(count)))}
        signals = _signals(signals, values, name, kind, ids, split, about)
    elif any(given is not None for given in (values, labels, label_names, ids, split)):
        raise ValueError("values, labels, ids and split are for arrays; Signals have their own. Leave them out.")
    config = FitConfig(**{"signals": signals.name, "fits": 1, "start": start, **options})
    field = field or architecture_for(signals, config.field)
    signals.check(field)
    if reference is None:
        with one_thread():  # a batch of small fields waits longer for a second one than it gains
            reference = make_reference(field, signals, config, device=device, quiet=quiet)
    return fit_from(field, signals, config, reference, device=device, quiet=quiet)


def fit_from(
    field: FieldConfig,
    signals: Signals,
    config: FitConfig,
    reference: Reference,
    *,
    device: torch.device | str = "cpu",
    quiet: bool = False,
) -> WeightDataset:
    """Fit every signal `config.fits` times from a reference; the fields are those that the command would write.

    Args:
        field: the architecture.
        config: its steps, rates, seed and so on; not its signals and paths.
        reference: where the fits begin.
    """
    signals.check(field)
    device, schedule = torch.device(device), schedule_for(config, signals)
    blocks = [b for part in cut(field, signals, config.fits or 1, device, schedule.pixels) for b in part]
    jobs = [(i, block.number) for block in blocks for i in block.indices]
    work = Worker(field, signals, config, schedule, reference, device)
    threads, pieces = config.threads or (torch.get_num_threads() if device.type == "cpu" else 1), []
    with (
        bar(total=len(jobs), unit="field", desc="fit", quiet=quiet) as shown,
        ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        for piece in pool.map(work, blocks):
            pieces.append(piece)
            shown.update(len(piece[0]))
    weights, quality = (torch.cat(columns) for columns in zip(*pieces, strict=True))
    good = quality.isfinite()
    if not bool(good.any()):
        raise RuntimeError("every field diverged or failed. Lower lr, or raise steps.")
    kept = good.nonzero().flatten().tolist()
    seed_of = partial(field_seed, config.seed)
    rows = rows_of(signals, [jobs[i] for i in kept], weights[good].numpy(), quality[good].numpy(), seed_of)
    places = [signals.split[jobs[i][0]] for i in kept]
    splits = {s: rows.pick([i for i, place in enumerate(places) if place == s]) for s in SPLITS if s in places}
    return WeightDataset.from_rows(
        field, splits, reference, described(signals, {signals.ids[jobs[i][0]] for i in kept})
    )


def _signals(
    first: Any, values: Any, name: str, kind: str, ids: Sequence[str] | None, split: Sequence[str] | None, about: dict
) -> Signals:
    """Arrays as signals."""
    n = len(first if values is None else values)
    ids = [f"{name}/{i}" for i in range(n)] if ids is None else list(ids)
    split = ["train"] * n if split is None else list(split)
    if unknown := sorted(set(split) - set(SPLITS)):
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {unknown[0]!r}.")
    if values is not None:
        values = torch.as_tensor(values)
        return Samples(name, ids, split, first, values[..., None] if values.ndim == 2 else values, kind=kind, **about)
    pictures = as_pictures(first)
    if not n:
        raise ValueError("there are no pictures to fit: got an empty array.")
    white = 255 if pictures.dtype == torch.uint8 else 1
    return Images(name, ids, split, pictures, channels=pictures.shape[3], full_scale=white, **about)
