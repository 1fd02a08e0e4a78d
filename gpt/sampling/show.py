"""A picture of anything that this project writes: fields, tokens, a tokenizer, a model, samples, an evaluation, one row.

What lies in the folder decides what is drawn: fields as they are; tokens and tokenizers by what they decode to; a model
by the first fields that it draws; the pictures of an evaluation or of a report one under the other.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fields.kinds.preview import contact_sheet, spread
from fields.kinds.registry import kind_of
from fields.runtime.runs import only_file, read_json
from fields.storage.dataset import WeightDataset
from fields.storage.fetch import HubName, fetch, fetch_fields, is_local
from fields.view.render import save_png, sheet
from gpt.checkpoint import FILES as MODEL_FILES
from gpt.checkpoint import MODELS, load_gpt
from gpt.sampling.generate import sample_ids
from gpt.sampling.options import ShowConfig
from tokenizers.base import WeightTokenizer
from tokenizers.learned.codebook import mean_patches
from tokenizers.learned.regions import RegionsTokenizer
from tokenizers.registry import TOKENIZERS, load_tokenizer
from tokenizers.tokens import TokenDataset

COUNTED = 2000
"""Fields whose regions are averaged for a picture of the codes."""
CODE = 24
"""Pixels of a code's picture."""
MARKS = ("field.json", "tokens.json", "model.json", "metrics.json", "compare.json", "comparison.json")
"""Files that say what a folder is, after its config.json."""
PICTURES = {
    "metrics.json": ("samples.png", "curves.png"),
    "compare.json": ("compare.png",),
    "comparison.json": ("comparison.png", "bits.png"),
}
"""Report -> the pictures beside it."""


def show(config: ShowConfig) -> Path:
    """The command; returns the file written.

    Raises:
        FileNotFoundError: if there is nothing that could be drawn.
        ValueError: for fields without a picture, or rows that are not there.
    """
    folder, what = recognise(config.path)
    if what in ("model", "report") and (config.rows is not None or config.split is not None):
        flag = "--rows" if config.rows is not None else "--split"
        raise ValueError(f"{flag} chooses among fields or tokens, and {folder} is a {what}. Leave the flag out.")
    picture, said = (_codebook if config.codebook else DRAWN[what])(config, folder)
    with only_file(config.file) as temporary:
        save_png(temporary, picture)
    print(f"{said} in {config.file}, {picture.shape[1]} x {picture.shape[0]} pixels")
    return config.file


def recognise(path: str) -> tuple[Path, str]:
    """The folder, on the Hub fetched, and what it is: a key of `DRAWN`.

    Raises:
        FileNotFoundError: if it is nothing of this project.
    """
    if is_local(path):
        folder = Path(path)
        if not folder.exists():
            raise FileNotFoundError(
                f"{path} is not there. Give a folder that one of the commands wrote, or user/name on the Hub."
            )
        if folder.is_file():
            folder = folder.parent
    else:
        folder = _fetched(path)
    for part in (folder, folder / "best", folder / "last"):
        if (part / "field.json").is_file():
            return part, "fields"
        if (part / "tokens.json").is_file():
            return part, "tokens"
        if (part / "config.json").is_file():
            kind = read_json(part / "config.json", schema=dict).get("kind", "gpt")
            if kind in TOKENIZERS:
                return part, "tokenizer"
            drawn = next((p for p in (part / "samples", part.parent / "samples") if (p / "field.json").is_file()), None)
            if kind == "flow" and drawn is not None:  # it draws weights, at the end of its training
                return drawn, "fields"
            if kind in MODELS:
                return part, "model"
        if any((part / name).is_file() for name in PICTURES):
            return part, "report"
    raise FileNotFoundError(
        f"{path} holds no fields, tokens, tokenizer, model or evaluation ({', '.join(MARKS)}, config.json). "
        "Give a folder that one of the commands wrote, or user/name on the Hub."
    )


def _fetched(path: str) -> Path:
    """A repository of the Hub as a folder: a dataset if there is one of this name, else a model."""
    HubName.parse(path)
    try:
        return fetch_fields(path, flag="PATH")
    except (FileNotFoundError, ValueError):
        return fetch(path, "model", patterns=MODEL_FILES, flag="PATH")


# -- one function per kind of folder -----------------------------------------------------------------------------------


def _fields(config: ShowConfig, folder: Path) -> tuple[Tensor, str]:
    source = config.path if not is_local(config.path) else folder
    data = WeightDataset.load(source, flag="PATH")
    split = chosen_split(config.split, list(data.splits), str(source))
    where = chosen_rows(config, len(data.split(split)))
    ids = data.ids(split)
    page = contact_sheet(
        data.kind, data.config, data.weights(split, where), data.extent(split)[where], config.size,
        [ids[i].rsplit("/", 1)[-1] for i in where.tolist()] if len(where) <= 16 else None,
    )  # fmt: skip
    return page, f"{len(where)} of {len(ids):,} fields of {split}"


