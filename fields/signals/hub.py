"""Image datasets of the Hugging Face Hub as signals, by their name: `user/name`, `user/name:config`, `user/name@revision`.

Pictures follow the rules of folders of pictures, and are decoded by the same function: the Hub's files are data of others.
Splits named train, validation and test (and their usual other names) are kept; without them, or with --split, the pictures
are divided at random, as a folder's are. With --stream rows are read as they come, and no file of the dataset is kept.
"""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from fields.runtime.console import bar
from fields.runtime.text import one_line, scrub
from fields.signals.folder import NAMED, SPLIT_NAMES, as_signals, divided, fitted, note, read_picture, reason
from fields.signals.images import Images
from fields.signals.options import SignalsConfig

NAME = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(:(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?", re.ASCII)


def is_hub_name(text: str) -> bool:
    """Whether this names a dataset of the Hub rather than a folder here: an existing folder always wins."""
    if Path(text).expanduser().exists() or Path(text.split("/")[0]).is_dir():
        return False
    return NAME.fullmatch(text) is not None


def load_hub(config: SignalsConfig) -> Images:
    """All pictures of a dataset, which `datasets` fetches and caches, or reads row by row.

    Raises:
        FileNotFoundError: if the dataset cannot be had.
        ValueError: for columns or splits that are not there, or if there is no readable picture.
        RuntimeError: if the connection breaks while rows are read.
    """
    parts = NAME.fullmatch(config.signals)
    assert parts is not None  # see `is_hub_name`
    tables = _tables(parts["repo"], parts["config"], parts["revision"], config)
    image, label = _columns(next(iter(tables.values())).features, config, config.signals)
    names, pictures, labels, skipped = [], [], [], []
    for part, table in tables.items():
        for i, (row, known) in enumerate(_rows(table, image, label, part, config.signals)):
            try:
                pictures.append(fitted(_read(row, parts["repo"]), config.resize, config.crop))
            except (
                Exception
            ) as error:  # Pillow raises nearly any type on a broken file; one row must not end the reading
                skipped.append((f"{part}/{i}", reason(error)))
                continue
            names.append(f"{part}/{i}")
            labels.append(known)
    told = "; ".join(f"row {where}: {why}" for where, why in skipped[:NAMED])
    if not pictures or (skipped and config.strict):
        raise ValueError(
            f"--signals {config.signals}: {len(skipped)} of {len(skipped) + len(pictures)} pictures of column {image} are "
            f"unreadable ({told}). Name another column with --image-column{', or leave out --strict' if pictures else ''}."
        )
    split, inner = divided(names, config.split_seed)
    classes, class_names = _classes(labels, table.features.get(label) if label else None)
    about = {"labels": classes, "label_names": class_names, "skipped": skipped, "split_seed": config.split_seed}
    return as_signals(parts["repo"], names, pictures, split, inner, **about)


def _tables(repo: str, part: str | None, revision: str | None, config: SignalsConfig) -> dict[str, Any]:
    """Split -> table, those splits whose names are known here, or the one asked for, each as long as asked for."""
    from datasets import load_dataset

    try:
        found = load_dataset(repo, part, revision=revision, split=config.split, streaming=config.stream)
        single = config.split is not None
        found = {name: _open(table, config) for name, table in ({"": found} if single else found).items()}
    except (OSError, ValueError, RuntimeError, ImportError) as error:  # what `datasets` and the Hub's client raise
        raise FileNotFoundError(
            f"--signals {repo}: neither a local folder nor an image dataset that the Hub provides ({_said(error)}). Give a folder, or "
            "user/name, user/name:config, user/name@revision."
        ) from None
    if config.split is not None:
        return {"train": found[""]}
    kept: dict[str, Any] = {}
    for name, table in found.items():
        if (known := SPLIT_NAMES.get(name.lower())) is not None and known not in kept:
            kept[known] = table
    if "train" in kept:
        if left := [name for name in found if found[name] not in kept.values()]:
            note(f"splits left out: {', '.join(left)}")
        return kept
    if len(found) == 1:
        return {"train": next(iter(found.values()))}
    raise ValueError(f"--signals {repo} has the splits {', '.join(found)}, none for training. Choose one with --split.")


def _said(error: Exception) -> str:
    """The first line of what a library says, safe to show."""
    lines = str(error).strip().splitlines()
    return one_line(scrub(lines[0] if lines else type(error).__name__), 200)


def _open(table: Any, config: SignalsConfig) -> Any:
    """A table whose columns are known, with as many rows as asked for."""
    if config.stream and table.features is None:
        table = table._resolve_features()  # from the first rows; files that do not say what their columns are
    if config.stream:
        table = table.decode(False)  # pictures are decoded here, where they are checked
    if config.rows is None:
        return table
    return table.take(config.rows if config.stream else min(config.rows, len(table)))


def _columns(features: Any, config: SignalsConfig, name: str) -> tuple[str, str | None]:
    """The column of pictures, and that of labels if there is one."""
    from datasets import ClassLabel, Image

    listed = ", ".join(one_line(str(column), 40) for column in features)
    for flag, column in (("--image-column", config.image_column), ("--label-column", config.label_column)):
        if column is not None and column not in features:
            raise ValueError(f"{flag} {column}: the columns of {name} are {listed}.")
    pictures = [column for column, kind in features.items() if isinstance(kind, Image)]
    image = config.image_column or (pictures[0] if len(pictures) == 1 else "image")
    if image not in pictures:
        raise ValueError(f"--image-column {image} is not a column of pictures of {name}; its columns are {listed}.")
    classes = [column for column, kind in features.items() if isinstance(kind, ClassLabel)]
    label = config.label_column or (classes[0] if len(classes) == 1 else "label" if "label" in features else None)
    return image, label


def _rows(table: Any, image: str, label: str | None, split: str, name: str) -> Iterator[tuple[dict, Any]]:
    """The pictures as files, with their labels."""
    from datasets import Image

    table = table.select_columns([image, *([label] if label else [])]).cast_column(image, Image(decode=False))
    rows, i = iter(bar(table, desc=f"reading {split}", unit="picture", leave=False)), 0
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # a stream breaks off with errors of many libraries
            raise RuntimeError(
                f"--signals {name}: reading stopped after {i:,} rows of {split} ({_said(error)}). Run the same command again."
            ) from None
        i += 1
        yield row[image], row[label] if label else None


def _read(row: dict | None, repo: str) -> Any:
    """One picture of `datasets`: the bytes of a file, the path of one in its cache, or that of one in the repository."""
    if row is None:
        raise ValueError("no picture; expected one")
    if row.get("bytes") is not None:
        return read_picture(io.BytesIO(row["bytes"]))
    if row["path"].startswith(f"hf://datasets/{repo}@"):
        from huggingface_hub import HfFileSystem

        return read_picture(io.BytesIO(HfFileSystem().read_bytes(row["path"])))
    from datasets import config
    from huggingface_hub import constants

    path = Path(row["path"])
    kept = [Path(config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE), Path(config.EXTRACTED_DATASETS_PATH)]
    if not any(path.resolve().is_relative_to(folder.resolve()) for folder in kept):
        raise ValueError("a path outside the cache; expected the picture itself")
    return read_picture(path)


def _classes(labels: list, feature: Any) -> tuple[torch.Tensor | None, list[str] | None]:
    """(N,) int64 and the names of the classes: those of the column, else its different values in order."""
    if all(label is None for label in labels):
        return None, None
    if any(label is None or isinstance(label, (list, dict, float)) for label in labels):
        raise ValueError(
            "--label-column: some rows have no label, or a label that is not a class. Name another column."
        )
    names = getattr(feature, "names", None)
    if names is not None and all(isinstance(label, int) and 0 <= label < len(names) for label in labels):
        return torch.tensor(labels), [str(name) for name in names]
    values = sorted(set(labels), key=lambda value: (isinstance(value, str), value))
    place = {value: i for i, value in enumerate(values)}
    return torch.tensor([place[label] for label in labels]), [str(value) for value in values]
