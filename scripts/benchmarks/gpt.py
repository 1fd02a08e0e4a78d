"""Tokens learnt and fields drawn per second, against a plain nanoGPT-style model and transformers' cached generation.

Times are CPU seconds of the process, which other work on the machine does not change, and wall seconds beside them.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from fields.runtime.launch import cores
from fields.runtime.products import onednn_fits, use_onednn
from gpt.data import Sequences
from gpt.model import GPT, GPTConfig
from gpt.options import OptimizerConfig
from gpt.sampling.generate import sample_ids
from gpt.token_task import TokenTask
from gpt.training.local import Local
from gpt.training.priors import initialise_from_counts
from gpt.training.trainer import Trainer
from scripts.benchmarks.nano import NanoGPT, NanoTrainer
from scripts.benchmarks.options import GPTBenchmark
from tokenizers.vocab import Vocab

TURN = 3
"""Steps that one side takes before it is the other's turn."""


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """(CPU seconds, wall seconds)."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def training(config: GPTBenchmark, t: int) -> dict[str, float]:
    """Side -> tokens per CPU second: medians of turns side by side. Sides: ours in fp32, and with oneDNN's products where they
    fit, and the plain loop as PyTorch comes, in fp32 too."""
    generator = torch.Generator().manual_seed(config.seed)
    batch = max(1, config.per_step // t)
    ids = torch.randint(config.codes, (max(512, 2 * batch), t), generator=generator)
    stream = torch.cat([ids, torch.full((len(ids), 1), config.codes)], 1).flatten()
    plain = NanoTrainer(nano(config, t + 1), stream, batch, 1e-3, config.seed)
    if config.compile:
        plain.forward = torch.compile(plain.model)
    steps = {"plain": lambda step: plain.step(), "fp32": _steps(config, ids, batch)}
    if onednn_fits():
        steps["onednn"] = _steps(config, ids, batch)
    times: dict[str, list[float]] = {side: [] for side in steps}
    for turn in range(1 + max(1, config.steps // TURN)):
        for side, step in steps.items():
            use_onednn(side == "onednn")
            seconds = timed(lambda step=step, turn=turn: [step(turn * TURN + i + 1) for i in range(TURN)])[0]
            times[side] += [seconds] if turn else []  # the first steps are slow
    use_onednn(False)
    tokens = TURN * batch * (t + 1)
    return {side: tokens / sorted(taken)[len(taken) // 2] for side, taken in times.items()}


def _steps(config: GPTBenchmark, ids: torch.Tensor, batch: int) -> Callable[[int], object]:
    """A step of a trainer of its own."""
    ours = trainer(config, ids, batch)
    return lambda step: ours.step(step, 1e-3, Quiet())


class Quiet:
    """Nobody interrupts."""

    requested = False


def trainer(config: GPTBenchmark, ids: torch.Tensor, batch: int) -> Trainer:
    """Ours, in memory, without dropout as nanoGPT's default."""
    model = GPT.create(architecture(config, ids.shape[1]), torch.zeros(ids.shape[1], 0).long(), config.seed)
    train = Sequences(ids, Vocab(config.codes))
    initialise_from_counts(model, train, None, config.seed)
    loop = OptimizerConfig(batch=batch, seed=config.seed, compile=config.compile)
    return Trainer(loop, TokenTask(model, train), Local())


def architecture(config: GPTBenchmark, t: int) -> GPTConfig:
    """The sizes asked for, with all that `scripts/train_gpt.py` adds by default."""
    sizes = {"n_layer": config.n_layer, "n_head": config.n_head, "n_embd": config.n_embd}
    return GPTConfig(config.codes, t, (), 0, **sizes, dropout=0.0, unigram=True, gates=True)


def nano(config: GPTBenchmark, context: int) -> NanoGPT:
    """The plain model, with an end token."""
    torch.manual_seed(config.seed)
    return NanoGPT(config.codes + 1, context, config.n_layer, config.n_head, config.n_embd)


def sampling(config: GPTBenchmark, t: int) -> dict[str, tuple[float, int]]:
    """name -> (CPU seconds per field, fields drawn)."""
    model = GPT.create(architecture(config, t), torch.zeros(t, 0).long(), config.seed)
    sample_ids(model, 2, threads=config.threads)
    found = {}
    for side in ("fp32", "onednn") if onednn_fits() else ("fp32",):
        draw = partial(sample_ids, model, config.n, threads=config.threads, onednn=side == "onednn")
        found[side] = (timed(draw)[0] / config.n, config.n)
    plain, start = nano(config, t + 1).eval(), torch.full((config.plain, 1), config.codes)
    plain.generate(start[:2], 2)
    found["plain"] = (timed(lambda: plain.generate(start, t))[0] / config.plain, config.plain)
    one = timed(lambda: plain.generate(start[:1], t))[0]
    found["plain, one at a time"] = (one, 1)
    return found


def transformers(config: GPTBenchmark, t: int) -> float | str:
    """CPU seconds per field of transformers' cached generate in a process of its own, or why there is none."""
    python, script = str((config.python or Path(sys.executable)).absolute()), Path(__file__).with_name("hf_generate.py")
    words = (config.codes + 1, t, config.n_layer, config.n_head, config.n_embd, config.n, 64, config.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": str(config.threads), "HF_HUB_OFFLINE": "1"}
    call = [python, "-P", str(script), *map(str, words)]
    done = subprocess.run(call, capture_output=True, text=True, env=environment, cwd="/")
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return json.loads(done.stdout.splitlines()[-1])["cpu"] / config.n


def gpt(config: GPTBenchmark) -> None:
    """Print both tables."""
    torch.set_num_threads(config.threads)
    sizes = f"{config.n_layer} x {config.n_embd}, {config.codes} codes"
    print(
        f"GPT {sizes}; {config.threads} thread(s) of {cores()} cores, float32, {'compiled' if config.compile else 'eager'}, "
        f"seed {config.seed}; CPU seconds"
    )
    print(f"\n{'training':10} {'batch':>6} {'plain tokens/s':>15} {'ours, fp32':>18} {'ours, onednn':>18}")
    for t in config.tokens:
        found = training(config, t)
        cells = [f"{found[s]:,.0f} (x {found[s] / found['plain']:.2f})" for s in ("fp32", "onednn") if s in found]
        print(
            f"T = {t:<6} {max(1, config.per_step // t):6} {found['plain']:15,.0f} {' '.join(f'{c:>18}' for c in cells)}",
            flush=True,
        )
    print(
        f"\n{'sampling':10} {'ours, fp32':>12} {'onednn':>8} {'transformers':>24} {'plain':>24} {'plain, one by one':>24}   "
        "fields per CPU second (times ours, fp32 and onednn)"
    )
    for t in config.tokens:
        found, hf = sampling(config, t), transformers(config, t)
        ours = [found[side][0] for side in ("fp32", "onednn") if side in found]
        others = [hf, found["plain"][0], found["plain, one at a time"][0]]
        cells = [f"{1 / seconds:,.1f}" for seconds in ours] + ["-"] * (2 - len(ours))
        cells += [
            other
            if isinstance(other, str)
            else f"{1 / other:.2f} (x {', '.join(f'{other / own:.1f}' for own in ours)})"
            for other in others
        ]
        print(f"T = {t:<6} {cells[0]:>12} {cells[1]:>8} {' '.join(f'{cell:>24}' for cell in cells[2:])}", flush=True)
