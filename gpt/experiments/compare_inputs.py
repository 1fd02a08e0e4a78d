"""The inputs of a comparison: tokenizers with their weight datasets, checked to belong together, and a name for each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fields.runtime.runs import read_json
from fields.storage.dataset import WeightDataset
from fields.storage.fetch import HubName, fetch, is_local
from tokenizers.base import FILES, WeightTokenizer
from tokenizers.encode import check_field, divide
from tokenizers.registry import load_tokenizer


@dataclass
class Entry:
    """A tokenizer and the fields its GPT is trained on.

    Attributes:
        source: the tokenizer as it was given, without its fields.
        fields: the weight dataset as it was given.
        path: the tokenizer's folder here.
        folder: OUT/NAME.
    """

    source: str
    fields: str
    path: Path
    tokenizer: WeightTokenizer
    data: WeightDataset
    folder: Path = Path()

    @property
    def name(self) -> str:
        """In table, pictures and folders."""
        return self.folder.name

    @property
    def parents(self) -> dict[str, str]:
        """Fingerprints of what a row is made from."""
        return {"tokenizer": self.tokenizer.fingerprint, "fields": self.data.fingerprint}

    def describe(self) -> dict[str, Any]:
        """For JSON."""
        t = self.tokenizer
        sizes = {"tokenizer_kind": t.config.kind, "tokens_per_field": t.tokens_per_field, "codes": t.codes}
        return {"source": self.source, "source_fields": self.fields, **sizes}


def enter(config: Any) -> tuple[list[Entry], WeightDataset]:
    """All entries of a comparison, without their folders (see `name_all`), and the dataset of --fields.

    Raises:
        ValueError: for duplicates, tokenizers of another field, datasets without training fields or of other signals.
        FileNotFoundError: for what is not there.
    """
    loaded = {config.fields: WeightDataset.load(config.fields, flag="--fields")}
    seen: dict[tuple[str, ...], str] = {}
    entries = []
    for text in config.tokenizers:
        source, fields = divide(text, config.fields)
        entry = _enter(text, source, fields, loaded)
        check_comparable(entry, loaded[config.fields])
        same = tuple(entry.parents.values())
        if same in seen:
            raise ValueError(f"{text} is the same tokenizer on the same fields as {seen[same]}. Name it once.")
        seen[same] = text
        entries.append(entry)
    return entries, loaded[config.fields]


def _enter(text: str, source: str, fields: str, loaded: dict[str, WeightDataset]) -> Entry:
    if fields not in loaded:
        loaded[fields] = WeightDataset.load(fields, flag=f"{text}:")
    path = fetch(source, "model", patterns=FILES, flag="tokenizer")
    entry = Entry(source, fields, path, load_tokenizer(path), loaded[fields])
    try:
        entry.data.check_training()
        check_field(entry.tokenizer, entry.data)
    except ValueError as error:
        raise ValueError(f"{text}: {error}") from None
    return entry


def check_comparable(entry: Entry, data: WeightDataset) -> None:
    """Refuse fields of other signals than those of --fields, and fields that are no pictures."""
    if entry.data.kind.name != "images":
        raise ValueError(f"{entry.fields} holds fields of {entry.data.kind.name}, not of images.")
    theirs, ours = entry.data.signals.get("name"), data.signals.get("name")
    if theirs != ours:
        raise ValueError(
            f"{entry.fields} holds fields of the signals {theirs!r}, --fields of {ours!r}: a comparison needs one set of "
            "signals."
        )


# -- names -------------------------------------------------------------------------------------------------------------


def name_all(entries: list[Entry], out: Path) -> None:
    """A folder OUT/NAME for each: the one that was made of the same things, or else the first free name.

    Raises:
        ValueError: if a folder was made from the same place, but what lies there has changed.
    """
    known = {p.parent.name: read_json(p, schema=dict) for p in sorted(out.glob("*/run.json"))}
    for entry in entries:
        mine = [name for name, run in known.items() if run.get("parents") == entry.parents]
        if mine:
            entry.folder = out / mine[0]
    taken = set(known)
    for entry in entries:
        if entry.folder == Path():
            _refuse_changed(entry, known, out)
            name = next(n for n in names(entry) if n not in taken and not (out / n).exists())
            taken.add(name)
            entry.folder = out / name


def _refuse_changed(entry: Entry, known: dict[str, dict], out: Path) -> None:
    for name, run in known.items():
        was = run.get("config", {})
        if (was.get("source"), was.get("source_fields")) == (entry.source, entry.fields):
            raise ValueError(
                f"{out / name} was made with another tokenizer or other fields ({run['parents']}) than are now in "
                f"{entry.source} and {entry.fields} ({entry.parents}). Delete {out / name} to make it again, or choose "
                "another --out."
            )


def names(entry: Entry) -> Iterator[str]:
    """Names that an entry could have, the shortest first: NAME, PARENT-NAME, NAME-FIELDS, NAME-2, ..."""
    parts, own = _parts(entry.source), _parts(entry.fields)
    yield parts[-1]
    yield "-".join(parts[-2:])
    yield "-".join([parts[-1], *own[-2:]])
    number = 2
    while True:
        yield f"{parts[-1]}-{number}"
        number += 1


def _parts(source: str) -> list[str]:
    """The last words of a folder's or a Hub repository's name."""
    if is_local(source):
        return list(Path(source).resolve().parts[1:]) or ["root"]
    name = HubName.parse(source)
    return [*name.repo.split("/"), *([name.variant] if name.variant else [])]
