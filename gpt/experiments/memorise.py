"""The experiment the regression transformer is here for: how many fields can it memorise, and which ones?

The same digits are fitted to the same quality in four ways (from random weights, from one fitted field, from a learnt
start, and from random weights with the neurons matched afterwards). For every way, number of fields and seed one model
is trained, a cell, and then has to generate each field from its first weight alone. Cells are independent, as many run
at once as there are threads, and finished ones are not repeated.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import torch

from fields.fitting.align import aligned
from fields.fitting.fit import architecture_for, fit_fields
from fields.fitting.options import FitConfig, Start
from fields.fitting.starts import make_reference
from fields.runtime import launch, runs
from fields.runtime.console import bar, plural
from fields.runtime.processes import Interrupt, Stopped, on_all, on_main
from fields.runtime.products import products_put_back
from fields.signals.base import Signals
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals
from fields.storage.dataset import WeightDataset
from gpt.experiments.memorise_report import write_report
from gpt.experiments.memorise_run import Cut, Trial, measure_trial, save_cell, train_cell
from gpt.experiments.options import MemoriseConfig


def trials(config: MemoriseConfig) -> list[Trial]:
    """All cells, small ones first, so that the table fills from the left."""
    sizes = [(n, s) for n in config.n for s in range(config.seeds)] + [(n, 0) for n in config.between]
    return sorted({Trial(n, seed, start) for n, seed in sizes for start in config.starts})


@products_put_back()
def memorise(config: MemoriseConfig) -> dict[str, Any]:
    """The command: fields, cells, table and figures.

    Returns:
        What results.json holds: per cell its numbers.
    Raises:
        ValueError: if there are too few training signals, or the folder was made otherwise.
        KeyboardInterrupt: after Ctrl-C; finished cells are kept.
    """
    accelerator = launch.start(threads=config.threads, precision=config.precision)
    signals = load_signals(SignalsConfig(config.signals, config.data_root))
    pool = on_all(accelerator, choose_signals, signals, config)  # errors come before the folder is claimed
    claimed = {**asdict(config), "out": None, "data_root": None, "signals": signals.name}
    free = ("threads", "starts", "n", "between", "seeds")  # more cells may be added to what is there
    how: dict[str, Any] = {"free": free, "kind": "memorise"}
    if config.out is None:
        config = replace(config, out=on_main(accelerator, runs.vacant, config.folder, claimed, **how))
    out = config.folder
    on_main(accelerator, runs.claim, out, claimed, seed=config.seed, **how)
    data: dict[str, WeightDataset] = {
        way: _fields(config, way, signals, pool, accelerator) for way in _needed(config.starts)
    }
    if "aligned" in config.starts:
        data["aligned"] = align_to_best(data["unconditioned"])
    accelerator.wait_for_everyone()
    todo = [c for c in trials(config) if not (out / "cells" / c.name / "cell.json").is_file()]
    accelerator.wait_for_everyone()  # everyone has looked before anyone writes
    _run_cells(config, todo, data, pool, accelerator)
    accelerator.wait_for_everyone()
    return on_main(accelerator, write_report, out, trials(config), data, pool, config)


# -- fields -----------------------------------------------------------------------------------------------------------


def choose_signals(signals: Signals, config: MemoriseConfig) -> Signals:
    """The training signals that are memorised, `config.most` for each seed, drawn by `config.seed`."""
    train, wanted = signals.indices("train"), config.seeds * config.most
    if len(train) < wanted:
        raise ValueError(
            f"{config.seeds} seeds of {config.most} fields need {wanted} training signals, {signals.name} has {len(train)}."
        )
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(config.seed))
    return signals.subset(train[order[:wanted]])


def rows_of_trial(config: MemoriseConfig, cell: Trial) -> slice:
    """A cell's fields among those chosen: N = 4 is the beginning of N = 32."""
    return slice(cell.seed * config.most, cell.seed * config.most + cell.n)


def align_to_best(data: WeightDataset) -> WeightDataset:
    """The fields with their neurons matched to those of the best fitted one."""
    return aligned(data, int(data.quality("train").argmax()))[0]


def _needed(starts: tuple[str, ...]) -> list[Start]:
    """Ways that are fitted; the aligned fields are made from the unconditioned ones."""
    wanted = {"unconditioned" if way == "aligned" else way for way in starts}
    ways: tuple[Start, ...] = ("unconditioned", "conditioned", "meta")
    return [way for way in ways if way in wanted]


def _fields(config: MemoriseConfig, way: Start, signals: Signals, pool: Signals, accelerator) -> WeightDataset:
    """The chosen signals fitted until `target_psnr`; the start may be learnt from all training signals."""
    folder = config.folder / "fields" / f"{way}-{len(pool)}"
    if (folder / "field.json").is_file():
        return WeightDataset.load(folder)
    architecture = architecture_for(signals)
    how = FitConfig(
        signals=config.signals, start=way, steps=1000, fits=1, target_psnr=config.target_psnr, seed=config.seed
    )
    start = FitConfig(start=way, seed=config.seed)
    reference = on_main(accelerator, make_reference, architecture, signals, start, device=accelerator.device)
    return fit_fields(architecture, pool, how, out=folder, accelerator=accelerator, reference=reference)


# -- cells ------------------------------------------------------------------------------------------------------------


def _run_cells(config: MemoriseConfig, todo: list[Trial], data: dict, pool: Signals, accelerator) -> None:
    """This process' share of the cells, as many at once as it has threads."""
    mine = todo[accelerator.process_index :: accelerator.num_processes]
    workers = torch.get_num_threads() if accelerator.device.type == "cpu" else 1
    done, cut = len(trials(config)) - len(todo), Cut()
    if done:
        accelerator.print(f"{done} of {len(trials(config))} cells are there already")
    total, quiet = len(mine) * config.steps, not accelerator.is_main_process
    shown = bar(total=total, unit="step", desc=plural(len(mine), "cell"), quiet=quiet)

    def work(cell: Trial) -> None:
        rows = data[cell.start].weights("train")[rows_of_trial(config, cell)]
        model = train_cell(config, cell, rows.to(accelerator.device), accelerator.mixed_precision, cut, shown.update)
        found = measure_trial(model.cpu(), data[cell.start], pool, rows_of_trial(config, cell))
        save_cell(config.folder / "cells" / cell.name, cell, model, found)
        shown.write(f"{cell.name}: {found['psnr_own'].mean():.2f} dB against the field itself, L1 {found['l1']:.4f}")

    with (
        Interrupt() as interrupt,
        ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool_,
    ):
        waiting = [pool_.submit(work, cell) for cell in mine]
        try:
            for future in waiting:
                while not future.done():
                    if interrupt.requested:
                        raise Stopped(interrupt.number)
                    threading.Event().wait(0.2)
                future.result()
        except BaseException:
            cut.requested = True
            for future in waiting:
                future.cancel()
            raise
        finally:
            shown.close()
