"""What can be set when something is published. Nothing here imports PyTorch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fields.storage.fetch import is_repo


@dataclass(frozen=True)
class Publish:
    """Options of every kind."""

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The folder to publish."""
    repo: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="USER/NAME")]
    """user/name on the Hub."""
    private: bool = False
    """Make a new repository private; without it a new one is public. An existing one stays as it is."""
    revision: str | None = None
    """Branch to push to, made where missing; default: main."""
    dry_run: bool = False
    """Lay the whole repository out in a folder and send nothing; needs no token and no network."""
    out: Path | None = None
    """Where the repository is laid out; default: runs/hub/user/name. It stays after --dry-run only."""
    license: str | None = None
    """Licence identifier for the card (cc-by-4.0, mit, ...); default: that of the signals where it is known."""

    def __post_init__(self):
        if not is_repo(self.repo):
            raise ValueError(
                f"a repository is named user/name, of letters, digits and single '-', '_' and '.', got {self.repo!r}."
            )


@dataclass(frozen=True)
class PublishFields(Publish):
    """A weight dataset: Parquet shards, field.json, a card with a sample picture and thirty lines that render a row.

    The first dataset of a repository is its `default`; one with another start (unconditioned, conditioned, meta, amortised) becomes
    a config beside it, and one with the same start takes the place of the older.

    For example:
        python scripts/publish.py fields runs/mnist/fields user/mnist-fields --dry-run
        python scripts/publish.py fields runs/mnist/fields user/mnist-fields --private
        python scripts/publish.py fields runs/mnist/unconditioned user/mnist-fields    # a second config
    """

    preview: bool = True
    """Add a small picture of every field, which the Hub's viewer shows."""
    variant: str | None = None
    """Name of the config; default: how the fits began."""
