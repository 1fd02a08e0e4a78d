"""Which stage of a model's pipeline loses most: a chain of rows against one set of references, from pictures to samples.

Each row adds one stage to the one before it: training pictures, held-out fields (fit), their round trip (vocabulary), the
round trip with codes that the GPT draws in the place of true ones, and samples. What they lose stands in one measure, FID,
or 1-NNA where there is no classifier; bits and codes say why.
"""

import time
from pathlib import Path

import torch
from torch import Tensor

from fields.metrics.pairs import psnr
from fields.runtime.digests import of_content
from fields.runtime.launch import cores
from fields.runtime.records import read_lines
from fields.runtime.runs import claim, finish, is_finished, read_json, vacant
from fields.storage.fetch import beside, is_local, last_part
from gpt.checkpoint import load_gpt
from gpt.data import unigram_bits
from gpt.evaluation import baselines, predictions
from gpt.evaluation.config import Inputs, open_classifier, read_inputs
from gpt.evaluation.diagnosis import explain_losses, write_diagnosis
from gpt.evaluation.items import SignalSet, fields_row
from gpt.evaluation.scores import Scorer
from gpt.evaluation.selection import select_references
from gpt.model import GPT
from gpt.options import DiagnoseConfig, EvaluateConfig
from gpt.sampling.generate import sample_ids


def diagnose(config: DiagnoseConfig) -> dict:
    """Measure, write and print; returns what diagnosis.json holds."""
    began = time.perf_counter()
    torch.set_num_threads(config.threads or cores())
    model, tokenizer, info = load_gpt(config.model)
    training = Path(info["path"]).parent
    fields = config.fields or fields_of(training)
    inputs = read_inputs(
        EvaluateConfig(
            fields=fields, model=info["path"], signals=config.signals, data_root=config.data_root, n=config.n
        )
    )
    if inputs.data.kind.name != "images":
        raise ValueError(
            "diagnose compares pictures, but these fields are of another kind. For shapes: scripts/evaluate.py."
        )
    parents = {"fields": inputs.data.fingerprint, "model": info["fingerprint"]}
    free = ("model", "out", "fields", "signals", "data_root", "classifiers", "threads")
    default = beside(config.model, f"{last_part(config.model)}-diagnosis")
    out = config.out or vacant(default, config, parents=parents, free=free, kind="diagnose")
    again = claim(out, config, parents=parents, seed=config.seed, free=free, kind="diagnose")
    signals, classifier = (
        inputs.signals and inputs.signals.digest(),
        config.classifier and of_content(config.classifier),
    )
    of = [signals, classifier, list(inputs.notes), history(training)]
    if is_finished(out, of):
        return read_json(out / "diagnosis.json", schema=dict)
    try:
        result, pictures = measure_rows(config, inputs, model, fields)
    except BaseException:
        if not again:  # nothing was made: the folder is free for another try
            (out / "run.json").unlink(missing_ok=True)
        raise
    result |= {"model": info["fingerprint"], "step": info.get("step"), "history": history(training)}
    result |= explain_losses(result)
    result["seconds"] = round(time.perf_counter() - began, 1)
    print(write_diagnosis(out, result, pictures))
    finish(out, of=of)
    print(f"{result['seconds']:.0f} s -> {out}/report.html, diagnosis.md, diagnosis.png")
    return result


def fields_of(training: Path) -> str:
    """The weight dataset that a training folder names.

    Raises:
        ValueError: if there is none, or it is not there any more.
    """
    run = read_json(training / "run.json", schema=dict) if (training / "run.json").is_file() else {}
    named = run.get("config", {}).get("fields")
    if not isinstance(named, str) or (is_local(named) and not Path(named).is_dir()):
        raise ValueError("the dataset the model was trained on was not found. Give it with --fields DIR.")
    return named


def history(training: Path) -> list[tuple[int, float]]:
    """(step, validation bits per field) of the training, as far as it is there."""
    path = training / "metrics.jsonl"
    return [(row["step"], row["bits_per_field"]) for row in read_lines(path) if {"step", "bits_per_field"} <= set(row)]


