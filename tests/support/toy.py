"""A toy corpus for the tests of `gpt`: 25-weight fields of three classes, k-means tokens. No test itself."""

from pathlib import Path

import torch

from fields.model import FieldConfig
from fields.storage.dataset import WeightDataset
from gpt.options import ModelConfig, TrainConfig
from tokenizers.classic.kmeans import KMeansTokenizer
from tokenizers.classic.options import KMeansConfig
from tokenizers.tokens import TokenDataset

FIELD = FieldConfig(hidden=(6,), octaves=0)
TINY = ModelConfig(n_layer=2, n_head=2, n_embd=16, dropout=0.1)


def make_fields(root: Path, n: int = 40, labelled: bool = True, seed: int = 0) -> WeightDataset:
    """n training and n // 4 validation fields around three centres, in root/fields."""
    generator = torch.Generator().manual_seed(seed)
    total = n + n // 4
    labels = torch.randint(3, (total,), generator=generator)
    centres = torch.randn(3, FIELD.size, generator=generator)
    weights = centres[labels] + 0.2 * torch.randn(total, FIELD.size, generator=generator)
    splits = {}
    for name, rows in {"train": slice(0, n), "validation": slice(n, total)}.items():
        if len(weights[rows]):
            ids = [f"toy/{name}/{i}" for i in range(len(weights[rows]))]
            sizes = torch.full((len(ids), 2), 8)
            splits[name] = {"weights": weights[rows], "signal_id": ids, "sizes": sizes}
            splits[name]["labels"] = labels[rows] if labelled else None
    names = ["red", "green", "blue"] if labelled else None
    signals = {"name": "toy", "label_names": names, "channels": 1, "shape": [8, 8]}
    data = WeightDataset.from_rows(FIELD, splits, signals=signals)
    data.save(root / "fields")
    return data


def make_tokens(root: Path, data: WeightDataset, codes: int = 8, seed: int = 0, name: str = "tokenizer") -> Path:
    """A k-means tokenizer of the fields, with their tokens, in root/name."""
    tokenizer = KMeansTokenizer(KMeansConfig(vocab_size=codes, seed=seed, field=data.config.to_dict()))
    tokenizer.fit(data.weights("train"))
    tokenizer.save_pretrained(root / name)
    rows = {}
    for split in data.splits:
        rows[split] = {"ids": tokenizer.encode(data.weights(split)), "labels": data.labels(split)}
        rows[split] |= {"signal_id": data.ids(split), "sizes": data.extent(split)}
    TokenDataset.from_ids(tokenizer, rows, data).save(root / name / "tokens")
    return root / name


def make_corpus(root: Path, **kwargs) -> Path:
    """Fields and tokens."""
    make_tokens(root, make_fields(root, **kwargs))
    return root


def config(root: Path, out: str = "gpt", **kwargs) -> TrainConfig:
    """A run of seconds."""
    values = {"steps": 12, "batch": 8, "eval_every": 4, "log_every": 1, "samples": 0, "threads": 1, "precision": "fp32"}
    values |= {"model": TINY, "warmup": 2, **kwargs}
    return TrainConfig(root / "fields", root / "tokenizer", out=root / out, **values)
