"""The same GPT over tokens of the pictures themselves: what the detour through the weights of fields costs.

A picture is cut into a grid of patches; k-means of training patches gives one codebook for all places, as `regions` has for
fields; a network turns all tokens of a picture into its pixels. No field anywhere.
"""

from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn

from fields.metrics.pairs import psnr
from fields.runtime.digests import of_content
from fields.runtime.launch import cores
from fields.runtime.runs import claim, finish, is_finished, read_json, vacant, write_atomic, write_json
from fields.runtime.text import escape_markdown, markdown_table
from fields.signals.base import Signals
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals
from fields.view.render import save_png, sheet
from gpt.data import unigram_bits
from gpt.evaluation.features import cached_classifier, load_classifier
from gpt.evaluation.items import SignalSet
from gpt.evaluation.predictions import predict
from gpt.evaluation.scores import Scorer
from gpt.experiments.options import PictureTokensConfig
from gpt.in_memory import fit_gpt
from gpt.sampling.generate import sample_ids

SAVED = ("out", "data_root", "classifier", "classifiers", "threads")
"""Settings that change no number, and where things lie."""
LEARNT = 100_000
"""Distinct patches that k-means sees."""
CERTAIN = 0.01
"""Pixels of the codes lie at least so far from 0 and 1 where the decoder's network starts from them."""


class Patches:
    """A vocabulary of patches.

    Args:
        images: (N, H, W, C) training pictures.
        config: grid, codes, decoder.
    Raises:
        ValueError: if the grid does not divide the pictures, or there are fewer patches than codes.
    """

    def __init__(self, images: Tensor, config: PictureTokensConfig):
        self.shape, self.grid = images.shape[1:], config.grid
        if images.shape[1] % self.grid[0] or images.shape[2] % self.grid[1]:
            raise ValueError(
                f"--grid {self.grid} must divide pictures of {images.shape[1]} x {images.shape[2]} pixels."
            )
        generator = torch.Generator().manual_seed(config.seed)
        rows = self.cut(images).flatten(0, 1)
        some = rows[torch.randperm(len(rows), generator=generator)[: 4 * LEARNT]]
        some = torch.unique(some, dim=0)  # most patches are empty, and centres would be spent on copies of one
        if len(some) < config.vocab_size:
            raise ValueError(f"--vocab-size {config.vocab_size} is more than the {len(some)} patches that differ.")
        some = some[torch.randperm(len(some), generator=generator)[:LEARNT]]
        found = MiniBatchKMeans(config.vocab_size, batch_size=4096, n_init=3, random_state=config.seed).fit(
            some.numpy()
        )
        self.code_vectors = torch.from_numpy(found.cluster_centers_).double()
        self.codes, self.tokens_per_field = config.vocab_size, self.grid[0] * self.grid[1]
        self.slots = torch.stack(torch.meshgrid(*map(torch.arange, self.grid), indexing="ij"), -1).flatten(0, 1)
        self.slot_sizes = self.grid
        self.field = SimpleNamespace(size=self.shape.numel())
        self.decoder = self._learn(images, config)

    def cut(self, images: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, T, numbers of a patch)."""
        n, h, w, c = images.shape
        (rows, columns) = self.grid
        parts = images.view(n, rows, h // rows, columns, w // columns, c).permute(0, 1, 3, 2, 4, 5)
        return parts.reshape(n, rows * columns, -1)

    def encode(self, images: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, T) nearest codes."""
        parts = [
            torch.cdist(p.flatten(0, 1), self.code_vectors.float()).argmin(1) for p in self.cut(images).split(2048)
        ]
        return torch.cat(parts).view(len(images), -1)

    @torch.no_grad()
    def decode(self, ids: Tensor) -> Tensor:
        """(N, T) -> (N, H, W, C)."""
        parts = [self._logits(self.decoder, p).sigmoid() for p in ids.split(2048)]
        return torch.cat(parts).view(-1, *self.shape)

    def glue(self, patches: Tensor) -> Tensor:
        """(N, T, numbers of a patch) -> (N, H * W * C), the inverse of `cut`."""
        (rows, columns), (h, w, c) = self.grid, self.shape
        parts = patches.view(-1, rows, columns, h // rows, w // columns, c).permute(0, 1, 3, 2, 4, 5)
        return parts.reshape(len(patches), -1)

    def _logits(self, model: nn.Module, ids: Tensor) -> Tensor:
        """(N, T) -> (N, H * W * C): the codes' own pixels, and what the network adds."""
        patches = self.code_vectors.float()[ids]
        return self.glue(patches).clamp(CERTAIN, 1 - CERTAIN).logit() + model(patches.flatten(1))

    def _learn(self, images: Tensor, config: PictureTokensConfig) -> nn.Module:
        """The decoder, by the cross-entropy of pixels."""
        ids, size = self.encode(images), self.field.size
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(config.seed)
            width = config.hidden
            layers = [nn.Linear(self.tokens_per_field * self.code_vectors.shape[1], width), nn.GELU()]
            layers += [nn.Linear(width, width), nn.GELU()]
            last = nn.Linear(width, size)  # after the others: random numbers are drawn in the order of the layers
            model = nn.Sequential(*layers, last)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            optimiser = torch.optim.Adam(model.parameters())
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=config.decoder_steps)
            for _ in range(config.decoder_steps):
                pick = torch.randint(len(ids), (256,))
                loss = F.binary_cross_entropy_with_logits(self._logits(model, ids[pick]), images[pick].flatten(1))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        return model.eval()


