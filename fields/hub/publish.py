"""What all kinds of publishing share - options, the folder a repository is laid out in, the push - and weight datasets.

Tokens and tokenizers: `tokenizers.hub`; models, and the command: `gpt.hub`.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fields.hub.cards import command, fields_card, may_publish, plain_run
from fields.hub.options import Publish, PublishFields
from fields.hub.push import Push, Sent
from fields.hub.shards import has_pictures, hub_features, previews, write_shards
from fields.kinds.preview import spread
from fields.runtime import locks
from fields.runtime.digests import of_footer
from fields.runtime.files import drop, keep_times, remove, replace_folder, sweep, temporary_name
from fields.runtime.processes import AGAIN, Stopped
from fields.runtime.records import parse_json
from fields.runtime.runs import read_json, write_json
from fields.runtime.text import check_split, inside
from fields.storage.dataset import FieldFile, WeightDataset
from fields.storage.fetch import RepoKind
from fields.view.render import save_png, sheet

MARK = ".hub.json"
SHOWN = 40
"""Fields on the picture of a card."""


def place(options: Publish) -> Path:
    """Where a repository is prepared."""
    return options.out or Path("runs/hub") / options.repo


@contextmanager
def stage(options: Publish) -> Iterator[Path]:
    """The folder a repository is laid out in; gone afterwards, unless it was asked for and the block ended well.

    Raises:
        ValueError: if the folder holds other files.
        RuntimeError: if another push is using it.
    """
    out = place(options)
    with locks.scope():
        locks.take(out)
        sweep(out)
        if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file()):
            raise ValueError(f"--out {out} holds other files. Choose another folder.")
        if options.dry_run:
            with replace_folder(out) as folder:
                write_json(folder / MARK, {"repo": options.repo})
                yield folder
                keep_times(folder, out)
            return
        drop(out)  # of a dry run before
        folder = temporary_name(out, folder=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            remove(folder)


def read_run(folder: Path) -> dict:
    """run.json of a folder, without what is private; nothing where there is none."""
    return plain_run(read_json(folder / "run.json", schema=dict)) if (folder / "run.json").is_file() else {}


@dataclass
class Publication:
    """What a kind's preparation gives.

    Attributes:
        kind: of the repository.
        message: of the commit.
        mark: files of which one lies at the top of every repository of this kind.
        check: looks at what is there (None for a dry run) and refuses it, before any work; asked again when somebody
            else has committed meanwhile.
        prepare: writes all files but the card.
        card: the card's text, from the folder and what is there.
        mine: paths that belong to what is published.
    """

    kind: RepoKind
    message: str
    mark: tuple[str, ...]
    prepare: Callable[[Path], None]
    card: Callable[[Path, Push | None], str]
    mine: Callable[[str], bool]
    check: Callable[[Push | None], None] = lambda push: None


def publish(options: Publish, content: Publication) -> Sent | None:
    """Check, prepare, push, and say what happened; None for a dry run."""
    push = None
    if not options.dry_run:
        push = Push(options.repo, content.kind, options.private, options.revision).check()
    check_place(content, push)
    with stage(options) as folder:
        content.prepare(folder)

        def finish(now: Push | None) -> None:
            check_place(content, now)
            (folder / "README.md").write_text(content.card(folder, now), encoding="utf-8")

        if push is None:
            finish(None)
            files = [p for p in folder.rglob("*") if p.is_file() and p.name != MARK]
            size = sum(p.stat().st_size for p in files)
            print(f"dry run: {len(files)} files, {size / 1e6:,.1f} MB in {place(options)}; nothing was sent")
            return None
        try:
            done = push.send(folder, content.message, content.mine, finish)
        except Stopped as stopped:
            stopped.said = f"{AGAIN}: what has arrived is not sent again"
            raise
    if done.files or done.deleted:
        print(
            f"{done.url}: {done.files} files new or changed ({done.sent / 1e6:,.1f} MB), {done.deleted} deleted, "
            f"{done.unchanged} unchanged"
        )
    else:
        print(f"{done.url}: all {done.unchanged} files are there already; nothing was sent")
    return done


def check_place(content: Publication, push: Push | None) -> None:
    """Refuse a repository that holds other files; a dry run does not know its content."""
    others = [p for p in push.files if p not in ("README.md", ".gitattributes", "LICENSE")] if push else []
    if push and others and not any(name in push.files for name in content.mark):
        raise ValueError(
            f"{push.repo} holds other files ({', '.join(others[:3])}{' ...' if len(others) > 3 else ''}). "
            "Choose another name, or empty it first."
        )
    content.check(push)


# -- weight datasets -------------------------------------------------------------------------------------------------


def publish_fields(options: PublishFields, given: WeightDataset | None = None) -> Sent | None:
    """Push a weight dataset; see `PublishFields`.

    Args:
        options: what and where to.
        given: a dataset in memory, where none is to be read from `options.path`.
    """
    data = WeightDataset.load(options.path, stream=True) if given is None else given
    name = options.variant or variant_name(data)
    if not name.isidentifier() or name in ("data", "default", "assets"):
        raise ValueError(f"--variant must be a plain word other than data, default and assets, got {name!r}.")
    if not any(len(rows) for rows in data.splits.values()):
        raise ValueError("there are no fields to publish.")
    may_publish(data.signals)
    run = read_run(options.path) if given is None else {}
    place = FieldsPlace(name)

    def prepare(folder: Path) -> None:
        root = folder / (place.prefix or "")
        preview = options.preview and has_pictures(data)
        shards = write_shards(data, root / "data", preview)
        made = {"command": command(run), "commit": run.get("commit"), "versions": run.get("versions")}
        about = data.describe() | {"variant": name, "shards": shards, "quality": _quality(data), "made": made}
        about |= {"license": options.license} if options.license else {}
        about["columns"] = _columns(data, preview)
        about["files"] = {file.name: of_footer(file) for file in sorted((root / "data").glob("*.parquet"))}
        if has_pictures(data) and draw_fields(folder / "assets" / f"{name}.png", data):
            about["picture"] = f"assets/{name}.png"
        data.reference.save_encoder(root)
        write_json(root / "field.json", about)
        if run:
            write_json(root / "run.json", run)
        if given is None and (options.path / "samples.json").is_file():
            shutil.copyfile(inside(options.path, "samples.json"), root / "samples.json")

    def card(folder: Path, push: Push | None) -> str:
        variants = place.others(push) | {name: read_json(folder / (place.prefix or "") / "field.json")}
        if not place.prefix:
            variants = {name: variants.pop(name)} | variants
        return fields_card(options.repo, variants)

    message = f"{name}: {sum(len(rows) for rows in data.splits.values()):,} fields"
    return publish(options, Publication("dataset", message, ("field.json",), prepare, card, place.mine, place.find))


@dataclass
class Variant(FieldFile):
    """A published `field.json`, as far as it is read again."""

    variant: str | None = None
    shards: dict[str, int] = field(default_factory=dict)


class FieldsPlace:
    """Where a variant lies in a repository: the default at the top, each other one in a folder of its own."""

    def __init__(self, name: str):
        self.name = name
        self.first: str | None = None
        self.prefix: str | None = None

    def find(self, push: Push | None) -> None:
        """At the top of a new repository or where this variant stands already, else in its folder.

        Raises:
            ValueError: if another push has taken the place found before.
        """
        there = push.read("field.json") if push is not None else None
        repo = push.repo if push is not None else ""
        self.first = (
            None
            if there is None
            else parse_json(f"{repo}/field.json", there, "Repair or remove it there.", Variant)["variant"]
        )
        prefix = "" if self.first in (None, self.name) else f"{self.name}/"
        if self.prefix not in (None, prefix):
            raise ValueError(
                f"another push has changed where {repo} keeps its variants, whose default is now {self.first}. "
                "Run the same command again."
            )
        self.prefix = prefix

    def mine(self, path: str) -> bool:
        """Whether a path belongs to this variant."""
        if path == f"assets/{self.name}.png":
            return True
        if self.prefix:
            return path.startswith(self.prefix)
        return path.startswith("data/") or path in ("field.json", "run.json", "samples.json", "encoder.safetensors")

    def others(self, push: Push | None) -> dict[str, dict]:
        """The other variants of the repository, the default first."""
        if push is None:
            return {}
        found = {}
        for path in sorted(p for p in push.files if p.split("/")[-1] == "field.json" and p.count("/") < 2):
            about = parse_json(f"{push.repo}/{path}", push.read(path) or b"", "Repair or remove it there.", Variant)
            for name in (about["variant"] or "default", *about["shards"]):
                check_split(name, f"{push.repo}/{path}")
            if about["variant"] not in (None, self.name) and about["shards"]:
                found[about["variant"]] = about
        return dict(sorted(found.items(), key=lambda item: (item[0] != self.first, item[0])))


def variant_name(data: WeightDataset) -> str:
    """How the fits began, or `samples`."""
    return "samples" if set(data.splits) == {"samples"} else data.reference.start


def _quality(data: WeightDataset) -> dict[str, dict]:
    """Mean and worst of each split that knows it."""
    out = {}
    for split in data.splits:
        known = (values := data.quality(split))[values.isfinite()].double()
        if len(known):
            out[split] = {"mean": round(float(known.mean()), 3), "worst": round(data.kind.measure.worst(known), 3)}
    return out


def _columns(data: WeightDataset, preview: bool) -> list[dict[str, Any]]:
    """The features as the Hub's YAML lists them."""
    from datasets import DatasetInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    card = DatasetCardData()
    info = DatasetInfo(features=hub_features(data, preview), config_name="default")
    DatasetInfosDict({"default": info}).to_dataset_card_data(card)
    return card["dataset_info"]["features"]


def draw_fields(path: Path, data: WeightDataset) -> bool:
    """A sheet of fields spread over the largest split; of several sizes those of the most frequent one."""
    split = max(data.splits, key=lambda name: len(data.splits[name]))
    sizes, group, counts = torch.unique(data.extent(split), dim=0, return_inverse=True, return_counts=True)
    known = torch.tensor([data.kind.drawable(data.config, size) for size in sizes.tolist()])
    if not known.any():
        return False
    chosen = int((counts * known).argmax())
    rows = (group == chosen).nonzero().flatten()
    rows = rows[spread(len(rows), SHOWN)]
    images = previews(data, data.weights(split, rows.tolist()), sizes[chosen].expand(len(rows), -1))
    save_png(path, sheet(torch.stack([image for image in images if image is not None]), 10))
    return True