@torch.no_grad()
def measure_rows(config: DiagnoseConfig, inputs: Inputs, model: GPT, fields: str) -> tuple[dict, list[SignalSet]]:
    """All rows with their numbers, and the pictures of each."""
    settings = EvaluateConfig(
        fields=fields, n=config.n, seed=config.seed, classifier=config.classifier, classifiers=config.classifiers
    )
    assert inputs.tokenizer is not None  # that of the model
    classifier, note = open_classifier(settings, inputs)
    refs, ids = select_references(settings, inputs, None)
    size = tuple(refs.images.shape[1:3])
    setup = baselines.Setup(inputs.data, inputs.signals, inputs.tokenizer, size, len(refs), config.seed, ids)
    rows, numbers = chain(setup, model)
    least = min(len(row) for row in rows)
    if least < 2:
        lost = next(row for row in rows if len(row) < 2)
        raise RuntimeError(f"{lost.name}: {len(lost)} are readable, but 2 are needed. Train longer, or raise --n.")
    refs = refs.pick(torch.arange(min(least, len(refs))))
    scorer = Scorer(refs, classifier, config.seed, ("l2",))
    lines = {row.kind: scorer.line(row) for row in rows}
    return {
        "fields": inputs.data.fingerprint,
        "n": len(refs),
        "seed": config.seed,
        "classifier": None if classifier is None else classifier.describe(),
        "tokenizer": {
            "kind": inputs.tokenizer.config.kind,
            "tokens": inputs.tokenizer.tokens_per_field,
            "codes": inputs.tokenizer.codes,
        },
        "labels": model.config.labels,
        "rows": lines,
        "notes": inputs.notes + ([note] if note else []),
        **numbers,
    }, rows


def chain(setup: baselines.Setup, model: GPT) -> tuple[list[SignalSet], dict]:
    """The rows from training pictures to samples, and bits, errors and decibels beside them."""
    data, tokenizer, size, seed = setup.data, setup.tokenizer, setup.extent, setup.seed
    assert tokenizer is not None
    pool, weights, pool_labels = baselines.draw_pool(setup)
    found = baselines.held_out_rows(setup)
    if found is None:
        raise ValueError("no held-out field is left besides the references. Lower --n, or fit test signals too.")
    split, where = found
    fields = data.weights(split, where)
    labels = _labels(data.labels(split), where)
    codes, seen = baselines.encode_batches(tokenizer, fields), baselines.encode_batches(tokenizer, weights)
    true = predictions.predict(model, codes, labels, seed)
    some = torch.randperm(len(seen), generator=setup.stream(8))[: len(codes)]
    known = predictions.predict(model, seen[some], None if pool_labels is None else pool_labels[some], seed)
    error = float(true.errors.mean())
    half = codes.shape[1] // 2
    draws = sample_ids(model, setup.n, seed=seed)
    sampled = draws.codes[draws.complete]
    own = predictions.predict(model, sampled, draws.labels[draws.complete], seed)

    def row(kind: str, name: str, ids: Tensor) -> SignalSet:
        return fields_row(name, data, baselines.decode_batches(tokenizer, ids), size, kind=kind)

    trip = row("round_trip", "held-out fields after the round trip", codes)
    rows = [baselines.training_images(setup)]
    rows += [fields_row("held-out fields", data, fields, size, kind="fields"), trip]
    rows += [row("one_step", "every code drawn from the true ones before it", true.drawn)]
    rows += [row("half", "second half of the codes drawn", predictions.draw_rest(model, codes, labels, half, seed))]
    rows += [row("samples", "samples", sampled)]
    rows += [
        row("replaced", f"{error:.0%} of the codes replaced at random", predictions.replace(codes, seen, error, seed))
    ]
    rows += [
        row("unigram", "unigram", seen.gather(0, torch.randint(len(seen), codes.shape, generator=setup.stream(6))))
    ]
    before, after = (fields_row("", data, w, size).images for w in (fields, trip.weights) if w is not None)
    numbers = {
        "psnr": {
            "fit": _mean(data.quality(split)[where]),
            "round_trip": _mean(psnr(before.flatten(1), after.flatten(1))),
        },
        "bits": {
            "uniform": codes.shape[1] * float(torch.tensor(float(tokenizer.codes)).log2()),
            "unigram": unigram_bits(seen, codes, tokenizer.codes),
            "held_out": float(true.bits.mean()),
            "training": float(known.bits.mean()),
            "samples": float(own.bits.mean()),
        },
        "errors": error,
        "kept": {
            "round_trip": _same(codes, baselines.encode_batches(tokenizer, baselines.decode_batches(tokenizer, codes))),
            "samples": _same(
                sampled, baselines.encode_batches(tokenizer, baselines.decode_batches(tokenizer, sampled))
            ),
        },
        "unreadable": len(draws) - len(sampled),
    }
    return [r for r in rows if r is not None], numbers


def _labels(labels: Tensor | None, where: Tensor) -> Tensor | None:
    return None if labels is None else labels[where]


def _mean(values: Tensor) -> float | None:
    values = values[values.isfinite()]
    return float(values.mean()) if len(values) else None


def _same(a: Tensor, b: Tensor) -> float:
    return float((a == b).float().mean())