def train_pictures(config: PictureTokensConfig) -> dict:
    """Vocabulary, GPT, samples and their numbers; returns what result.json holds."""
    torch.set_num_threads(config.threads or cores())
    signals = load_signals(SignalsConfig(signals=config.signals, data_root=config.data_root))
    if len(torch.unique(signals.extent, dim=0)) != 1:
        raise ValueError(f"--signals {config.signals} are pictures of several sizes, but all must have one size.")
    default = Path("runs") / Path(config.signals).resolve().name / "picture-tokens"
    out = config.out or vacant(default, config, free=SAVED, kind="train_pictures")
    of = [signals.digest(), config.classifier and of_content(config.classifier)]
    if claim(out, config, seed=config.seed, free=SAVED, kind="train_pictures") and is_finished(out, of):
        return read_json(out / "result.json", schema=dict)
    free = (split for split in ("validation", "test") if split != config.split and len(signals.indices(split)))
    other = next(free, config.split)  # whose round trip is shown: not that of the references, if it can be
    where = {split: signals.indices(split) for split in ("train", "validation", other, config.split)}
    images = {split: signals.images(rows) for split, rows in where.items()}
    labels = {
        split: signals.labels[rows] if config.labels and signals.labels is not None else None
        for split, rows in where.items()
    }
    words = Patches(images["train"], config)
    ids = {split: words.encode(images[split]) for split in where}
    model = fit_gpt(
        ids["train"], words, labels=labels["train"], held_out=ids["validation"], held_out_labels=labels["validation"],
        model=config.model, steps=config.steps, batch=config.batch, lr=config.lr, seed=config.seed,
    )  # fmt: skip
    draws = sample_ids(model, config.n, seed=config.seed)
    trip = words.decode(ids[other])
    result = {
        "signals": signals.name,
        "seed": config.seed,
        "bits": {
            "unigram": unigram_bits(ids["train"], ids["validation"], words.codes),
            "held_out": float(predict(model, ids["validation"], labels["validation"]).bits.mean()),
        },
        "psnr": float(psnr(trip, images[other]).mean()),
        "rows": score(
            config, signals, images, trip, words.decode(draws.codes), draws.labels if model.config.labels else None
        ),
    }
    save_png(out / "samples.png", sheet(words.decode(draws.codes[:64]), 8))
    write_json(out / "result.json", result)
    with write_atomic(out / "table.md") as temporary:
        temporary.write_text(table(result), encoding="utf-8")
    print(table(result))
    finish(out, of=of)
    return result


def score(
    config: PictureTokensConfig, signals: Signals, images: dict, trip: Tensor, drawn: Tensor, labels: Tensor | None
) -> dict[str, dict]:
    """The lines of training pictures, the round trip of other held-out pictures and samples, against held-out pictures."""
    if config.classifier is not None:
        classifier = load_classifier(config.classifier)
    elif signals.labels is not None:
        known = {"name": f"{signals.name} training images", "seed": config.seed, "label_names": signals.label_names}
        classifier, _ = cached_classifier(
            config.classifiers, images["train"], signals.labels[signals.indices("train")], **known
        )
    else:
        classifier = None
    generator = torch.Generator().manual_seed(config.seed)

    def some(pictures: Tensor) -> Tensor:
        return pictures[torch.randperm(len(pictures), generator=generator)[: config.n]]

    scorer = Scorer(SignalSet(config.split, some(images[config.split])), classifier, config.seed)
    rows = {
        "training pictures": (some(images["train"]), None),
        "round trip": (some(trip), None),
        "samples": (drawn, labels),
    }
    return {name: scorer.line(SignalSet(name, pictures, labels=of, kind=name)) for name, (pictures, of) in rows.items()}


def table(result: dict) -> str:
    """Markdown."""
    bits = result["bits"]
    said = (
        f"Tokens of {escape_markdown(result['signals'])} pictures, no field: {bits['held_out']:.1f} bits a validation picture, unigram "
        f"{bits['unigram']:.1f}; round trip {result['psnr']:.2f} dB; seed {result['seed']}."
    )
    lines = []
    for name, row in result["rows"].items():
        measured = (row["l2"]["1-nna"], row["ssim"]["1-nna"], row["l2"]["cov"], row["fid"], row["label_accuracy"])
        shown = ["n/a" if v["value"] is None else f"{v['value']:.{1 if v is row['fid'] else 3}f}" for v in measured]
        lines.append([name, row["n"], *shown])
    head = ["set", "N", "1-NNA L2", "1-NNA SSIM", "COV L2", "FID", "label accuracy"]
    return f"{said}\n\n{markdown_table(head, lines)}\n"
