"""Evaluation of generated fields: set metrics, FID, novelty, validation bits, and the baselines that give them a meaning.

This file fixes N, references and seeds, and puts the parts together: `config` reads, `selection` chooses, `baselines`
makes the other lines, `scores` computes a line, `novelty` looks for copies, `report` writes.
"""

import time
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fields.runtime.console import bar
from fields.runtime.contents import find
from fields.runtime.digests import of_content
from fields.runtime.launch import cores
from fields.runtime.resources import check_memory
from fields.runtime.runs import claim, digest, finish, is_finished, read_json, vacant
from fields.storage.dataset import summary
from fields.storage.fetch import beside
from gpt.evaluation import items, novelty
from gpt.evaluation.baselines import Setup, baselines, encode_batches
from gpt.evaluation.config import Inputs, evaluation_of, open_classifier, read_inputs
from gpt.evaluation.features import Classifier
from gpt.evaluation.items import SignalSet
from gpt.evaluation.metrics import Evaluation, distances_for
from gpt.evaluation.scores import Scorer
from gpt.evaluation.selection import digit, protocol_text, select_references, select_samples
from gpt.options import EvaluateConfig, ShapeSettings

FEW = 40
"""Pictures a side below which scores say little: half of an interval of 1-NNA is .15 and more."""
FREE = (
    *("threads", "workers", "classifiers", "signals", "data_root"),
    *("out", "fields", "samples", "tokenizer", "revision"),
)
"""What changes no number, and where things lie: what lies there is compared."""
MANY = ("training_images", "training_fields", "held_out_fields", "unigram")
"""Baselines that are made at --features-n, too."""


def evaluate(config: EvaluateConfig) -> dict:
    """Evaluate samples, write report and tables, and print the table; returns the content of metrics.json."""
    start = time.perf_counter()
    torch.set_num_threads(config.threads or cores())
    inputs = read_inputs(config)
    ours = evaluation_of(inputs.data)
    config = replace(config, n=config.n or ours.n)
    parents = {"fields": inputs.data.fingerprint}
    parents |= {"samples": inputs.source.fingerprint} if inputs.source else {}
    parents |= {"tokenizer": inputs.tokenizer.fingerprint} if inputs.tokenizer is not None else {}
    how: dict[str, Any] = {"parents": parents, "free": FREE, "kind": ours.name}
    if ours.signals:
        how["upgrade"] = lambda made: {
            "features_n": None,
            "reference_split": None,
            **made,
        }  # of before they were options
    out = config.out or vacant(beside(config.fields, "evaluation"), recorded(config, ours), **how)
    again = claim(out, recorded(config, ours), seed=config.seed, **how)
    print(f"fields: {summary(inputs.data)}")
    try:
        if is_finished(out, of := inputs_digests(config, inputs)):
            return read_json(out / "metrics.json", schema=dict)
        with torch.no_grad():
            result, pictures = find(ours.compute)(config, inputs)
    except BaseException:
        if not again:  # nothing was made: the folder is free for another try
            (out / "run.json").unlink(missing_ok=True)
            with suppress(OSError):
                out.rmdir()
        raise
    result["seconds"] = round(time.perf_counter() - start, 1)
    print(find(ours.report)(out, result, pictures))
    finish(out, of=of)
    print(
        f"{result['seconds']:.1f} s in all -> {out}: report.html and table.md (all columns, and what they mean), metrics.json"
    )
    return result


def inputs_digests(config: EvaluateConfig, inputs: Inputs) -> list[Any]:
    """What the numbers depend on besides settings and parents: signals, classifier and pictures by content, the model."""
    named = [name for name in (config.samples, config.references, config.classifier) if name is not None]
    signals = inputs.signals and inputs.signals.digest()
    return [inputs.bits, list(inputs.notes), signals, [of_content(Path(name)) for name in named]]


