"""A Hugging Face Hub on 127.0.0.1 for tests: standard library only, in memory, with faults that can be switched on.

It answers what huggingface_hub 2.4 and datasets 5.2 ask: whoami, create and delete repositories, preupload, LFS batch and
upload, commits, trees, paths-info, branches, tags, downloads with ranges. Large files go the LFS way, so clients need
HF_HUB_DISABLE_XET=1. A server of its own:  python tests/loopback_hub.py [PORT]; POST /faults switches faults on there, and
GET /uploaded tells the bytes of LFS content received.
"""

import base64
import hashlib
import json
import re
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from loopback_state import Fault, File, Hub, Refusal, Repo

LARGE = re.compile(r"\.(parquet|arrow|safetensors|bin|npz|npy|png|jpg|gif)$")
"""Names that the real Hub's .gitattributes sends through LFS."""

ROUTES: list[tuple[str, re.Pattern, Callable]] = []


def route(methods: str, pattern: str) -> Callable:
    """Register a method of `Handler` for paths."""

    def add(function: Callable) -> Callable:
        ROUTES.append((methods, re.compile(pattern + "$"), function))
        return function

    return add


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Server"

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        """Every method: find the route, answer."""
        self.hub, address = self.server.hub, urlsplit(self.path)
        self.query = parse_qs(address.query)
        self.data = self._body()
        fault = self.hub.fault(f"{self.command} {address.path}")
        self.mute = fault is not None and fault.late
        if fault is not None and fault.code is None and not fault.late:
            self.hub.log.append((self.command, self.path, None, len(self.data)))
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        try:
            with self.hub.lock:
                if fault is not None and not fault.late:
                    raise Refusal(fault.code, "", f"a fault of the test, status {fault.code}")
                for methods, pattern, function in ROUTES:
                    if self.command in methods.split() and (found := pattern.match(address.path)):
                        return function(self, *(unquote(part) if part else part for part in found.groups()))
                raise Refusal(404, "", "no such route")
        except Refusal as error:
            headers = {"X-Error-Code": error.name, "X-Error-Message": error.text}
            self.reply({"error": error.text}, error.code, headers)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

    def reply(self, body: Any = None, code: int = 200, headers: dict | None = None, length: int | None = None) -> None:
        """Send JSON or bytes."""
        if self.mute:
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        raw = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()
        self.send_response(code)
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        lines = {"Content-Type": kind, "Content-Length": str(len(raw) if length is None else length)}
        for name, value in (lines | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)
        self.hub.log.append((self.command, self.path, code, len(self.data)))

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        out = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            out += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return out

    def known(self) -> bool:
        """Whether the token is right."""
        return self.headers.get("Authorization", "") == f"Bearer {self.hub.token}"

    def writer(self) -> None:
        """Refuse whoever may not write."""
        if not self.known():
            raise Refusal(401, "", "Invalid credentials in Authorization header")
        if self.hub.role == "read":
            raise Refusal(403, "", "Forbidden: this token may only read")

    def repo(self, kinds: str | None, name: str) -> Repo:
        """A repository that the caller may see."""
        found = self.hub.repos.get(((kinds or "models")[:-1], name))
        if found is None or (found.private and not self.known()):
            raise Refusal(404 if self.known() else 401, "RepoNotFound", "Repository not found")
        return found

    @property
    def url(self) -> str:
        """Of this server."""
        return f"http://{self.headers['Host']}"

    @route("GET POST", "/(uploaded|faults)")
    def control(self, what: str) -> None:
        if what == "faults":
            self.hub.faults = [Fault(**values) for values in json.loads(self.data)]
        self.reply({"uploaded": self.hub.uploaded(), "requests": len(self.hub.log)})

    # -- accounts and repositories ---------------------------------------------------------------------------------

    @route("GET", "/api/whoami-v2")
    def whoami(self) -> None:
        if not self.known():
            raise Refusal(401, "", "Invalid credentials in Authorization header")
        token = {"displayName": "test", "role": self.hub.role}
        if self.hub.role == "fineGrained":
            entity = {"type": "user", "name": self.hub.user}
            token["fineGrained"] = {"scoped": [{"entity": entity, "permissions": ["repo.content.read"]}]}
        orgs = [{"name": name, "roleInOrg": "write"} for name in self.hub.orgs]
        auth = {"type": "access_token", "accessToken": token}
        self.reply({"type": "user", "id": "1", "name": self.hub.user, "orgs": orgs, "auth": auth})

    @route("POST DELETE", "/api/repos/(create|delete)")
    def manage(self, action: str) -> None:
        self.writer()
        asked = json.loads(self.data)
        kind, name = asked.get("type") or "model", f"{asked.get('organization') or self.hub.user}/{asked['name']}"
        if action == "delete":
            self.repo(kind + "s", name)
            return self.reply(self.hub.repos.pop((kind, name)) and {})
        if name.split("/")[0] not in (self.hub.user, *self.hub.orgs):
            raise Refusal(403, "", f"You don't have the rights to create a {kind} under this namespace")
        url = f"{self.url}/{'' if kind == 'model' else kind + 's/'}{name}"
        if (kind, name) in self.hub.repos:
            return self.reply({"error": "You already created this repo", "url": url}, 409)
        self.hub.repos[(kind, name)] = Repo(
            kind, name, bool(asked.get("private")) or asked.get("visibility") == "private"
        )
        self.reply({"url": url, "name": name, "id": "0" * 24})

    @route("POST", "/api/validate-yaml")
    def validate(self) -> None:
        self.reply({"errors": [], "warnings": []})

    @route("GET", "/api/(models|datasets|spaces)/([^/]+/[^/]+)")
    def info(self, kinds: str, name: str) -> None:
        repo = self.repo(kinds, name)
        self.reply(repo.info(repo.at("main"), "blobs" in self.query))

    @route("GET", "/api/(models|datasets|spaces)/([^/]+/[^/]+)/revision/([^/]+)")
    def revision(self, kinds: str, name: str, revision: str) -> None:
        repo = self.repo(kinds, name)
        self.reply(repo.info(repo.at(revision), "blobs" in self.query))

    @route("GET", "/api/(models|datasets|spaces)/([^/]+/[^/]+)/refs")
    def refs(self, kinds: str, name: str) -> None:
        repo = self.repo(kinds, name)
        listed = lambda group, names: [  # noqa: E731
            {"name": k, "ref": f"refs/{group}/{k}", "targetCommit": v} for k, v in names.items()
        ]
        self.reply({"branches": listed("heads", repo.branches), "converts": [], "tags": listed("tags", repo.tags)})

    @route("POST DELETE", "/api/(models|datasets|spaces)/([^/]+/[^/]+)/(branch|tag)/(.+)")
    def ref(self, kinds: str, name: str, what: str, ref: str) -> None:
        self.writer()
        repo, asked = self.repo(kinds, name), json.loads(self.data or b"{}")
        if self.command == "DELETE":
            (repo.branches if what == "branch" else repo.tags).pop(ref, None)
        elif what == "tag":
            repo.tags[asked["tag"]] = repo.at(ref).sha
        elif ref in repo.branches:
            raise Refusal(409, "", "Reference already exists")
        else:
            repo.branches[ref] = repo.at(asked.get("startingPoint") or "main").sha
        self.reply()

    @route("GET", "/api/(models|datasets|spaces)/([^/]+/[^/]+)/commits/([^/]+)")
    def commits(self, kinds: str, name: str, revision: str) -> None:
        repo, out = self.repo(kinds, name), []
        at = repo.at(revision)
        while at:
            out.append({"id": at.sha, "title": at.message, "message": "", "authors": [], "date": at.date})
            at = repo.commits.get(at.parent)
        self.reply(out)

    # -- reading -----------------------------------------------------------------------------------------------------

    @route("GET", "/api/(models|datasets|spaces)/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?")
    def tree(self, kinds: str, name: str, revision: str, under: str | None) -> None:
        files = self.repo(kinds, name).at(revision).files
        start = f"{under}/" if under else ""
        deep = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        entries: dict[str, dict] = {}
        for path, file in sorted((p, f) for p, f in files.items() if p.startswith(start)):
            parts = path[len(start) :].split("/")
            for i in range(1, len(parts) if deep else min(2, len(parts))):
                folder = start + "/".join(parts[:i])
                entries[folder] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": folder}
            if deep or len(parts) == 1:
                entries[path] = file.describe(path)
        if start and not entries:
            raise Refusal(404, "EntryNotFound", f"{under} does not exist")
        self.reply(list(entries.values()))

    @route("POST", "/api/(models|datasets|spaces)/([^/]+/[^/]+)/paths-info/([^/]+)")
    def paths_info(self, kinds: str, name: str, revision: str) -> None:
        files = self.repo(kinds, name).at(revision).files
        as_json = self.headers.get("Content-Type", "").startswith("application/json")
        asked = json.loads(self.data)["paths"] if as_json else parse_qs(self.data.decode()).get("paths", [])
        out = []
        for path in asked:
            if path in files:
                out.append(files[path].describe(path))
            elif any(p.startswith(path.rstrip("/") + "/") for p in files):
                out.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": path})
        self.reply(out)

    @route("GET HEAD", "/(?:(datasets|spaces)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
    def resolve(self, kinds: str | None, name: str, revision: str, path: str) -> None:
        commit = self.repo(kinds, name).at(revision)
        file = commit.files.get(path)
        if file is None:
            headers = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            return self.reply({"error": "Entry not found"}, 404, headers | {"X-Repo-Commit": commit.sha})
        tag = f'"{file.sha256 if file.lfs else file.oid}"'
        headers = {"X-Repo-Commit": commit.sha, "ETag": tag, "Accept-Ranges": "bytes"}
        if file.lfs:
            headers |= {"X-Linked-Etag": tag, "X-Linked-Size": str(len(file.data))}
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and self.command == "GET":
            first, last = int(asked[1]), min(int(asked[2] or len(file.data)), len(file.data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(file.data)}"
            return self.reply(file.data[first : last + 1], 206, headers)
        self.reply(file.data, 200, headers)

    # -- writing -----------------------------------------------------------------------------------------------------

    @route("POST", "/api/(models|datasets|spaces)/([^/]+/[^/]+)/preupload/([^/]+)")
    def preupload(self, kinds: str, name: str, revision: str) -> None:
        self.writer()
        commit, out = self.repo(kinds, name).at(revision), []
        for asked in json.loads(self.data)["files"]:
            mode = "lfs" if LARGE.search(asked["path"]) or asked["size"] >= 10 * 2**20 else "regular"
            there = commit.files.get(asked["path"])
            out.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": there and there.oid})
        self.reply({"files": out, "commitOid": commit.sha})

    @route("POST", r"/(?:(datasets|spaces)/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch")
    def batch(self, kinds: str | None, name: str) -> None:
        self.writer()
        self.repo(kinds, name)
        objects = []
        for asked in json.loads(self.data)["objects"]:
            answer = {"oid": asked["oid"], "size": asked["size"], "authenticated": True}
            if asked["oid"] not in self.hub.lfs:
                answer["actions"] = {"upload": {"href": f"{self.url}/lfs/{asked['oid']}", "header": {}}}
            objects.append(answer)
        self.reply({"transfer": "basic", "objects": objects}, 200, {"Content-Type": "application/vnd.git-lfs+json"})

    @route("PUT", "/lfs/([0-9a-f]{64})")
    def put(self, oid: str) -> None:
        if hashlib.sha256(self.data).hexdigest() != oid:
            raise Refusal(400, "", "the content has another SHA-256")
        self.hub.lfs[oid] = self.data
        self.reply()

    @route("POST", "/api/(models|datasets|spaces)/([^/]+/[^/]+)/commit/([^/]+)")
    def commit(self, kinds: str, name: str, branch: str) -> None:
        self.writer()
        repo, added, deleted, message = self.repo(kinds, name), {}, [], ""
        head = repo.at(branch)
        for line in filter(None, self.data.splitlines()):
            key, value = (part := json.loads(line))["key"], part["value"]
            if key == "header":
                message = value["summary"]
                if value.get("parentCommit") not in (None, head.sha):
                    raise Refusal(412, "", "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                added[value["path"]] = File(base64.b64decode(value["content"]), False)
            elif key == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    raise Refusal(400, "", "LFS pointer pointed to a file that does not exist")
                added[value["path"]] = File(self.hub.lfs[value["oid"]], True)
            else:
                deleted.append(value["path"])
        sha = repo.commit(branch, added, deleted, message).sha
        url = f"{self.url}/{'' if repo.kind == 'model' else repo.kind + 's/'}{repo.name}/commit/{sha}"
        self.reply({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})


class Server(ThreadingHTTPServer):
    """A hub behind a port."""

    daemon_threads = True

    def __init__(self, port: int = 0):
        super().__init__(("127.0.0.1", port), Handler)
        self.hub = Hub()

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news."""


def start(port: int = 0) -> tuple[Hub, str]:
    """A hub in a thread of this process, and its address."""
    server = Server(port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.hub, f"http://127.0.0.1:{server.server_address[1]}"


if __name__ == "__main__":
    print(start(int(sys.argv[1]) if len(sys.argv) > 1 else 0)[1], flush=True)
    threading.Event().wait()
