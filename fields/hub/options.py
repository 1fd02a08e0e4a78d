"""What can be set when something is published. Nothing here imports PyTorch."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fields.storage.fetch import is_repo

REVISION = re.compile(r"(?!-)[\w./-]*[\w-](?<!\.lock)", re.ASCII)
"""Names of branches that git takes."""


@dataclass(frozen=True)
class Publish:
    """Options of every kind."""

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder to publish."""
    repo: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="USER/NAME")]
    """Repository on the Hub, user/name; it is created if it does not exist."""
    private: bool = False
    """Create a new repository as private; without this flag it is public. The visibility of an existing repository
    stays as it is."""
    revision: str | None = None
    """Branch to push to, created if it does not exist; default: main."""
    dry_run: bool = False
    """Write the whole repository to a local folder and upload nothing; needs neither a token nor a network."""
    out: Path | None = None
    """Local folder in which the repository is prepared; default: runs/hub/user/name. It is kept only after
    --dry-run."""
    license: str | None = None
    """Licence identifier for the card (cc-by-4.0, mit, ...); default: the licence of the signals, if known."""

    def __post_init__(self):
        if not is_repo(self.repo):
            raise ValueError(
                f"a repository is named user/name, of letters, digits and single '-', '_' and '.', got {self.repo!r}."
            )
        if self.revision is not None and (not REVISION.fullmatch(self.revision) or ".." in self.revision):
            raise ValueError(
                f"--revision names a branch, of letters, digits and single '-', '_', '.' and '/', got {self.revision!r}."
            )


@dataclass(frozen=True)
class PublishFields(Publish):
    """A weight dataset: Parquet shards, field.json, and a card with a sample picture and thirty lines that render a row.

    The first dataset in a repository is its `default` configuration. A dataset with another start (unconditioned, conditioned,
    meta, amortised, subspace) becomes a further configuration; one with the same start replaces the older one.

    For example:
        python scripts/publish.py fields runs/mnist/fields user/mnist-fields --dry-run
        python scripts/publish.py fields runs/mnist/fields user/mnist-fields --private
        python scripts/publish.py fields runs/mnist/unconditioned user/mnist-fields    # a second configuration
    """

    preview: bool = True
    """Add a small picture of every field, which the Hub's dataset viewer shows."""
    variant: str | None = None
    """Name of the configuration within the repository; default: how the fits started (unconditioned, meta, ...)."""
