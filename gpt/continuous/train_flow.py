"""Training a rectified flow over the weights of fields or over a tokenizer's latents, and drawing new ones: the comparison to tokens.

The same trainer as the GPT's with another task: equal sizes, steps, labels and checkpoints, so that both schools are compared
under the same budget.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fields.kinds.registry import kind_of
from fields.runtime.launch import precision_of, start
from fields.runtime.processes import on_all, on_main
from fields.runtime.products import products_put_back
from fields.runtime.resources import check_memory
from fields.runtime.runs import claim, digest, finish, is_finished, read_json, replace_folder, vacant, write_json
from fields.signals.seen import refuse_seen, seen_by
from fields.storage.dataset import WeightDataset
from fields.storage.fetch import beside
from fields.storage.reference import Reference
from fields.storage.rows import Rows
from fields.view.render import save_png, sheet
from gpt.checkpoint import load_model
from gpt.continuous.flow import Flow, FlowConfig
from gpt.continuous.options import TrainFlowConfig
from gpt.continuous.vectors import Vectors
from gpt.data import seed_of
from gpt.training.schedule import warmup_steps
from gpt.training.task import Task, trainable_size
from gpt.training.trainer import Trainer
from tokenizers.base import WeightTokenizer
from tokenizers.registry import load_tokenizer
from tokenizers.selection import draw

VALIDATED = 2048
"""Held-out fields whose loss is measured, drawn once, as are noise and times."""


FREE = (
    *("fields", "tokenizer", "out", "threads", "keep", "recompute", "log_every", "save_every", "steps"),
    *("n", "integration", "guidance", "tracker", "project", "samples"),
)
"""What may change when a run goes on."""


class FlowTask(Task[Flow]):
    """Fields as vectors; the squared error of the velocity is minimised.

    Args:
        model: fresh.
        config: of the run.
        data: the fields.
        vectors: what a field is to the model.
        rows: (N, T, D) the training fields as vectors.
    """

    unit = "per number"

    def __init__(self, model: Flow, config: TrainFlowConfig, data: WeightDataset, vectors: Vectors, rows: Tensor):
        self.model, self.config, self.data, self.vectors = model, config, data, vectors
        self.rows, self.labels = rows, labels_of(config, data, "train")
        self.held_out, self.held_labels = None, torch.zeros(0).long()
        if "validation" in data.splits and len(data.splits["validation"]):
            chosen = draw(len(data.splits["validation"]), VALIDATED, 0)  # the first ones may all be of one class
            self.held_out = vectors.of(data.weights("validation", chosen))
            self.held_labels = labels_of(config, data, "validation")[chosen]

    def __len__(self) -> int:
        return len(self.rows)

    def loss(self, model: Flow, rows: Tensor, seed: int) -> Tensor:
        """Sum over fields of the mean squared error; noise, times and hidden labels are functions of `seed`."""
        rows, device = rows[rows >= 0], self.model.mean.device
        generator = torch.Generator().manual_seed(seed)
        labels = self.labels[rows].clone()
        labels[torch.rand(len(rows), generator=generator) < self.config.unlabelled] = self.model.config.labels
        return self._losses(model, self.rows[rows], labels, generator).sum().to(device)

    def _losses(self, model: Flow, rows: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(rows.shape, generator=generator)
        times = torch.randn(len(rows), generator=generator).sigmoid()  # middle times most (arXiv 2403.03206)
        rows, labels, noise, times = (t.to(self.model.mean.device) for t in (rows, labels, noise, times))
        return self.model.loss(rows, labels, noise, times, model)

    def optimizers(self, config: Any) -> list[torch.optim.Optimizer]:
        """AdamW."""
        fused = self.model.mean.device.type in ("cpu", "cuda")
        return [
            torch.optim.AdamW(self.model.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=fused)
        ]

    def validate(self, model: Flow, accelerator: Any, micro: int) -> dict[str, Any] | None:
        """The loss of held-out fields."""
        if self.held_out is None:
            return None
        generator = torch.Generator().manual_seed(seed_of(self.config.seed, "validation"))
        with torch.no_grad():
            pairs = zip(self.held_out.split(micro), self.held_labels.split(micro), strict=True)
            losses = [self._losses(model, rows, labels, generator).cpu() for rows, labels in pairs]
        return {"loss": float(torch.cat(losses).mean())}

    def load(self, out: Path) -> Flow:
        """The best model, else the last."""
        return load_model(out)[0]

    def save(self, path: Path, model: Flow, info: dict[str, Any]) -> None:
        """Write a model folder."""
        with replace_folder(path) as temporary:
            model.save_pretrained(temporary)
            info = {**info, "dataset": self.data.fingerprint, "kind": "flow"}
            if (tokenizer := self.vectors.tokenizer) is not None:
                tokenizer.save_pretrained(temporary / "tokenizer")
                info["tokenizer"] = tokenizer.fingerprint
            write_json(temporary / "model.json", info)

    def draw(self, path: Path, model: Flow) -> None:
        """A sheet of new fields."""
        rows = draw_rows(model, self.config, self.vectors, self.config.samples)
        kind, size = kind_of(self.data.config, self.data.signals), self.data.extent("train")[0].tolist()
        save_png(path, sheet(kind.thumbnail(self.data.config, rows.weights, tuple(size)), columns=8))


def labels_of(config: TrainFlowConfig, data: WeightDataset, split: str) -> Tensor:
    """(N,) int64 labels; without labels all are the one that stands for none."""
    known, classes = data.labels(split) if config.labels else None, len(data.label_names or ()) if config.labels else 0
    if known is None:
        return torch.full((len(data.splits[split]),), classes)
    return torch.where(known >= 0, known, classes)


def draw_rows(model: Flow, config: TrainFlowConfig, vectors: Vectors, n: int) -> Rows:
    """New fields; field i depends on the seed and i alone."""
    c, device = model.config, model.mean.device
    noise = [
        torch.randn(c.tokens, c.numbers, generator=torch.Generator().manual_seed(seed_of(config.seed, "sample", i)))
        for i in range(n)
    ]
    labels = torch.arange(n) % c.labels if c.labels else None
    parts = []
    for at in range(0, n, 250):
        told = None if labels is None else labels[at : at + 250].to(device)
        start_at = torch.stack(noise[at : at + 250]).to(device)
        parts.append(model.sample(start_at, told, steps=config.integration, guidance=config.guidance).cpu())
    weights = vectors.rows(torch.cat(parts))
    good = weights.isfinite().all(1)
    rows = Rows(weights, [f"flow/{config.seed}/{i}" for i in range(n)], labels, torch.arange(n))
    return rows.pick(good)


@products_put_back()
def train_flow(config: TrainFlowConfig) -> dict[str, Any]:
    """The command: train, or go on, then write OUT/samples.

    Raises:
        ValueError: for a dataset without training fields, or without labels where they are asked for.
    """
    accelerator = start(threads=config.threads, precision=config.precision)
    data = WeightDataset.load(config.fields, flag="--fields")
    if "train" not in data.splits or not len(data.splits["train"]):
        raise ValueError(
            f"--fields {config.fields} has no training fields. Fit signals that have a training split, or name one so."
        )
    if config.labels and not data.label_names:
        raise ValueError(f"--labels needs a dataset with labels; {config.fields} has none. Leave the flag out.")
    tokenizer = None if config.tokenizer is None else on_all(accelerator, _load_tokenizer, config.tokenizer, data)
    vectors = Vectors(data.config, tokenizer)
    parents = {"fields": data.fingerprint} | ({} if tokenizer is None else {"tokenizer": tokenizer.fingerprint})
    about: dict[str, Any] = {"parents": parents, "free": FREE, "kind": "train_flow"}
    if config.out is None:
        config = replace(config, out=on_main(accelerator, vacant, beside(config.fields, "flow"), config, **about))
    out: Path = config.out or Path("flow")
    about |= {"seed": config.seed, "used": {"precision": precision_of(accelerator)}}
    if on_main(accelerator, _all_done, config, out, about):
        return summary_of(out)
    check_memory(
        16 * len(data.splits["train"]) * data.config.size, "weights of the training fields", "cpu", "fewer fields"
    )
    rows = vectors.of(data.weights("train"))
    sizes = FlowConfig(
        rows.shape[1], rows.shape[2], len(data.label_names or ()) if config.labels else 0, **asdict(config.model)
    )
    with torch.device("meta"):  # counted without being made
        numbers = trainable_size(Flow(sizes))
    check_memory(16 * numbers, f"weights, gradients and moments of {numbers:,} numbers", accelerator.device)
    drawn = config.n * (8 * sizes.tokens * sizes.numbers + 12 * data.config.size)
    check_memory(drawn, f"noise and weights of {config.n:,} new fields", "cpu", "a smaller --n")
    known = on_main(accelerator, claim, out, config, **about)  # errors come before the folder is claimed
    task = FlowTask(Flow.create(sizes, rows, config.seed), config, data, vectors, rows)
    trainer = Trainer(config, task, accelerator)
    if known:
        on_all(accelerator, trainer.resume)
    result = (
        trainer.summary()
        if trainer.finished(config.steps)
        else trainer.run(config.steps, warmup_steps(None, config.steps))
    )
    on_main(accelerator, save_samples, config, out, data, vectors)
    return result


def _load_tokenizer(where: str, data: WeightDataset) -> WeightTokenizer:
    tokenizer = load_tokenizer(where, flag="--tokenizer")
    if not tokenizer.is_fitted:
        raise ValueError(f"--tokenizer {where} is not fitted. Fit one with: python -m tokenizers.build")
    refuse_seen(f"--tokenizer {where}", tokenizer.seen, data)
    return tokenizer


def _made_of(config: TrainFlowConfig, out: Path) -> list[Any]:
    """What OUT/samples are made of, besides what `claim` compares."""
    model = load_model(out)[0]
    weights = digest(model.config, *model.state_dict().values())
    return [weights, config.steps, config.n, config.integration, config.guidance]


def _all_done(config: TrainFlowConfig, out: Path, how: dict[str, Any]) -> bool:
    """Whether this very command has ended well before: then nothing is encoded, trained or drawn."""
    if config.overwrite or not (out / "samples" / "field.json").is_file():
        return False
    return claim(out, config, **how) and is_finished(out, _made_of(config, out))


def summary_of(out: Path) -> dict[str, Any]:
    """Where a finished run stands, as `Trainer.summary` tells it."""
    last = read_json(out / "last" / "model.json", schema=dict)
    best = read_json(out / "best" / "model.json", schema=dict) if (out / "best" / "model.json").is_file() else {}
    return {"step": last["step"], "best": best.get("validation"), "last": last["validation"], "stopped": False}


def save_samples(config: TrainFlowConfig, out: Path, data: WeightDataset, vectors: Vectors) -> None:
    """OUT/samples, a weight dataset with the split `samples`, and its sheet."""
    model, folder = load_model(out)[0], out / "samples"
    rows = draw_rows(model, config, vectors, config.n)
    if not len(rows):
        raise RuntimeError("no sample is finite. Train longer, or with a lower --lr.")
    signals = {**data.signals, "seen": seen_by(data), "counts": {"samples": len(rows)}}
    reference = Reference("unknown", f"drawn from a rectified flow trained on dataset {data.fingerprint}")
    WeightDataset.from_rows(data.config, {"samples": rows}, reference, signals).save(folder)
    print(
        f"{len(rows):,} of {config.n:,} new fields in {folder}; evaluate them with: python scripts/evaluate.py --samples {folder} "
        f"--fields {config.fields}"
    )
    finish(out, [f"{folder.name}/field.json"], _made_of(config, out))
