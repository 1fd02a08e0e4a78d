"""Which references and which samples are compared: seeded draws, from all there are.

The predecessor's protocol (NeF-GPT: digit 3, 256 vs 256, with replacement, training references) is drawn here as well.
"""

import torch

from fields.signals.base import Signals
from fields.storage.dataset import WeightDataset
from gpt.evaluation import items
from gpt.evaluation.baselines import draw_positions, encode_batches, first_fits
from gpt.evaluation.config import Inputs
from gpt.evaluation.features import Classifier
from gpt.evaluation.items import SignalSet, SignalSource, fields_row
from gpt.options import EvaluateConfig

NEFGPT_N, NEFGPT_DIGIT = 256, 3


def protocol_text(config: EvaluateConfig) -> str:
    """The protocol in words, for table and metrics.json."""
    if config.protocol == "nefgpt":
        return (
            f"nefgpt (the predecessor's; not comparable with the standard one): digit {NEFGPT_DIGIT} only, "
            f"{NEFGPT_N} vs {NEFGPT_N} drawn WITH replacement, references from the TRAINING fields, D = (1-SSIM)/2"
        )
    return "standard: as many samples as held-out references, without replacement"


def digit(data: WeightDataset) -> int:
    names = data.label_names
    if names is None:
        raise ValueError(
            f"--protocol nefgpt evaluates digit {NEFGPT_DIGIT}: it needs labelled fields, but these have no labels."
        )
    return names.index(str(NEFGPT_DIGIT)) if str(NEFGPT_DIGIT) in names else NEFGPT_DIGIT


def select_references(config: EvaluateConfig, inputs: Inputs, label: int | None) -> tuple[SignalSet, set[str]]:
    """At most --n references in random order, and their signal ids."""
    generator = torch.Generator().manual_seed(config.seed * 1000 + 999)
    if config.reference_split is not None and (label is not None or config.references not in ("images", "fields")):
        other = "--protocol nefgpt" if label is not None else f"--references {config.references}"
        raise ValueError(f"--reference-split says where in --fields references are, {other} has others. Leave one out.")
    if label is not None:
        return _training_references(inputs, label, generator)
    if config.references not in ("images", "fields"):
        return _foreign_references(config, inputs, generator), set()
    if config.references == "images" and inputs.signals is not None:
        return _image_references(config, inputs.signals, generator)
    data = inputs.data
    counts = {name: len(rows) for name, rows in data.splits.items()}
    split = items.reference_split(counts, config.reference_split)
    ids = data.ids(split)
    first = first_fits(ids)
    where = first[torch.randperm(len(first), generator=generator)[: config.n]]
    row = fields_row(f"{split} fields", data, data.weights(split, where), items.common_extent(data, split))
    row.notes.append(
        f"renders of {len(where)} fields, one per signal, drawn from all {counts[split]} of the split {split}"
    )
    if config.references == "images":
        row.notes.append(f"images were asked for, but {inputs.notes[0]}")
    return row, {ids[i] for i in where.tolist()}


def _image_references(
    config: EvaluateConfig, signals: Signals, generator: torch.Generator
) -> tuple[SignalSet, set[str]]:
    counts = {s: len(signals.indices(s)) for s in ("train", "validation", "test")}
    split = items.reference_split(counts, config.reference_split)
    where = signals.indices(split)
    where = where[torch.randperm(len(where), generator=generator)[: config.n]]
    row = SignalSet(f"{split} images", signals.images(where)).readable()
    row.notes.append(f"{len(where)} drawn from all {counts[split]} {split} signals of {signals.name}")
    return row, {signals.ids[i] for i in where.tolist()}


