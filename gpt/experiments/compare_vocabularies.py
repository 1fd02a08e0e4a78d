"""A comparison of vocabularies: a GPT over each, trained equally long on fields of the same signals, sampled and evaluated in the same way.

This file fixes what is done in which order and what is not done again; `compare_inputs` says which take part,
`compare_scores` measures, `compare_report` writes. Everything of one vocabulary lies in OUT/NAME: `tokens/` (where the
tokenizer's folder has none of these fields), `gpt/`, `samples/`, and `row.json`, which says what is finished.
"""

import statistics
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from fields.runtime.flags import Overwrites, Precision
from fields.runtime.launch import cores, start
from fields.runtime.processes import on_all, on_main
from fields.runtime.products import products_put_back
from fields.runtime.runs import claim, plain, read_json, write_json
from gpt.corpus import load_corpus
from gpt.evaluation.config import model_bits
from gpt.experiments.compare_inputs import Entry, enter
from gpt.experiments.compare_report import said, write_report
from gpt.experiments.compare_scores import Bench
from gpt.pipeline import Stages
from gpt.sampling.sample import SampleConfig, sample
from gpt.train_gpt import ModelConfig, TrainConfig, make_trainer, new_names, sources, train
from gpt.training.log import Metrics
from gpt.training.trainer import OVERHEAD
from tokenizers.encode import encode_dataset

ROUNDS = 12
"""Passes of each GPT while its steps are timed; the first ones are slow."""
MINUTES = 5.0
"""Training of each GPT where neither --minutes nor --steps is given."""
FREE = ("tokenizers", "fields", "out", "signals", "data_root", "classifier", "classifiers", "threads")
"""What may change: who takes part, and where things lie. Content is known by fingerprints, here or in row.json."""


@dataclass(frozen=True)
class CompareConfig(Overwrites):
    """A GPT over each of several vocabularies, trained equally long, evaluated in the same way: one table, one sheet of samples.

    TOKENIZER=FIELDS gives a tokenizer its own weight dataset, other fits of the same signals (aligned ones, say); the
    others are trained on --fields. All are compared as pictures with the same held-out signals. What is finished is not
    made again: the same command goes on where it stopped, and one more tokenizer costs only its own training.

    For example:
        python scripts/compare_vocabularies.py runs/mnist/kmeans runs/mnist/pca --fields runs/mnist/fields --data-root DIR
        python scripts/compare_vocabularies.py runs/mnist/pca runs/mnist/aligned-pca=runs/mnist/aligned \\
            --fields runs/mnist/fields --data-root DIR --minutes 10 --labels --out runs/mnist/aligned-or-not
    """

    tokenizers: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Tokenizers, folders or user/name on the Hub, each alone or as TOKENIZER=FIELDS."""
    fields: str
    """Weight dataset, a folder or user/name on the Hub; its held-out signals are the references of all."""
    out: Path = Path("runs/comparison")
    """Folder for report.html, comparison.md, comparison.json, comparison.png, bits.png, and a folder per tokenizer."""
    minutes: float | None = None
    """Training time of each GPT, as steps that are measured side by side; default 5, or no limit with --steps."""
    steps: int | None = None
    """Optimiser steps of each GPT, at most."""
    labels: bool = False
    """Begin every field with its label, and say how many samples are read as theirs."""
    model: ModelConfig = field(default_factory=ModelConfig)
    batch: int = TrainConfig.batch
    """Fields per optimiser step."""
    lr: float = TrainConfig.lr
    """Highest learning rate."""
    eval_every: int = TrainConfig.eval_every
    """Steps between validations; the best model is sampled."""
    n: int = 1000
    """Fields drawn from each GPT, against as many held-out signals; fewer where there are not as many signals."""
    temperature: float = 1.0
    """Of the draws; 1 is the measure."""
    signals: str | None = None
    """Signals the fields were fitted to (digits, mnist, fashion-mnist, a folder); default: what --fields says."""
    data_root: Path | None = None
    """Where the signals' files lie."""
    classifier: Path | None = None
    """Classifier for FID and label accuracy; default: one is trained from the labelled training signals and cached."""
    classifiers: Path = Path("runs/classifiers")
    """Where trained classifiers are kept."""
    seed: int = 0
    """Of training, draws, references and classifier."""
    precision: Precision = "auto"
    """Of training: auto = bf16 on a GPU, or on a CPU with AMX, else fp32 (onednn on AMD CPUs with AVX-512); launcher = what
    accelerate says."""
    threads: int | None = None
    """CPU threads per process; default: cores / processes. Fields are drawn on one thread."""

    def __post_init__(self):
        if not self.tokenizers:
            raise ValueError("name at least one tokenizer for the comparison.")
        if self.n < 2:
            raise ValueError(f"--n must be at least 2, got {self.n}.")
        if self.limit is not None and not self.limit > 0:
            raise ValueError(f"--minutes must be above 0, got {self.minutes}.")
        self.training("", "", Path(), steps=self.steps)  # refuses what cannot be, by the same words
        SampleConfig("", Path(), temperature=self.temperature)

    @property
    def limit(self) -> float | None:
        """Minutes of training."""
        return MINUTES if self.minutes is None and self.steps is None else self.minutes

    def training(
        self, fields: str, tokenizer: str, out: Path, tokens: str | None = None, steps: int | None = None
    ) -> TrainConfig:
        """The training of one GPT, but for its steps the same for all."""
        names = ("labels", "model", "batch", "lr", "eval_every", "seed", "precision", "threads")
        same: dict[str, Any] = {name: getattr(self, name) for name in names}
        same |= {"steps": steps, "sample_every": None, "log_every": 100}
        return TrainConfig(fields=fields, tokenizer=tokenizer, out=out, tokens=tokens, **same)


