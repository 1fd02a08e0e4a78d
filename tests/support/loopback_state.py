"""What a loopback hub holds: repositories with their commits, LFS contents, the log of requests, and faults to come."""

import hashlib
import re
import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass
class Fault:
    """What goes wrong with requests whose "METHOD /path" matches."""

    match: str
    """A regular expression."""
    code: int | None = 503
    """HTTP status to answer; None = drop the connection."""
    times: int | None = 1
    """How often; None = always."""
    skip: int = 0
    """So many matching requests pass before."""
    late: bool = False
    """Do what was asked, and only lose the answer."""


@dataclass
class File:
    """A file of a commit: its bytes, and whether it lies in LFS."""

    data: bytes
    lfs: bool

    @cached_property
    def sha256(self) -> str:
        """Name of the content in LFS."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def oid(self) -> str:
        """git's name of the blob: of the content, or of its LFS pointer."""
        blob = self.data
        if self.lfs:
            blob = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\n" % self.sha256.encode()
            blob += b"size %d\n" % len(self.data)
        return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()

    def describe(self, path: str) -> dict:
        """The entry of a tree."""
        entry = {"type": "file", "oid": self.oid, "size": len(self.data), "path": path}
        return entry | ({"lfs": {"oid": self.sha256, "size": len(self.data), "pointerSize": 130}} if self.lfs else {})


@dataclass
class Commit:
    """A state of a repository."""

    sha: str
    files: dict[str, File]
    message: str
    parent: str | None
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()))


class Repo:
    """Commits, branches and tags."""

    def __init__(self, kind: str, name: str, private: bool):
        self.kind, self.name, self.private = kind, name, private
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.commit("main", {".gitattributes": File(b"*.parquet filter=lfs diff=lfs merge=lfs -text\n", False)}, [], "")

    def commit(self, branch: str, added: dict[str, File], deleted: list[str], message: str) -> Commit:
        """A new state of a branch."""
        parent = self.branches.get(branch)
        files = dict(self.commits[parent].files) if parent else {}
        for gone in deleted:
            files = {p: f for p, f in files.items() if p != gone and not p.startswith(gone.rstrip("/") + "/")}
        sha = hashlib.sha1(f"{self.name}{len(self.commits)}{time.time_ns()}".encode()).hexdigest()
        self.commits[sha] = Commit(sha, files | added, message, parent)
        self.branches[branch] = sha
        return self.commits[sha]

    def at(self, revision: str) -> Commit:
        """The state of a branch, tag or commit."""
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        if sha not in self.commits:
            raise Refusal(404, "RevisionNotFound", "Invalid rev id")
        return self.commits[sha]

    def info(self, commit: Commit, blobs: bool) -> dict:
        """What `repo_info` gets."""
        files = []
        for path, file in sorted(commit.files.items()):
            entry = file.describe(path)
            more = {"size": entry["size"], "blobId": entry["oid"]}
            if "lfs" in entry:
                more["lfs"] = {"sha256": file.sha256, "size": entry["size"], "pointerSize": 130}
            files.append({"rfilename": path, **(more if blobs else {})})
        return {
            "_id": "0" * 24, "id": self.name, "author": self.name.split("/")[0], "sha": commit.sha, "tags": [],
            "lastModified": commit.date, "createdAt": commit.date, "private": self.private, "gated": False,
            "disabled": False, "downloads": 0, "likes": 0, "siblings": files, "usedStorage": 0,
        }  # fmt: skip


@dataclass
class Hub:
    """All repositories, who may write, and what was asked.

    Attributes:
        role: of the token: write, read or fineGrained.
        log: (method, path, status, bytes received) of every request.
    """

    user: str = "tester"
    token: str = "hf_loopback_secret"
    role: str = "write"
    orgs: list[str] = field(default_factory=list)
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    lfs: dict[str, bytes] = field(default_factory=dict)
    log: list[tuple[str, str, int | None, int]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)

    def reset(self) -> None:
        """As new."""
        fresh = Hub()
        for name in ("user", "token", "role", "orgs", "repos", "lfs", "log", "faults"):
            setattr(self, name, getattr(fresh, name))

    def fault(self, request: str) -> Fault | None:
        """The fault that strikes a request, counted down."""
        for fault in self.faults:
            if not re.search(fault.match, request) or fault.times == 0:
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.times = None if fault.times is None else fault.times - 1
            return fault
        return None

    def uploaded(self) -> int:
        """Bytes that came as content of LFS files."""
        return sum(
            size for way, path, code, size in self.log if (way, code) == ("PUT", 200) and path.startswith("/lfs/")
        )

    def files(self, kind: str, name: str, revision: str = "main") -> dict[str, bytes]:
        """The content of a repository."""
        return {path: f.data for path, f in self.repos[(kind, name)].at(revision).files.items()}


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, code: int, name: str, text: str):
        super().__init__(text)
        self.code, self.name, self.text = code, name, text