def recorded(config: EvaluateConfig, ours: Evaluation) -> dict:
    """The settings that the numbers depend on: of shapes those of all evaluations are few.

    Raises:
        ValueError: for settings of shapes where there are none.
    """
    values = asdict(config)
    shapes = values.pop("shapes")
    if not ours.signals:
        if config.features_n is not None:
            raise ValueError(
                "--features-n is for pictures, but --fields holds shapes, which have no FID. Leave it out."
            )
        unsaid = dict.fromkeys(("samples", "fields", "out"))  # they are parents
        told = {"reference": config.reference_split or "test"}  # as it was recorded before it served pictures, too
        return shapes | told | unsaid | {name: values[name] for name in ("n", "seed", "overwrite")}
    if config.shapes != ShapeSettings():
        raise ValueError("--shapes.* is for fields of shapes, but --fields holds others. Leave it out.")
    return values


def compute(config: EvaluateConfig, inputs: Inputs) -> tuple[dict, dict]:
    """All numbers, and the pictures for the report."""
    nefgpt = config.protocol == "nefgpt"
    check_memory(*need(config, inputs), "cpu", "a smaller --n, or fewer fields")
    classifier, classifier_note = open_classifier(config, inputs)
    inputs.notes += [classifier_note] if classifier_note else []
    if config.features_n is not None and (classifier is None or nefgpt):
        why = "--protocol nefgpt has no FID" if nefgpt else classifier_note
        raise ValueError(f"--features-n asks for FID and KID, but {why}. Leave it out.")
    label = digit(inputs.data) if nefgpt else None
    refs, ids = select_references(config, inputs, label)
    extent = inputs.data.kind.extent_of(refs.images)
    n = len(refs)
    samples = select_samples(config, inputs, refs, classifier, label)
    if samples is not None and len(samples):
        n = min(n, len(samples))
    few = "draw more samples" if n < len(refs) else "raise --n" if n == config.n else "fit more held-out signals"
    refs = refs.pick(torch.arange(n))
    setup = Setup(
        inputs.data,
        inputs.signals,
        inputs.tokenizer,
        extent,
        n,
        config.seed,
        ids,
        label,
        nefgpt,
        config.reference_split,
    )
    rows = ([samples] if samples is not None else []) + fitting(baselines(setup), refs, inputs)
    if n < FEW:
        inputs.notes.append(f"N = {n}: scores of so few pictures differ more by chance than models do; {few}")
    distances = ("ssim",) if nefgpt else tuple(distances_for(inputs.data.kind.name))
    scorer = Scorer(refs, classifier, config.seed, distances, with_fid=not nefgpt)
    lines = [scorer.line(row) for row in bar(rows, desc="evaluation", unit="row", leave=False)]
    new, pictures = look_for_copies(setup, rows, samples, inputs.source.kind if inputs.source else "fields")
    for line, extra in zip(lines, new.pop("lines"), strict=True):
        line["novelty"] = extra
    result = {
        "protocol": protocol_text(config),
        "features": features_of_many(config, inputs, classifier) if config.features_n and classifier else None,
        "n": n,
        "seed": config.seed,
        "without_replacement": not nefgpt,
        "references": {"name": refs.name, "n": n, "notes": refs.notes, "drawn": digest(refs.images)},
        "fields": {"name": inputs.data.signals.get("name"), "fingerprint": inputs.data.fingerprint},
        "samples": None if inputs.source is None else inputs.source.describe(),
        "tokenizer": None if inputs.tokenizer is None else inputs.tokenizer.fingerprint,
        "classifier": None if classifier is None else classifier.describe(),
        "validation": inputs.bits,
        "rows": lines,
        "novelty": new,
        "notes": inputs.notes,
    }
    return result, pictures