def _tokens(config: ShowConfig, folder: Path) -> tuple[Tensor, str]:
    tokens = TokenDataset.load(folder, flag="PATH")
    tokenizer = _tokenizer_of(config, folder)
    tokens.check_tokenizer(tokenizer)
    split = chosen_split(config.split, tokens.splits, str(folder))
    where = chosen_rows(config, tokens.count(split))
    weights = tokenizer.decode(tokens.ids(split)[where])
    kind = kind_of(tokenizer.field, tokens.info.signals)
    page = contact_sheet(kind, tokenizer.field, weights, tokens.extent(split)[where], config.size)
    return page, f"{len(where)} of {tokens.count(split):,} fields of {split}, decoded from their tokens"


def _tokenizer_of(config: ShowConfig, folder: Path) -> WeightTokenizer:
    """The tokenizer given, or the one whose folder holds the tokens."""
    if config.tokenizer is not None:
        return load_tokenizer(config.tokenizer, flag="--tokenizer")
    if (folder.resolve().parent / "config.json").is_file():
        return load_tokenizer(folder.resolve().parent)
    raise FileNotFoundError(f"{folder} is not in the folder of its tokenizer. Name the tokenizer with --tokenizer DIR.")


def _tokenizer(config: ShowConfig, folder: Path) -> tuple[Tensor, str]:
    if (folder / "tokens" / "tokens.json").is_file():
        return _tokens(config, folder / "tokens")
    tokenizer = load_tokenizer(folder)
    draw = torch.Generator().manual_seed(config.seed)
    ids = torch.randint(tokenizer.codes, (config.n, tokenizer.tokens_per_field), generator=draw)
    extent = torch.tensor([config.size or (64, 64)] * config.n)
    page = contact_sheet(kind_of(tokenizer.field), tokenizer.field, tokenizer.decode(ids), extent, config.size)
    return page, f"{config.n} fields decoded from codes drawn evenly (no tokens lie beside the tokenizer)"


def _codebook(config: ShowConfig, folder: Path) -> tuple[Tensor, str]:
    """The mean patch of each code, over the fields whose tokens lie beside the tokenizer."""
    if not (folder / "tokens" / "tokens.json").is_file():
        raise FileNotFoundError(f"--codebook needs a tokenizer with its tokens, but there are none in {folder}.")
    tokenizer, tokens = load_tokenizer(folder), TokenDataset.load(folder / "tokens")
    if not isinstance(tokenizer, RegionsTokenizer):
        raise ValueError(
            f"--codebook is for tokenizers of regions, but {folder} is of the kind {tokenizer.config.kind}."
        )
    split = config.split or "train"
    ids = tokens.ids(chosen_split(split, tokens.splits, str(folder)))[:COUNTED]
    patches, counts = mean_patches(tokenizer, ids)
    order = counts.argsort(descending=True, stable=True)[: int((counts > 0).sum())]
    said = f"{len(order)} codes as {len(ids):,} fields of {split} use them"
    return sheet(patches[order].clamp(0, 1), max(1, round(len(order) ** 0.5)), scale=CODE / patches.shape[1]), said


def _model(config: ShowConfig, folder: Path) -> tuple[Tensor, str]:
    model, tokenizer, info = load_gpt(folder)
    draws = sample_ids(model, config.n, seed=config.seed)
    weights = tokenizer.decode(draws.pick(draws.complete).codes)
    kind = kind_of(tokenizer.field, info.get("signals"))
    extent = torch.tensor([info.get("size") or (0, 0)] * len(weights))
    page = contact_sheet(kind, tokenizer.field, weights, extent, config.size)
    return page, f"the first {len(weights)} fields drawn with seed {config.seed}"


def _report(config: ShowConfig, folder: Path) -> tuple[Tensor, str]:
    names = [name for mark, files in PICTURES.items() if (folder / mark).is_file() for name in files]
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise FileNotFoundError(f"{folder} holds none of its pictures ({', '.join(names)}). Make it again.")
    return stack([read_png(path) for path in found]), f"{', '.join(path.name for path in found)}"


DRAWN = {"fields": _fields, "tokens": _tokens, "tokenizer": _tokenizer, "model": _model, "report": _report}
"""What a folder is -> the function that draws it."""


# -- choosing and drawing ----------------------------------------------------------------------------------------------


def chosen_split(asked: str | None, splits: list[str], where: str) -> str:
    """The split asked for, or the first of test, validation and what there is."""
    if asked is None:
        return next(name for name in ("test", "validation", *splits) if name in splits)
    if asked not in splits:
        raise ValueError(f"--split {asked}: {where} has {', '.join(splits)}.")
    return asked


def chosen_rows(config: ShowConfig, n: int) -> Tensor:
    """(k,) positions: those asked for, or `config.n` spread evenly over n."""
    if config.rows is None:
        return spread(n, config.n)
    if max(config.rows, default=0) >= n:
        raise ValueError(f"--rows {max(config.rows)}: the split has {n:,} rows, 0 to {n - 1:,}.")
    return torch.tensor(config.rows)


def read_png(path: Path) -> Tensor:
    """(H, W, 3) in [0, 1]."""
    with Image.open(path, formats=["PNG"]) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).float() / 255


def stack(pictures: list[Tensor]) -> Tensor:
    """Pictures one under the other on white, (H, W, 3)."""
    width = max(p.shape[1] for p in pictures)
    return torch.cat([F.pad(p.permute(2, 0, 1), (0, width - p.shape[1]), value=1.0).permute(1, 2, 0) for p in pictures])
