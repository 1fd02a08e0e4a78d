"""New fields from a trained model: draw sequences, decode them, write a weight dataset, tokens and a picture."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fields.kinds.registry import kind_of
from fields.runtime.console import bar
from fields.runtime.launch import cores, environment_number, start
from fields.runtime.processes import on_all, on_main
from fields.runtime.products import check_onednn
from fields.runtime.resources import check_memory, check_room
from fields.runtime.runs import claim, read_json, vacant, write_json
from fields.storage.dataset import WeightDataset
from fields.storage.fetch import at, beside, last_part
from fields.storage.reference import Reference
from fields.storage.rows import Rows
from gpt.checkpoint import load_gpt
from gpt.sampling.generate import Draws, check_fits, sample_ids
from gpt.sampling.options import SampleConfig
from gpt.sampling.sheet import save_samples_sheet
from tokenizers.base import WeightTokenizer
from tokenizers.tokens import TokenDataset

__all__ = ["Draws", "SampleConfig", "sample", "sample_ids"]
FREE = ("model", "tokenizer", "fields", "revision", "cache")
"""Where things lie (their content is named by fingerprint), and what changes no field."""
FORMER = {"guidance": 1.0, "precision": "fp32"}
"""What was used before there was a choice."""


def find_label(label: str | None, names: list[str] | None) -> int | None:
    """A class index from its name or number.

    Raises:
        ValueError: for a model without labels, or an unknown one; the known ones are listed.
    """
    if label is None:
        return None
    if not names:
        raise ValueError("this model was trained without labels (train with --labels); leave --label out.")
    if label in names:
        return names.index(label)
    if label.isdigit() and int(label) < len(names):
        return int(label)
    raise ValueError(f"--label {label} is unknown. Labels: {', '.join(names)} (or 0 to {len(names) - 1}).")


def sample(config: SampleConfig) -> dict[str, Any]:
    """Draw fields from a GPT, decode them and write a weight dataset.

    Returns:
        The report that samples.json holds.
    Raises:
        ValueError, FileNotFoundError: for models, labels or datasets that do not belong together, before anything is drawn.
        RuntimeError: if no sequence was a readable field.
    """
    if config.precision == "onednn":
        check_onednn()
    accelerator = start(threads=config.threads, precision="fp32")
    model, tokenizer, info = on_all(
        accelerator, load_gpt, *(at(s, config.revision) for s in (config.model, config.tokenizer))
    )
    if config.size is not None and kind_of(tokenizer.field).name == "images":
        info = {**info, "size": list(config.size)}
    label = on_all(accelerator, find_label, config.label, info["label_names"])
    if config.guidance != 1 and not info.get("label_dropout"):
        raise ValueError("--guidance needs a model trained with --labels and --label-dropout; this one was not.")
    data = (
        None
        if config.fields is None
        else on_all(accelerator, _load_fields, at(config.fields, config.revision), tokenizer)
    )
    parents = {"model": info["fingerprint"], "tokenizer": tokenizer.fingerprint}
    about: dict[str, Any] = {"parents": parents, "free": FREE, "upgrade": _upgrade, "kind": "sample"}
    default = beside(config.model, f"{last_part(config.model)}-samples")
    out: Path = config.out or on_main(accelerator, vacant, default, config, **about)
    config = replace(config, out=out)
    on_all(accelerator, _check_fits, config, out, model, tokenizer, accelerator)  # before the folder is claimed
    on_main(accelerator, claim, out, config, seed=config.seed, **about)
    if all((out / name).is_file() for name in ("samples.json", "field.json")):
        accelerator.print(f"{out} holds these samples already.")
        return read_json(out / "samples.json", "Delete the folder and run the command again.", dict)
    draws = _draw(config, model.to(accelerator.device), label, accelerator)
    return on_main(accelerator, _write, config, out, draws, tokenizer, info, data)


def _check_fits(config: SampleConfig, out: Path, model: Any, tokenizer: WeightTokenizer, accelerator: Any) -> None:
    """Refuse what neither memory nor disk can hold: weights as decoded, checked and saved, codes as drawn and kept."""
    check_fits(model, config.n, config.block, _workers(config, accelerator), config.cache, config.guidance)
    held = 12 * tokenizer.field.size + 24 * tokenizer.tokens_per_field
    check_memory(config.n * held, f"weights and tokens of {config.n:,} fields", "cpu", "a smaller --n")
    check_room(out, config.n * held // 2, "fields and tokens")


def _load_fields(path: Path | str, tokenizer: WeightTokenizer) -> WeightDataset:
    data = WeightDataset.load(path, flag="--fields")
    if data.config != tokenizer.field:
        raise ValueError(
            f"--fields {path} holds fields {data.config}, the model makes {tokenizer.field} ({data.config.against(tokenizer.field)})."
        )
    return data


def _upgrade(config: dict) -> dict:
    return {**FORMER, **config}


def _draw(config: SampleConfig, model: Any, label: int | None, accelerator: Any) -> Draws:
    """All fields, each process taking every world-th block; to be called by all processes."""
    names = ("seed", "temperature", "top_k", "top_p", "guidance", "grammar", "first", "cache", "block", "threads")
    how: dict[str, Any] = {name: getattr(config, name) for name in names}
    how |= {"workers": _workers(config, accelerator), "onednn": config.precision == "onednn"}
    rank, world = accelerator.process_index, accelerator.num_processes
    with bar(total=config.n, desc="fields", unit="field", quiet=not accelerator.is_main_process) as shown:

        def progress(done: int) -> None:
            shown.update(min(done * world, config.n - shown.n))

        mine = sample_ids(model, config.n, label=label, share=(rank, world), progress=progress, **how)
    from accelerate.utils import gather_object

    return Draws.join(gather_object([mine]))


def _workers(config: SampleConfig, accelerator: Any) -> int:
    """Blocks that a process draws at a time: as many as its share of the cores allows, one on a GPU."""
    if accelerator.device.type != "cpu":
        return 1
    local = environment_number("LOCAL_WORLD_SIZE", accelerator.num_processes)
    return max(1, cores() // local // config.threads)


def _write(
    config: SampleConfig, out: Path, draws: Draws, tokenizer: WeightTokenizer, info: dict, data: WeightDataset | None
) -> dict[str, Any]:
    """The folder: fields that could be read, their tokens, a picture, and what became of the others."""
    whole = draws.pick(draws.complete)
    weights = tokenizer.decode(whole.codes)
    finite = weights.isfinite().all(1)
    report = {**draws.report(), "unreadable": int((~finite).sum()), "saved": int(finite.sum())}
    if not finite.any():
        counts = ", ".join(f"{v} {k}" for k, v in draws.report().items() if k not in ("asked", "distinct"))
        raise RuntimeError(
            f"none of {len(draws)} sequences is a readable field ({counts}). Train longer, or leave out --no-grammar."
        )
    whole, weights = whole.pick(finite), weights[finite]
    made = _dataset(config, whole, weights, info, tokenizer, data)
    made.save(out)
    samples = {"samples": (whole.codes, made.rows("samples"))}
    TokenDataset.from_ids(tokenizer, samples, made).save(out / "tokens")
    save_samples_sheet(out / "samples.png", made.config, weights, info["size"], data)
    write_json(out / "samples.json", report)  # last: it says that the folder is complete
    left_out = {
        k: v for k, v in report.items() if v and k in ("too short", "too long", "empty", "malformed", "unreadable")
    }
    print(
        f"{report['saved']} fields in {out} ({report['distinct']} distinct"
        + "".join(f", {v} {k} left out" for k, v in left_out.items())
        + f"); a code repeats the one before it in {report['repeated_token_share']:.1%} of places"
    )
    return report


def _dataset(
    config: SampleConfig,
    draws: Draws,
    weights: Tensor,
    info: dict,
    tokenizer: WeightTokenizer,
    data: WeightDataset | None,
) -> WeightDataset:
    """Fields as a weight dataset whose only split is `samples`; `seed` is the number of each field."""
    ids = [f"sample/{config.seed}/{i}" for i in draws.index.tolist()]
    labels = draws.labels if info["label_names"] else None
    rows = Rows(weights, ids, labels, draws.index, extent=torch.tensor([info["size"]] * len(weights)))
    signals = {
        **info["signals"],
        "label_names": info["label_names"],
        "name": f"samples of {info['signals'].get('name')}",
    }
    start_row = Reference("unknown", "drawn from a GPT") if data is None else data.reference
    return WeightDataset.from_rows(tokenizer.field, {"samples": rows}, start_row, signals)