def _foreign_references(config: EvaluateConfig, inputs: Inputs, generator: torch.Generator) -> SignalSet:
    source = items.open_source(config.references, "--references", prefer=("test", "validation", "samples"))
    row = source.row(items.common_extent(inputs.data, "train") if source.kind == "fields" else (0, 0))
    total = len(row)
    row = row.pick(torch.randperm(total, generator=generator)[: config.n])
    row.name = f"{source.name} ({source.kind})"
    row.notes.append(f"{len(row)} drawn from all {total}; whether they are apart from the training data is not known")
    if not len(row):
        raise ValueError(f"--references {config.references} holds no readable picture.")
    return row


def _training_references(inputs: Inputs, label: int, generator: torch.Generator) -> tuple[SignalSet, set[str]]:
    data = inputs.data
    labels = data.labels("train")
    threes = torch.zeros(0, dtype=torch.int64) if labels is None else (labels == label).nonzero()[:, 0]
    if not len(threes):
        raise ValueError(f"--protocol nefgpt evaluates digit {NEFGPT_DIGIT}, and no training field has that label.")
    where = threes[torch.randint(len(threes), (NEFGPT_N,), generator=generator)]
    extent = items.common_extent(data, "train")
    row = fields_row("TRAINING fields", data, data.weights("train", where), extent)
    row.notes.append(f"{NEFGPT_N} draws with replacement from {len(threes)} training fields of digit {NEFGPT_DIGIT}")
    return row, set()


def select_samples(
    config: EvaluateConfig, inputs: Inputs, refs: SignalSet, classifier: Classifier | None, label: int | None
) -> SignalSet | None:
    """As many samples as references, drawn from readable and unreadable ones; only the readable are kept."""
    source = inputs.source
    if source is None:
        return None
    row = source.row(inputs.data.kind.extent_of(refs.images))
    row.name, row.kind = f"SAMPLES ({source.name})", "samples"
    items.check_shapes(row, refs)
    names = inputs.data.label_names
    if row.labels is not None and source.label_names != names:
        row.labels = None
        row.notes.append(f"labels ignored: classes {source.label_names} are not the training data's {names}")
    row = _attach_tokens(row, source, inputs)
    if label is not None:
        row = _only(row, label, classifier)
    generator = torch.Generator().manual_seed(config.seed * 1000 + 998)
    total, lost = len(row) + row.unreadable, row.unreadable
    pick = draw_positions(total, len(refs), generator, label is not None)
    chosen = row.pick(pick[pick < len(row)])
    chosen.unreadable = len(pick) - len(chosen)
    chosen.notes.append(f"{len(pick)} drawn from {total}" + (f", {lost} of them unreadable" if lost else ""))
    return chosen


def _attach_tokens(row: SignalSet, source: SignalSource, inputs: Inputs) -> SignalSet:
    """Codes as sampled if they lie beside the fields, else those of the tokenizer given; weights of one layout only."""
    if source.data is not None and source.data.config != inputs.data.config:
        row.notes.append(f"fields of another layout ({source.data.config}): novelty in pixels only")
        row.weights = row.tokens = None
        return row
    if inputs.tokenizer is None or row.weights is None:
        row.tokens = None
    elif row.tokens is not None and source.tokens_of == inputs.tokenizer.fingerprint:
        row.notes.append("codes as sampled")
    else:
        row.tokens = encode_batches(inputs.tokenizer, row.weights)
        row.notes.append("codes by encoding the sampled weights")
    return row


def _only(row: SignalSet, label: int, classifier: Classifier | None) -> SignalSet:
    """The predecessor's protocol: samples of one digit, by their labels or else by the classifier."""
    if row.labels is not None and (row.labels >= 0).any():
        kept, how = row.labels == label, "labels"
    elif classifier is not None:
        kept, how = classifier.read(row.images)[1] == label, f"the classifier {classifier.fingerprint}"
    else:
        raise ValueError("--protocol nefgpt needs labelled samples or a classifier to find the 3s; give --classifier.")
    row = row.pick(kept.nonzero()[:, 0])
    row.notes.append(f"digit {NEFGPT_DIGIT} chosen by {how}: {len(row)} samples")
    return row
