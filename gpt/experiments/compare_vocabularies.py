"""A comparison of vocabularies: a GPT over each, trained equally long on fields of the same signals, sampled and evaluated in the same way.

This file fixes what is done in which order and what is not done again; `compare_inputs` says which take part,
`compare_scores` measures, `compare_report` writes. Everything of one vocabulary lies in OUT/NAME: `tokens/` (where the
tokenizer's folder has none of these fields), `gpt/`, `samples/`, and `row.json`, which says what is finished.
"""

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fields.runtime.launch import cores, start
from fields.runtime.processes import on_all, on_main
from fields.runtime.products import products_put_back
from fields.runtime.runs import claim, finish, is_finished, plain, read_json, vacant, write_json
from fields.storage.dataset import WeightDataset
from gpt.corpus import load_corpus
from gpt.evaluation.config import model_bits
from gpt.experiments.compare_inputs import Entry, enter, name_all
from gpt.experiments.compare_report import row_line, write_report
from gpt.experiments.compare_scores import SharedEvaluation
from gpt.experiments.options import CompareVocabulariesConfig
from gpt.options import TrainConfig
from gpt.pipeline import Stages
from gpt.sampling.options import SampleConfig
from gpt.sampling.sample import sample
from gpt.train_gpt import make_trainer, new_names, sources, train
from gpt.training.log import MetricsLog
from gpt.training.trainer import OVERHEAD
from tokenizers.encode import encode_dataset

ROUNDS = 12
"""Passes of each GPT while its steps are timed; the first ones are slow."""
FREE = ("tokenizers", "fields", "out", "signals", "data_root", "classifier", "classifiers", "threads")
"""What may change: who takes part, and where things lie. Content is known by fingerprints, here or in row.json."""


def compare_vocabularies(config: CompareVocabulariesConfig) -> dict[str, Any]:
    """Train, sample and evaluate what is not finished yet; returns the content of comparison.json on the main process.

    Raises:
        ValueError, FileNotFoundError: if inputs do not belong together, before anything is trained.
        KeyboardInterrupt: after SIGINT or SIGTERM in a training, when its state has been saved.
    """
    accelerator = start(threads=config.threads, precision="fp32", quiet=True)
    entries, data = on_all(accelerator, enter, config)
    config = replace(config, out=config.out or on_main(accelerator, _vacant, config, data))
    on_all(accelerator, name_all, entries, config.folder)
    benches: list[SharedEvaluation] = []  # of the main process, which alone evaluates
    n = on_main(accelerator, _open, config, entries, data, benches)
    announce = Stages(accelerator, time.perf_counter())
    _plan(config, [e for e in entries if "steps" not in on_main(accelerator, _row, e)], announce)
    for i, entry in enumerate(entries, 1):
        state = on_main(accelerator, _state, entry, benches)
        if "trained" not in state:
            t, v, place = entry.tokenizer.tokens_per_field, entry.tokenizer.codes, entry.folder / "gpt"
            announce(f"{i}/{len(entries)} {entry.name}: a GPT over {t} tokens of {v} codes -> {place}")
            result = train(_training(config, entry, accelerator, state["steps"]))
            on_main(accelerator, _note_training, entry, result)
        if not state["drawn"]:
            announce(f"{i}/{len(entries)} {entry.name}: {n} new fields -> {entry.folder / 'samples'}")
            gpt, out = str(entry.folder / "gpt"), entry.folder / "samples"
            rules: dict[str, Any] = {"seed": config.seed, "temperature": config.temperature}
            sample(SampleConfig(gpt, out, n=n, fields=entry.fields, **rules))
        if "evaluated" not in state:
            on_main(accelerator, _evaluate, config, entry, benches, announce, f"{i}/{len(entries)}")
            on_main(accelerator, _report, config, entries[:i], benches)
    return on_main(accelerator, _report, config, entries, benches, True)


def _asked(config: CompareVocabulariesConfig) -> dict[str, Any]:
    """What the content of a folder depends on."""
    return {k: v for k, v in plain(config).items() if k not in FREE} | {"kind": "comparison", "minutes": config.limit}