def features_of_many(config: EvaluateConfig, inputs: Inputs, classifier: Classifier) -> list[dict]:
    """FID and KID of samples, training signals and fields, round trip and unigram at --features-n, for JSON."""
    config = replace(config, n=config.features_n)
    refs, ids = select_references(config, inputs, None)
    samples = select_samples(config, inputs, refs, classifier, None)
    n = len(refs) if samples is None or not len(samples) else min(len(refs), len(samples))
    refs = refs.pick(torch.arange(n))
    extent = inputs.data.kind.extent_of(refs.images)
    setup = Setup(inputs.data, inputs.signals, inputs.tokenizer, extent, n, config.seed, ids)
    rows = ([samples] if samples is not None else []) + fitting(baselines(setup, MANY), refs, inputs)
    scorer = Scorer(refs, classifier, config.seed, distances=())
    return [scorer.features_of(row) for row in bar(rows, desc="features", unit="row", leave=False)]


def need(config: EvaluateConfig, inputs: Inputs) -> tuple[int, str]:
    """Bytes that an evaluation holds, about, and of what: all labelled training signals for the classifier, ten lines of
    pictures with their weights, a chunk of training fields, and distances of all pairs."""
    data = inputs.data
    values = int(data.extent("train").clamp_min(1).prod(1).max()) * data.config.out_dim
    held = max((len(data.splits[split]) for split in ("test", "validation") if split in data.splits), default=1)
    n, train = min(config.n or held, held), len(data.splits["train"])
    pictures = train * (data.label_names is not None) + 10 * n + novelty.CHUNK
    return 4 * (
        values * pictures + data.config.size * (10 * n + novelty.CHUNK)
    ) + 24 * n * n, f"pictures of {n:,} fields"


def fitting(rows: list[SignalSet], refs: SignalSet, inputs: Inputs) -> list[SignalSet]:
    """Baselines whose pictures can be compared with the references: training images may have another size.

    Raises:
        ValueError: if the fields themselves cannot (other channels).
    """
    kept = []
    for row in rows:
        if row.weights is None and row.images.shape[1:] != refs.images.shape[1:]:
            inputs.notes.append(f"no line of {row.name}: they have another size than the references")
            continue
        items.check_shapes(row, refs)
        kept.append(row)
    return kept


def look_for_copies(setup: Setup, rows: list[SignalSet], samples: SignalSet | None, kind: str) -> tuple[dict, dict]:
    """Novelty of all rows, and the nearest training pictures of the samples for the sheet.

    Samples that are fields are compared with the renders of training fields, pictures (`kind` = "images") with the
    training images where these are at hand: like with like.
    """
    training = novelty.TrainingSet(setup.data, setup.extent, setup.signals if kind == "images" else None)
    held = novelty.held_out_row(setup, training)
    if held is not None and setup.tokenizer is not None and held.weights is not None:
        held.tokens = encode_batches(setup.tokenizer, held.weights)
    every = rows + ([held] if held is not None else [])
    found = novelty.neighbours(every, training)
    beside = found[-1] if held is not None else None
    limit = float(torch.quantile(beside.pixels, novelty.NEAR)) if beside is not None and len(beside.pixels) else None
    token_copies = novelty.token_copies(every, setup)
    lines = [novelty.novelty_line(f, beside) | {"token_copies": t} for f, t in zip(found, token_copies, strict=True)]
    summary_ = {
        "against": training.kind,
        "of": len(training),
        "held_out": None if held is None else {"name": held.name, "n": len(held)} | lines[-1],
        "near_duplicate_limit": limit,
        "lines": lines[: len(rows)],
    }
    pictures: dict[str, Any] = {"held_out": beside, "train_to_train": None, "found": None, "drawn": None}
    kinds = [row.kind for row in rows]
    if "training_fields" in kinds:
        pictures["train_to_train"] = found[kinds.index("training_fields")]
    if samples is not None:
        summary_["duplicates"] = novelty.duplicates(samples, limit, training.distance)
        drawn = partial(training.drawn, samples), partial(training.picture, found[0].where)
        pictures |= {"found": found[0], "drawn": drawn if training.drawable and len(samples) else None}
    return summary_, pictures
