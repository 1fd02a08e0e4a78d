"""Pushing a prepared folder to a Hub repository: checked before any work, resumable, in one commit.

The large files travel first and are invisible until the one commit that adds what is new, replaces what changed and drops
what is gone. So a reader sees the old state or the new one, never a mixture, and a push that was interrupted finds what
has arrived and sends the rest. What the repository holds already, byte for byte, is not sent.
"""

import hashlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fields.runtime.console import bar
from fields.storage.fetch import PATIENCE, TOKENS, RepoKind, reason

TRIES = 5
WAIT = 1.0
"""Seconds before the second try; each further wait is twice as long."""
LOGIN = f"Make one with write permission at {TOKENS}, then run `hf auth login` or set HF_TOKEN."


@dataclass(frozen=True)
class Sent:
    """What a push did."""

    url: str
    commit: str | None
    files: int
    """Files that were new or changed."""
    sent: int
    """Bytes of these files; what the Hub had from an earlier try is counted, though it did not travel again."""
    deleted: int
    unchanged: int


@dataclass
class Push:
    """One push. `check` first, then prepare the folder, then `send`.

    Attributes:
        repo: user/name.
        kind: of the repository.
        private: make a new repository private.
        branch: to push to; made where missing.
        files: path -> SHA-256 (LFS) or git blob id of what is there.
        head: the commit that was looked at; None for a new repository.
    """

    repo: str
    kind: RepoKind
    private: bool = False
    branch: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    head: str | None = None
    exists: bool = False
    has_branch: bool = True
    made: bool = False
    """Whether this push made the repository."""

    # -- before any work ------------------------------------------------------------------------------------------

    def check(self) -> "Push":
        """Token, permission, repository and branch.

        Raises:
            ValueError: naming what is wrong and what to do; nothing was changed.
            RuntimeError: if the Hub cannot be reached.
        """
        from huggingface_hub import HfApi, constants, get_token

        if constants.HF_HUB_OFFLINE:
            raise RuntimeError("HF_HUB_OFFLINE is set, so nothing can be pushed. Unset it, or use --dry-run.")
        token = get_token()
        if not token:
            raise ValueError(f"there is no Hub token. {LOGIN} --dry-run needs none.")
        if not re.fullmatch(r"[!-~]+", token):  # a header cannot carry it
            raise ValueError(f"the Hub token contains invalid characters. {LOGIN}")
        self.api = HfApi(token=token)
        self._check_account(self._ask(self.api.whoami))
        self._look()
        if self.exists:
            self._check_repository()
        state = "private" if self.private else "public"
        print(f"{self.repo}: {'an existing' if self.exists else 'a new'} {state} {self.kind} repository", flush=True)
        return self

    def _check_account(self, account: dict) -> None:
        """Whether this token may write for the repository's owner."""
        owner, token = self.repo.split("/")[0], account.get("auth", {}).get("accessToken", {})
        known = [account["name"], *(org["name"] for org in account.get("orgs", []))]
        if owner.lower() not in [name.lower() for name in known]:
            raise ValueError(
                f"you are {account['name']} on the Hub and not a member of {owner}, so you cannot write to {self.repo}. "
                f"Push to {account['name']}/{self.repo.split('/')[1]}, or ask {owner} for membership."
            )
        if token.get("role") == "read":
            raise ValueError(f"the Hub token has read permission only. {LOGIN}")
        if token.get("role") == "fineGrained":
            scopes = (token.get("fineGrained") or {}).get("scoped", [])
            names = {owner.lower(), self.repo.lower()}
            allowed = [
                p for s in scopes if s.get("entity", {}).get("name", "").lower() in names for p in s["permissions"]
            ]
            if "repo.write" not in allowed:
                raise ValueError(f"the fine-grained Hub token has no write permission for {self.repo}. {LOGIN}")

    def _check_repository(self) -> None:
        """An existing repository: visibility, branch, and leave to write, without writing."""
        from huggingface_hub import CommitOperationAdd

        info = self._ask(self.api.repo_info, self.repo, repo_type=self.kind)
        if self.private and not info.private:
            raise ValueError(
                f"{self.repo} exists and is public: --private does not change that. Change it in the "
                "repository's settings, or choose another name."
            )
        self.private = bool(info.private)
        if self.branch:
            refs = self._ask(self.api.list_repo_refs, self.repo, repo_type=self.kind)
            if self.branch in [tag.name for tag in refs.tags]:
                raise ValueError(
                    f"--revision {self.branch} is a tag of {self.repo}, which cannot be changed. Name a branch instead."
                )
        probe = [CommitOperationAdd("README.md", b"probe")]  # a small file: the Hub only says whether it would take it
        self._ask(self.api.preupload_lfs_files, self.repo, probe, repo_type=self.kind)

    def _look(self) -> None:
        """What is there now."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        ask = {"repo_type": self.kind, "files_metadata": True, "timeout": 4 * PATIENCE}
        try:
            info = self._ask(self.api.repo_info, self.repo, revision=self.branch, **ask)
        except RepositoryNotFoundError:
            self.exists, self.head, self.files = False, None, {}
            return
        except RevisionNotFoundError:
            self.has_branch = False
            info = self._ask(self.api.repo_info, self.repo, **ask)  # a new branch starts from main
        self.exists, self.head = True, info.sha
        self.files = {f.rfilename: f.lfs.sha256 if f.lfs else f.blob_id for f in info.siblings}

    def read(self, path: str) -> bytes | None:
        """A file as it is at `head`, None if it is not there."""
        if path not in self.files:
            return None
        from huggingface_hub import hf_hub_download

        where = self._ask(
            hf_hub_download, self.repo, path, repo_type=self.kind, revision=self.head, token=self.api.token
        )
        return Path(where).read_bytes()

    # -- sending --------------------------------------------------------------------------------------------------

    def send(
        self, folder: Path, message: str, mine: Callable[[str], bool], finish: Callable[["Push"], None] | None = None
    ) -> Sent:
        """Upload what differs and commit.

        Args:
            folder: the repository as it shall be; hidden files at its top stay here.
            message: of the commit.
            mine: the paths that this push answers for: those of them that are not in the folder are deleted.
            finish: writes the card, or refuses; called again when somebody else has committed meanwhile.
        Raises:
            RuntimeError: if the Hub refuses, or does not answer after several tries.
        """
        from huggingface_hub.errors import HfHubHTTPError

        for attempt in range(TRIES):
            if finish is not None:
                finish(self)
            changed, deleted, unchanged = self._differences(folder, mine)
            if not changed and not deleted:
                self._make()  # a branch of the same content is one all the same
                return Sent(self.url, self.head, 0, 0, 0, unchanged)
            try:
                self._make()
                commit = self._commit(folder, changed, deleted, message)
                break
            except HfHubHTTPError as error:
                code = error.response.status_code
                if code not in (409, 412) or attempt == TRIES - 1:
                    raise RuntimeError(self._failed(error)) from None
                print(f"{self.repo} was changed meanwhile ({code}); looking again", file=sys.stderr)
                time.sleep(WAIT * attempt)
                self._look()
                self.made = False  # it holds somebody else's commit
        size = sum((folder / path).stat().st_size for path in changed)
        return Sent(self.url, commit, len(changed), size, len(deleted), unchanged)

    def _differences(self, folder: Path, mine: Callable[[str], bool]) -> tuple[list[str], list[str], int]:
        """Paths to send, paths to delete, and how many stay."""
        here = sorted(
            p.relative_to(folder).as_posix()
            for p in folder.rglob("*")
            if p.is_file() and not p.relative_to(folder).parts[0].startswith(".")
        )
        changed = [path for path in here if not same(folder / path, self.files.get(path))]
        deleted = [path for path in self.files if path not in here and mine(path)]
        # small and telling files last in the list; the order inside a commit means nothing, but a log reads well
        return sorted(changed, key=lambda p: (p.count("/") == 0, p)), deleted, len(here) - len(changed)

    def _make(self) -> None:
        """The repository and the branch, where they are missing."""
        if not self.exists:
            more = {"space_sdk": "gradio"} if self.kind == "space" else {}
            self._ask(
                self.api.create_repo, self.repo, repo_type=self.kind, private=self.private, exist_ok=False, **more
            )
            self.made = True
            branch, self.branch = self.branch, None
            self._look()
            self.branch = branch
            self.has_branch = branch in (None, "main")
        if not self.has_branch:
            self._ask(self.api.create_branch, self.repo, branch=self.branch, repo_type=self.kind, exist_ok=True)
            self.has_branch = True

    def _commit(self, folder: Path, changed: list[str], deleted: list[str], message: str) -> str:
        """Send the content, then commit; returns the commit's id."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        place: dict[str, Any] = {"repo_type": self.kind, "revision": self.branch}
        adds = [CommitOperationAdd(path, folder / path) for path in changed]
        with (
            quiet(),
            bar(total=sum(a.upload_info.size for a in adds), unit="byte", desc="send") as shown,
        ):
            for group in commit_groups(adds):
                self._ask(self.api.preupload_lfs_files, self.repo, group, free_memory=False, **place)
                shown.update(sum(a.upload_info.size for a in group))
            gone = [CommitOperationDelete(path) for path in deleted]
            done = self._ask(self.api.create_commit, self.repo, [*adds, *gone], commit_message=message,
                parent_commit=self.head, **place,
            )  # fmt: skip
        self.head, self.made = done.oid, False
        return done.oid

    @property
    def url(self) -> str:
        """The repository's page."""
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{'' if self.kind == 'model' else f'{self.kind}s/'}{self.repo}"

    # -- errors ---------------------------------------------------------------------------------------------------

    def _ask(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        """Ask the Hub; what passes by itself (no answer, 429, 5xx) is tried again.

        Raises:
            RepositoryNotFoundError, RevisionNotFoundError, HfHubHTTPError (a commit's or a new repository's 409 and 412): for
                the caller to deal with.
            ValueError: for a refusal.
            RuntimeError: if it did not pass.
        """
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

        for attempt in range(TRIES):
            try:
                return bare(function, *args, **kwargs)
            except RevisionNotFoundError:
                raise
            except RepositoryNotFoundError as error:
                if error.response.status_code != 401 and function == self.api.repo_info:
                    raise
                raise ValueError(self._failed(error)) from None
            except (HfHubHTTPError, httpx2.TransportError, ConnectionError, TimeoutError, RuntimeError) as error:
                code = error.response.status_code if isinstance(error, HfHubHTTPError) else None
                if code in (409, 412) and function in (self.api.create_repo, self.api.create_commit):
                    raise
                if code is not None and code != 429 and code < 500:
                    raise ValueError(self._failed(error)) from None
                if attempt == TRIES - 1:
                    raise RuntimeError(self._failed(error)) from None
                wait = WAIT * 2**attempt
                print(f"{reason(error)}; trying again in {wait:g} s ({attempt + 1} of {TRIES - 1})", file=sys.stderr)
                time.sleep(wait)
        raise AssertionError("the loop above returns or raises")

    def _failed(self, error: BaseException) -> str:
        """What a user reads when a push ends early. A repository made for it goes again if it may not be filled."""
        from huggingface_hub.errors import HfHubHTTPError

        code = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        text = f"{self.repo}: {reason(error)}."
        if code is not None and code < 500 and code not in (409, 412, 429):
            if self.made:
                try:
                    self.api.delete_repo(self.repo, repo_type=self.kind)
                    text += " The repository made for this push was removed again."
                except Exception:  # the refusal itself is what matters
                    text += " An empty repository was left behind; delete it on its page."
            return f"{text} Nothing was published; your files are untouched."
        state = "was made and is still empty" if self.made else "is as it was"
        return (
            f"{text} The repository {state}, your files are untouched. Run the same command again: what has "
            "arrived is not sent again."
        )


# -- small parts ------------------------------------------------------------------------------------------------------

GROUP = (16, 256 << 20)
"""Files and bytes sent between two looks at the progress bar."""


def bare(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call; what the library wraps as "Error while uploading" is raised as what it was."""
    try:
        return function(*args, **kwargs)
    except RuntimeError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None


def same(file: Path, known: str | None) -> bool:
    """Whether a file is what the repository holds under its name: by SHA-256 (LFS) or git's blob id."""
    if known is None:
        return False
    state = hashlib.sha256() if len(known) == 64 else hashlib.sha1(b"blob %d\0" % file.stat().st_size)
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: state).hexdigest() == known


def commit_groups(adds: list[Any]) -> list[list[Any]]:
    """Neighbours that travel together."""
    out: list[list[Any]] = []
    files = size = 0
    for add in adds:
        if not out or files == GROUP[0] or size + add.upload_info.size > GROUP[1]:
            out.append([])
            files = size = 0
        out[-1].append(add)
        files, size = files + 1, size + add.upload_info.size
    return out


@contextmanager
def quiet() -> Iterator[None]:
    """The library's own progress bars are off inside: ours counts the whole push."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