def _vacant(config: CompareVocabulariesConfig, data: WeightDataset) -> Path:
    """Where it all goes without --out."""
    asked, parents = {**_asked(config), "fields": config.fields}, {"fields": data.fingerprint}
    how: dict[str, Any] = {"free": ("fields",), "upgrade": _new_names, "kind": "compare_vocabularies"}
    return vacant(config.folder, asked, parents=parents, **how)


def _open(config: CompareVocabulariesConfig, entries: list[Entry], data: Any, benches: list[SharedEvaluation]) -> int:
    """References and folders, on the main process; returns how many fields are drawn from each GPT."""
    benches.append(SharedEvaluation.open(config, data))
    benches[0].check(entries)
    claim(
        config.folder,
        _asked(config),
        parents={"fields": data.fingerprint},
        seed=config.seed,
        upgrade=_new_names,
        kind="compare_vocabularies",
        parts=True,
    )
    for entry in entries:
        claim(entry.folder, entry.describe(), parents=entry.parents, free=tuple(entry.describe()))
    return len(benches[0].references)


def _new_names(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a folder that was made when this command was called a contest."""
    config = {**config, "kind": "comparison"} if config.get("kind") == "contest" else config
    named = new_names(config)
    return {name: named[name] for name in config}  # what a training has besides, a comparison does not


def _note(entry: Entry, values: dict[str, Any]) -> None:
    write_json(entry.folder / "row.json", {**_row(entry), **values})


def _row(entry: Entry) -> dict[str, Any]:
    path = entry.folder / "row.json"
    row = read_json(path, "Delete it.", dict) if path.is_file() else {}
    return {"evaluated" if key == "judged" else key: value for key, value in row.items()}  # an older version's name


def _state(entry: Entry, benches: list[SharedEvaluation]) -> dict[str, Any]:
    """What is finished: `trained` and `evaluated` only where they still hold, `drawn` as a bool."""
    row = _row(entry)
    drawn = (entry.folder / "samples" / "samples.json").is_file()
    if not drawn and not (entry.folder / "gpt" / "run.json").is_file():
        row.pop("trained", None)
    if not drawn or row.get("evaluated", {}).get("key") != benches[0].key:
        row.pop("evaluated", None)
    return row | {"drawn": drawn}


def _plan(config: CompareVocabulariesConfig, entries: list[Entry], announce: Stages) -> None:
    """Tokens where they are missing, and the steps of each training; to be called by all processes."""
    accelerator = announce.accelerator
    steps = [config.steps] * len(entries)
    for entry in entries:
        on_main(accelerator, _tokens, entry)
    if config.limit is not None and entries:
        announce(f"how long a step takes: {', '.join(entry.name for entry in entries)}")
        trainings = [_training(config, entry, accelerator) for entry in entries]
        seconds = seconds_per_step(trainings, threads=config.threads, precision=config.precision)
        steps = [steps_within(config.limit, s, config.steps) for s in seconds]
        for entry, s, n in zip(entries, seconds, steps, strict=True):
            accelerator.print(f"{entry.name}: {s:.3g} s per step at best, {n:,} steps in {config.limit:g} minutes")
    for entry, n in zip(entries, steps, strict=True):
        on_main(accelerator, _note, entry, {"steps": n})


def _training(
    config: CompareVocabulariesConfig, entry: Entry, accelerator: Any, steps: int | None = None
) -> TrainConfig:
    """The training of an entry; to be called by all processes."""
    tokens = on_main(accelerator, _tokens, entry)
    return config.training(entry.fields, str(entry.path), entry.folder / "gpt", tokens, steps)


def _tokens(entry: Entry) -> str:
    """The folder with the tokens of this entry's fields, made where there are none."""
    own = entry.folder / "tokens"
    for where in (entry.path / "tokens", own):
        if (where / "tokens.json").is_file():
            marks = read_json(where / "tokens.json", schema=dict)
            made_by = (marks.get("tokenizer_fingerprint"), marks.get("dataset_fingerprint"))
            if made_by == (entry.tokenizer.fingerprint, entry.data.fingerprint):
                return str(where)
    encode_dataset(entry.tokenizer, entry.data, own)
    return str(own)


def _note_training(entry: Entry, result: dict[str, Any]) -> None:
    """What the table says of a training goes to row.json, which makes it finished."""
    folder = entry.folder / "gpt"
    best = folder if (folder / "best").is_dir() else folder / "last"
    bits = model_bits(best, entry.data, entry.tokenizer)[0] or {}
    found = (row.get("tokens_per_second") for row in MetricsLog(folder / "metrics.jsonl").read())
    speeds = [speed for speed in found if speed is not None]  # lines of validations have none
    trained = {"steps": result["step"], "tokens_per_second": statistics.median(speeds) if speeds else None, **bits}
    trained["best_step"] = trained.pop("step")
    _note(entry, {"trained": trained})


def _evaluate(
    config: CompareVocabulariesConfig, entry: Entry, benches: list[SharedEvaluation], announce: Stages, at: str
) -> None:
    announce(f"{at} {entry.name}: evaluated against {len(benches[0].references)} {benches[0].references.name}")
    torch.set_num_threads(config.threads or cores())
    with torch.no_grad():
        line = benches[0].line(entry)
    _note(entry, {"evaluated": {"key": benches[0].key, **line}})
    print(row_line(entry.name, _row(entry)))


def _report(
    config: CompareVocabulariesConfig, entries: list[Entry], benches: list[SharedEvaluation], last: bool = False
) -> dict[str, Any]:
    """All files of the rows that there are, and the table on the screen at the end."""
    bench = benches[0]
    with torch.no_grad():
        common = bench.common(config.folder / "common.json", config.threads or cores())
        rows = [{"name": entry.name, **entry.describe(), **entry.parents, **_row(entry)} for entry in entries]
        result = {**bench.describe(), "settings": read_json(config.folder / "run.json")["config"]}
        result |= {"rows": rows, "others": common}
        if is_finished(config.folder, rows):
            return read_json(config.folder / "comparison.json", schema=dict)
        text = write_report(config.folder, result, [bench.shown(entry) for entry in entries], bench.references)
    if last:
        finish(config.folder, of=rows)
        print(
            f"\n{text}\nreport.html, comparison.md, comparison.json, comparison.png and bits.png are in {config.folder}"
        )
    return result


# -- how many steps ----------------------------------------------------------------------------------------------------


@products_put_back()
def seconds_per_step(trainings: list[TrainConfig], **launch: Any) -> list[float]:
    """The fastest step of each training, measured in turns; to be called by all processes.

    Measured one by one, on a machine that also does other things, a vocabulary would get as many steps as the machine had
    time while it was measured. So passes of all GPTs take turns, and the fastest pass of each counts. Training then takes
    as long as asked for on a machine that does nothing else, and longer for all equally on one that does.

    Args:
        trainings: of GPTs that are all held in memory, with their tokens.
        launch: threads and precision.
    """
    from accelerate import DistributedDataParallelKwargs

    handlers = [DistributedDataParallelKwargs(broadcast_buffers=False)]
    accelerator = start(**launch, quiet=True, kwargs_handlers=handlers)
    trainers = []
    for config in trainings:
        corpus = on_all(accelerator, load_corpus, *sources(config), config.labels)
        small = replace(corpus, tokens=None, held_out=None)  # neither is needed here
        trainers.append(on_all(accelerator, make_trainer, config, small, accelerator))
    times = [[trainer.seconds_of_pass(step) for trainer in trainers] for step in range(1, ROUNDS + 1)]
    fastest = [OVERHEAD * min(seen) for seen in zip(*times, strict=True)]
    return on_main(accelerator, lambda: fastest)  # the main process' clock


def steps_within(minutes: float, seconds: float, most: int | None) -> int:
    """Steps of so many seconds in so many minutes, at least one and at most `most`."""
    steps = max(1, int(minutes * 60 / seconds))
    return steps if most is None else min(steps, most)
