"""Time and memory of the commands against the number of fields N, and of a training step against the tokens T.

Every point is a whole process: its CPU seconds and its largest resident memory as the system accounts for them.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fields.runtime.runs import only_file, write_json
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals
from scripts.benchmarks.options import ScaleBenchmark

ROOT = Path(__file__).resolve().parents[2]


def process(words: list[str]) -> dict[str, float]:
    """CPU seconds, wall seconds and peak MiB of a command."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment, stdout=said, stderr=said)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(words[:3])} failed: {said.read().decode(errors='replace')[-300:]}")
    cpu = usage.ru_utime + usage.ru_stime
    return {"cpu": cpu, "wall": time.perf_counter() - began, "peak": usage.ru_maxrss / 1024}


def against_n(config: ScaleBenchmark, folder: Path) -> list[dict]:
    """A row per number of fields: what fitting, encoding and training (three steps, all rows mapped) took."""
    rows, signals = [], len(load_signals(SignalsConfig()))
    for fits in config.fits:
        here = folder / str(fits)
        fields, tokenizer, tokens = here / "fields", folder / str(config.fits[0]) / "kmeans", here / "tokens"
        short = ["--fits", str(fits), "--steps", "4", "--meta-steps", "5", "--threads", "1", "--out", str(fields)]
        row = {"n": signals * fits, "fit": process(["scripts/fit_fields.py", *short])}
        if not tokenizer.is_dir():
            words = ["kmeans", "--vocab-size", "16", "--fields", str(fields), "--out", str(tokenizer)]
            process(["-m", "tokenizers.build", *words])
        both = ["--stream", "--fields", str(fields), "--tokenizer", str(tokenizer)]
        row["encode"] = process(["-m", "tokenizers.encode", *both, "--out", str(tokens)])
        small = ["--model.n-layer", "1", "--model.n-embd", "16", "--steps", "3", "--samples", "0", "--threads", "1"]
        given = ["--tokens", str(tokens), "--out", str(here / "gpt"), "--batch", "8", "--eval-fields", "64"]
        row["train"] = process(["scripts/train_gpt.py", *both, *given, *small])
        print(
            f"N = {row['n']:>9,}  " + "   ".join(said(name, row[name]) for name in ("fit", "encode", "train")),
            flush=True,
        )
        rows.append(row)
    return rows


def mapped(config: ScaleBenchmark, folder: Path) -> list[dict]:
    """A row per size of a token set that training reads from a mapped file."""
    rows = []
    for n in config.mapped:
        call = [sys.executable, "-m", "scripts.benchmarks.mapped", str(n), str(config.tokens[0]), str(folder / "ids")]
        row = json.loads(subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
        print(
            f"N = {n:>9,} x {config.tokens[0]} tokens mapped ({row['file']:.0f} MiB): {row['own']:.0f} MiB of its own after "
            f"200 batches, {row['cpu']:.1f} CPU s",
            flush=True,
        )
        rows.append(row)
    return rows


def said(name: str, found: dict[str, float]) -> str:
    """One measurement in words."""
    return f"{name} {found['cpu']:6.1f} s {found['peak']:6.0f} MiB"


def against_t(config: ScaleBenchmark) -> list[dict]:
    """A row per number of tokens: a training step with and without recomputed activations."""
    rows = []
    for t in config.tokens:
        row = {"t": t}
        for name, again in (("kept", 0), ("recomputed", 1)):
            sizes = (t, config.batch, again, config.n_embd, config.n_layer)
            call = [sys.executable, "-m", "scripts.benchmarks.step", *map(str, sizes)]
            done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True)
            row[name] = json.loads(done.stdout)
        kept, other = row["kept"], row["recomputed"]
        print(
            f"T = {t:>5}  {config.batch * (t + 1) / kept['seconds']:7,.0f} tokens/s, {kept['grown']:6.0f} MiB; --recompute "
            f"{config.batch * (t + 1) / other['seconds']:7,.0f} tokens/s, {other['grown']:6.0f} MiB",
            flush=True,
        )
        rows.append(row)
    return rows


def slope(x: list[float], y: list[float]) -> tuple[float, float]:
    """Least squares: (y per unit of x, y at 0)."""
    return tuple(np.polyfit(x, y, 1)) if len(x) > 1 else (float("nan"), y[0])


def scale(config: ScaleBenchmark) -> None:
    """Measure, print the slopes, draw."""
    with tempfile.TemporaryDirectory() as folder:
        rows, tokens = against_n(config, Path(folder)), mapped(config, Path(folder))
    n = [row["n"] / 1e6 for row in rows]
    for name in ("fit", "encode", "train"):
        seconds, start = slope(n, [row[name]["cpu"] for row in rows])
        memory, least = slope(n, [row[name]["peak"] for row in rows])
        print(
            f"{name:7} {seconds:8.1f} CPU s and {memory:8.0f} MiB per million fields, above {start:.1f} s and {least:.0f} MiB"
        )
    steps = against_t(config)
    with only_file(config.out) as temporary:
        write_json(config.out.with_suffix(".json"), {"n": rows, "mapped": tokens, "t": steps}, seal=False)
        draw(temporary, rows, steps)
    print(f"wrote {config.out} and {config.out.with_suffix('.json')}")


def draw(path: Path, rows: list[dict], steps: list[dict]) -> None:
    """Time and memory against N, and against T."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(2, 2)
    n, t = [row["n"] for row in rows], [row["t"] for row in steps]
    for name, colour in (("fit", "#0072B2"), ("encode", "#009E73"), ("train", "#D55E00")):
        axes[0, 0].plot(n, [row[name]["cpu"] for row in rows], "o-", color=colour, label=name)
        axes[0, 1].plot(n, [row[name]["peak"] for row in rows], "o-", color=colour, label=name)
    for name, colour in (("kept", "#D55E00"), ("recomputed", "#CC79A7")):
        axes[1, 0].plot(t, [row[name]["seconds"] for row in steps], "o-", color=colour, label=f"activations {name}")
        axes[1, 1].plot(t, [row[name]["grown"] for row in steps], "o-", color=colour, label=f"activations {name}")
    for line, (x, first) in enumerate(
        (("fields N", "CPU seconds of the command"), ("tokens T", "CPU seconds of a step"))
    ):
        for ax, y in zip(axes[line], (first, "largest memory, MiB"), strict=True):
            ax.set(xlabel=x, ylabel=y, ylim=(0, None), xlim=(0, None))
            ax.spines[["top", "right"]].set_visible(False)
            ax.legend(frameon=False)
    figure.savefig(path, dpi=110)