def compare(config: CompareConfig) -> dict[str, Any]:
    """Train, sample and evaluate what is not finished yet; returns the content of comparison.json on the main process.

    Raises:
        ValueError, FileNotFoundError: if inputs do not belong together, before anything is trained.
        KeyboardInterrupt: after SIGINT or SIGTERM in a training, when its state has been saved.
    """
    accelerator = start(threads=config.threads, precision="fp32", quiet=True)
    entries, data = on_all(accelerator, enter, config)
    benches: list[Bench] = []  # of the main process, which alone evaluates
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


def _open(config: CompareConfig, entries: list[Entry], data: Any, benches: list[Bench]) -> int:
    """References and folders, on the main process; returns how many fields are drawn from each GPT."""
    benches.append(Bench.open(config, data))
    benches[0].check(entries)
    asked = {k: v for k, v in plain(config).items() if k not in FREE} | {"kind": "comparison", "minutes": config.limit}
    claim(
        config.out,
        asked,
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


def _state(entry: Entry, benches: list[Bench]) -> dict[str, Any]:
    """What is finished: `trained` and `evaluated` only where they still hold, `drawn` as a bool."""
    row = _row(entry)
    drawn = (entry.folder / "samples" / "samples.json").is_file()
    if not drawn and not (entry.folder / "gpt" / "run.json").is_file():
        row.pop("trained", None)
    if not drawn or row.get("evaluated", {}).get("key") != benches[0].key:
        row.pop("evaluated", None)
    return row | {"drawn": drawn}


def _plan(config: CompareConfig, entries: list[Entry], announce: Stages) -> None:
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


def _training(config: CompareConfig, entry: Entry, accelerator: Any, steps: int | None = None) -> TrainConfig:
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
    bits = model_bits(folder if (folder / "best").is_dir() else folder / "last", entry.data, entry.tokenizer) or {}
    found = (row.get("tokens_per_second") for row in Metrics(folder / "metrics.jsonl").read())
    speeds = [speed for speed in found if speed is not None]  # lines of validations have none
    trained = {"steps": result["step"], "tokens_per_second": statistics.median(speeds) if speeds else None, **bits}
    trained["best_step"] = trained.pop("step")
    _note(entry, {"trained": trained})


def _evaluate(config: CompareConfig, entry: Entry, benches: list[Bench], announce: Stages, at: str) -> None:
    announce(f"{at} {entry.name}: evaluated against {len(benches[0].references)} {benches[0].references.name}")
    torch.set_num_threads(config.threads or cores())
    with torch.no_grad():
        line = benches[0].line(entry)
    _note(entry, {"evaluated": {"key": benches[0].key, **line}})
    print(said(entry.name, _row(entry)))


def _report(config: CompareConfig, entries: list[Entry], benches: list[Bench], last: bool = False) -> dict[str, Any]:
    """All files of the rows that there are, and the table on the screen at the end."""
    bench = benches[0]
    with torch.no_grad():
        common = bench.common(config.out / "common.json", config.threads or cores())
        rows = [{"name": entry.name, **entry.describe(), **entry.parents, **_row(entry)} for entry in entries]
        result = {**bench.describe(), "settings": read_json(config.out / "run.json")["config"]}
        result |= {"rows": rows, "others": common}
        text = write_report(config.out, result, [bench.shown(entry) for entry in entries], bench.references)
    if last:
        print(f"\n{text}\nreport.html, comparison.md, comparison.json, comparison.png and bits.png are in {config.out}")
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
