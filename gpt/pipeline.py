"""The pipeline on scikit-learn's digits: fields, tokens, a GPT, samples, their evaluation. Existing results are kept."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fields.fitting.fit import fit
from fields.fitting.options import FitConfig
from fields.runtime.launch import start
from fields.runtime.processes import on_main
from fields.storage.fetch import beside
from fields.view.page import number_under
from gpt.evaluation.evaluate import EvaluateConfig, evaluate
from gpt.options import DIGITS, PipelineConfig
from gpt.sampling.options import SampleConfig
from gpt.sampling.sample import sample
from gpt.train_gpt import train

ROOT = Path(__file__).resolve().parents[1]


VOCABULARY = (
    *("regions", "--grid", "4", "4", "--side", "2", "--margin", "1", "--vocab-size", "64", "--width", "8"),
    *("--hidden", "512", "--steps", "2000", "--batch", "128"),
)
"""The pipeline's vocabulary: 16 cells of 2 x 2 pixels."""


def run(config: PipelineConfig) -> None:
    """Train on what is given, or run the pipeline."""
    if config.fields is not None:
        train(config.training(out=config.out or beside(config.fields, "gpt")), default=config.out is None)
        return
    run_pipeline(config, Path("runs/digits"))


def run_pipeline(config: PipelineConfig, root: Path) -> None:
    """Fields, tokens, GPT, samples, evaluation, under `root`."""
    began = time.perf_counter()
    accelerator = start(threads=config.threads, precision="fp32", quiet=True)
    announce = Stages(accelerator, began)

    announce(f"1/5 fields: one small network per digit -> {root}/fields")
    folder = root / "fields"
    if config.overwrite or not (folder / "field.json").is_file():
        fit(FitConfig(signals="digits", out=folder, threads=config.threads, overwrite=config.overwrite))

    announce(f"2/5 vocabulary: what the fields say in each cell of a grid -> {root}/regions")
    vocabulary = root / "regions"
    if config.overwrite or not (vocabulary / "report.json").is_file():
        on_main(accelerator, build_vocabulary, folder, vocabulary, config.overwrite, config.threads)

    out = config.out or root / "gpt"
    announce(f"3/5 GPT over the tokens -> {out}")
    steps = None if config.minutes and config.steps == DIGITS.steps else config.steps
    dropped = config.label_dropout if config.labels else 0.0
    train(config.training(fields=str(folder), tokenizer=str(vocabulary), out=out, steps=steps, label_dropout=dropped))

    drawn = root / "samples"
    announce(f"4/5 new fields, drawn from the GPT -> {drawn}")
    again: dict[str, Any] = {"seed": config.seed, "overwrite": config.overwrite}
    report = sample(SampleConfig(model=str(out), out=drawn, n=180, fields=str(folder), **again))

    announce(f"5/5 evaluation: new fields against held-out digits -> {root}/evaluation")
    evaluated = on_main(accelerator, evaluate_samples, folder, drawn, out, root / "evaluation", config)
    accelerator.print(summary(config.labels, report, evaluated, root, out, time.perf_counter() - began))


class Stages:
    """Says which stage begins, and when."""

    def __init__(self, accelerator, began: float):
        self.accelerator, self.began = accelerator, began

    def __call__(self, text: str) -> None:
        self.accelerator.print(f"\n== {text}  ({(time.perf_counter() - self.began) / 60:.1f} min)", flush=True)


def build_vocabulary(folder: Path, out: Path, overwrite: bool = False, threads: int | None = None) -> None:
    """`python -m tokenizers.build` in a process of its own, which knows nothing of the launcher's variables.

    Raises:
        RuntimeError: if it failed; its own message stands above.
    """
    launcher = ("ACCELERATE_", "WORLD_SIZE", "RANK", "LOCAL_", "MASTER_", "TORCHELASTIC", "GROUP_", "ROLE_", "OMP_NUM")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(launcher)}
    words = [*VOCABULARY, "--fields", str(folder.resolve()), "--out", str(out.resolve())]
    words += (["--overwrite"] if overwrite else []) + (["--threads", str(threads)] if threads else [])
    done = subprocess.run([sys.executable, "-m", "tokenizers.build", *words], cwd=ROOT, env=environment)
    if done.returncode:
        raise RuntimeError(f"python -m tokenizers.build {' '.join(words)} failed; see above.")


def evaluate_samples(folder: Path, drawn: Path, model: Path, out: Path, config: PipelineConfig) -> dict:
    """The table of `scripts/evaluate.py`."""
    return evaluate(
        EvaluateConfig(
            fields=str(folder), samples=str(drawn), model=str(model), out=out, classifiers=out.parent / "classifiers",
            threads=config.threads, seed=config.seed, overwrite=config.overwrite,
        )
    )  # fmt: skip


def summary(labels: bool, report: dict, evaluated: dict, root: Path, out: Path, seconds: float) -> str:
    """A few honest numbers, and where to look."""
    rows = {row["kind"]: row for row in evaluated["rows"]}
    ours, unigram, upper = (rows.get(kind) for kind in ("samples", "unigram", "training_fields"))
    lines = ["", f"== done in {seconds / 60:.1f} minutes"]
    if bits := evaluated.get("validation"):
        lines.append(
            f"   held-out fields: {bits['model_bits_per_field']:.1f} bits by the GPT{' told the label' if labels else ''}, "
            f"{bits['unigram_bits_per_field']:.1f} by the per-position unigram"
        )
    lines.append(
        f"   {report['saved']} of {report['asked']} sampled fields are readable, {report['distinct']} are distinct"
    )
    seen = [("samples", ours), ("unigram", unigram), ("training fields", upper)]
    for name, key, form in (
        ("1-NNA (L2; .5 = not to be told from held-out digits, 1 = always)", "l2.1-nna", ".2f"),
        ("FID", "fid", ".0f"),
        ("label accuracy (share read as the digit asked for)", "label_accuracy", ".2f"),
    ):
        values = [(label, number_under(row, key)) for label, row in seen]
        found = [f"{label} {value:{form}}" for label, value in values if value is not None]
        lines += [f"   {name}: " + ", ".join(found)] if found else []
    lines += [
        "   pictures and tables:",
        f"     {out}/samples.png            new digits, each beside its nearest training field",
        f"     {out}/training.png           bits per field while training",
        f"     {root}/evaluation/report.html     all numbers, with their baselines and pictures",
        f"   to look at it: python scripts/demo.py --model {out}   (needs: .venv/bin/python -m pip install -e '.[demo]')",
    ]
    return "\n".join(lines)
