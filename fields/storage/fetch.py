"""Names of things on the Hugging Face Hub, and fetching them. Pushing: `fields.hub.push`.

Wherever a command takes a folder, it also takes `user/name`, with `@revision` (a branch, tag or commit) and, for weight
datasets that hold several, `:variant`: `user/name:conditioned@v1`. A folder here always wins, and is read without a
look at the network. What was fetched once is read from the cache where there is no network.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fields.runtime.records import read_json
from fields.runtime.text import scrub

RepoKind = Literal["dataset", "model", "space"]
PATTERN = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(?::(?P<variant>\w[\w-]*))?(?:@(?P<revision>\w[\w./-]*))?")
PATIENCE = 5.0
"""Seconds to wait for the Hub's first answer before the cache is asked."""
TOKENS = "https://huggingface.co/settings/tokens"


@dataclass(frozen=True)
class HubName:
    """`user/name[:variant][@revision]`, taken apart."""

    repo: str
    variant: str | None = None
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "HubName":
        """From what a user writes.

        Raises:
            ValueError: if it is not of this form.
        """
        found = PATTERN.fullmatch(text)
        if not found:
            raise ValueError(f"expected a Hub name like user/name or user/name@revision, got {text!r}.")
        return cls(**found.groupdict())


def is_repo(text: str) -> bool:
    """Whether the Hub could have a repository user/name of this name: no `..`, no `.git`, ASCII only."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return text.count("/") == 1


def is_local(path: str | Path) -> bool:
    """Whether this names a folder here rather than `user/name` on the Hub: an existing folder always wins."""
    text = str(path)
    if isinstance(path, Path) or os.path.isdir(text):
        return True
    found = PATTERN.fullmatch(text)
    if not found or not is_repo(found["repo"]):
        return True
    return os.path.isdir(text.split("/")[0])  # runs/kmeans: `runs` is here, so the folder is missing, not remote


def at(source: str | Path | None, revision: str | None) -> str | Path | None:
    """The source with --revision, if it is a Hub name without one of its own."""
    if source is None or revision is None or is_local(source) or HubName.parse(str(source)).revision:
        return source
    return f"{source}@{revision}"


def beside(source: str | Path, name: str) -> Path:
    """Where a command's output goes by default: beside a local folder; for a Hub name in runs/ and its last part."""
    if is_local(source):
        path = Path(source)  # of `.` and `..` the parent is not what stands before the last slash
        return (path.resolve() if path.name in ("", "..") else path).parent / name
    return Path("runs") / HubName.parse(str(source)).repo.split("/")[1] / name


def last_part(source: str | Path) -> str:
    """The last part of a folder or of user/name[@revision]."""
    return Path(source).resolve().name if is_local(source) else str(source).split("/")[-1].split("@")[0]


def fetch(
    source: str | Path,
    kind: RepoKind,
    *,
    revision: str | None = None,
    patterns: list[str] | None = None,
    flag: str = "",
) -> Path:
    """A local folder as it is; the files of a Hub repository in the cache, brought up to date if the Hub answers.

    Args:
        source: a folder or a Hub name.
        kind: of the repository.
        revision: for a Hub name without one.
        patterns: which files; None = all.
        flag: the flag it came from, for messages.
    Raises:
        FileNotFoundError: if it is not there, or can be had neither from the Hub nor from the cache; one line.
    """
    if is_local(source):
        return _folder(source, flag)
    from huggingface_hub import snapshot_download

    name = HubName.parse(str(source))
    revision = name.revision or revision
    said = f"{flag} {source}".strip()
    offline = _unreachable(name.repo, kind, revision, said)
    try:
        return Path(
            snapshot_download(
                name.repo,
                repo_type=kind,
                revision=revision,
                allow_patterns=patterns,
                local_files_only=offline is not None,
                etag_timeout=PATIENCE,
            )
        )
    except Exception as error:  # connection, cache, HTTP and disk errors of several libraries: the files are not here
        why = offline or reason(error)
        hint = " and it is not (completely) in the cache" if offline else ""
        raise FileNotFoundError(
            f"{said} is not a local folder, {why}{hint}. Try again with a network, or give a folder."
        ) from None


def _folder(source: str | Path, flag: str) -> Path:
    """A local folder; a file in one is refused."""
    if Path(source).is_file():
        raise ValueError(f"{flag} {source} is a file; expected a folder. Give the folder it lies in.".strip())
    return Path(source)


def fetch_fields(source: Path | str, revision: str | None = None, flag: str = "", small: bool = False) -> Path:
    """The folder of a weight dataset; one on the Hub is fetched, all of it or its small files only.

    Raises:
        FileNotFoundError: if it cannot be had.
        ValueError: for a variant that a repository does not have.
    """
    if is_local(source):
        return _folder(source, flag)
    name = HubName.parse(str(source))
    ask: dict[str, Any] = {"kind": "dataset", "revision": name.revision or revision, "flag": flag}
    if name.variant:
        cards = fetch(name.repo, patterns=["field.json", "*/field.json"], **ask)
        known = {
            read_json(f, schema=dict).get("variant"): f.parent.relative_to(cards) for f in cards.glob("**/field.json")
        }
        if name.variant not in known:
            raise ValueError(f"{flag} {source}: the repository has the variants {', '.join(map(str, known))}.".lstrip())
        under = known[name.variant].as_posix()
    else:
        under = "."
    start = "" if under == "." else f"{under}/"
    wanted = ["field.json", "run.json", "samples.json", "encoder.safetensors"] + (
        [] if small else ["data/*.parquet", "tokens/*"]
    )
    return fetch(name.repo, patterns=[start + pattern for pattern in wanted], **ask) / under


def _unreachable(repo: str, kind: RepoKind, revision: str | None, said: str) -> str | None:
    """Why only the cache can help; None if the Hub has the repository.

    Raises:
        FileNotFoundError: if the Hub answers that there is no such thing.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        HfApi().repo_info(repo, repo_type=kind, revision=revision, timeout=PATIENCE)
        return None
    except RevisionNotFoundError:
        raise FileNotFoundError(f"{said}: the Hub's {kind} {repo} has no revision {revision!r}.") from None
    except GatedRepoError:
        raise FileNotFoundError(
            f"{said}: access to the Hub's {kind} {repo} must be requested on its page first."
        ) from None
    except RepositoryNotFoundError:
        raise FileNotFoundError(
            f"{said} is not a local folder, and the Hub shows no {kind} of this name. If it is private, log in with "
            "`hf auth login` or set HF_TOKEN; else check the name."
        ) from None
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise FileNotFoundError(f"{said}: {reason(error)}") from None
        return reason(error)
    except Exception as error:  # no route, no name server, time-out, a dropped connection
        return f"the Hub does not answer ({reason(error)})"


def reason(error: BaseException) -> str:
    """Why a request failed, in a few words of one line; never a token."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        code = error.response.status_code
        if code == 401:
            return f"the Hub does not accept the token (401); make one at {TOKENS} and set HF_TOKEN or `hf auth login`"
        if code == 403:
            return f"the token may not do this (403); give it write permission at {TOKENS}"
        return f"the Hub answered {code}" + (f": {error.server_message}" if error.server_message else "")
    lines = str(error).strip().splitlines()
    return scrub(lines[0][:200] if lines else type(error).__name__)
