"""A local server that speaks the part of the Hub's protocol that downloads and uploads need; files live in memory.

Written against the protocol of huggingface_hub's client: repository creation, preupload, LFS batch, commit, tree and resolve.
"""

import base64
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

from huggingface_hub import close_session

TOKEN = "hf_of_this_test"


@dataclass
class Repository:
    """Commits of one repository: path to content, by revision; LFS paths are noted."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], message: str = "", branch: str = "main") -> str:
        oid = hashlib.sha1(f"{branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[oid] = files
        self.refs[branch] = oid
        self.messages.append(message)
        return oid

    def find(self, revision: str) -> str | None:
        oid = self.refs.get(revision, revision)
        return oid if oid in self.commits else None


@dataclass
class Hub:
    """What the server holds, and what it was asked."""

    repositories: dict[str, Repository] = field(default_factory=dict)  # "models/owner/name"
    objects: dict[str, bytes] = field(default_factory=dict)  # LFS, by sha256
    requests: list[str] = field(default_factory=list)
    cuts: dict[str, int] = field(default_factory=dict)  # how often the connection breaks in the middle of a file
    url: str = ""

    def add(self, name: str, files: dict[str, bytes], lfs: set[str] = frozenset(), kind: str = "models") -> Repository:
        repository = self.repositories.setdefault(f"{kind}/{name}", Repository())
        repository.lfs |= set(lfs)
        repository.commit(files)
        return repository


@contextmanager
def serving() -> Iterator[Hub]:
    """A server on a free port of this machine for the time of the block."""
    hub = Hub()

    class Handler(_Handler):
        held = hub

    server = _Server(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        close_session()  # else a later server at this port would get requests over a connection to this one


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has gone: its line would come at any time, and be taken for one of the command under test."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    held: Hub

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815  # names that the base class calls

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.held.requests.append(f"{self.command} {path}")
        body = self._body()
        parts = path.split("/")
        if self.command in ("POST", "PUT") and "lfs-object" not in parts and not self._allowed():
            self._send(401, {"error": "Invalid username or password."})
        elif path == "api/repos/create":
            self._create(json.loads(body))
        elif path == "api/validate-yaml":
            self._send(200, {"errors": [], "warnings": []})
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        elif parts[0] == "lfs-object":
            self._object(parts[1], body)
        elif parts[0] == "api" and len(parts) > 3:
            self._api(parts, body)
        elif "resolve" in parts:
            self._resolve(parts)
        else:
            self._missing("EntryNotFound")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _allowed(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted.get('type', 'model')}s/{wanted['organization']}/{wanted['name']}"
        if name in self.held.repositories:
            self._send(409, {"error": "You already created this repo", "url": f"{self.held.url}/{name}"})
            return
        self.held.repositories[name] = Repository()
        self.held.repositories[name].commit({})
        self._send(200, {"url": f"{self.held.url}/{name.removeprefix('models/')}", "name": name})

    def _batch(self, wanted: dict[str, Any]) -> None:
        listed = []
        for item in wanted["objects"]:
            upload = {"upload": {"href": f"{self.held.url}/lfs-object/{item['oid']}", "header": {}}}
            listed.append(item | ({} if item["oid"] in self.held.objects else {"actions": upload}))
        self._send(200, {"transfer": "basic", "objects": listed})

    def _object(self, oid: str, body: bytes) -> None:
        if self.command != "PUT":
            self._send_bytes(self.held.objects[oid])
        elif hashlib.sha256(body).hexdigest() == oid:
            self.held.objects[oid] = body
            self._send(200, {})
        else:
            self._send(400, {"error": "checksum mismatch"})

    def _api(self, parts: list[str], body: bytes) -> None:
        repository = self.held.repositories.get("/".join(parts[1:4]))
        if repository is None:
            self._missing("RepoNotFound", 401 if not self._allowed() else 404)
            return
        verb, revision = (parts[4] if len(parts) > 4 else "revision"), "/".join(parts[5:]) or "main"
        if verb == "tree":
            revision = parts[5]
        oid = repository.find(revision)
        if verb == "refs":
            branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in repository.refs.items()]
            self._send(200, {"branches": branches, "tags": [], "converts": []})
        elif oid is None:
            self._missing("RevisionNotFound")
        elif verb == "revision":
            siblings = [{"rfilename": name} for name in repository.commits[oid]]
            self._send(200, {"id": "/".join(parts[2:4]), "sha": oid, "siblings": siblings, "private": False})
        elif verb == "tree":
            self._send(200, [self._entry(repository, oid, path) for path in repository.commits[oid]])
        elif verb == "preupload":
            files = json.loads(body)["files"]
            modes = ["lfs" if f["path"].endswith((".safetensors", ".ckpt", ".bin")) else "regular" for f in files]
            self._send(
                200,
                {
                    "files": [
                        {"path": f["path"], "uploadMode": mode, "shouldIgnore": False}
                        for f, mode in zip(files, modes, strict=True)
                    ]
                },
            )
        elif verb == "commit":
            name = "/".join(parts[1:4]).removeprefix("models/")
            self._commit(repository, oid, revision, body, f"{self.held.url}/{name}")
        else:
            self._missing("EntryNotFound")

    def _commit(self, repository: Repository, parent: str, branch: str, body: bytes, url: str) -> None:
        files, message = dict(repository.commits[parent]), ""
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.held.objects[value["oid"]]
                repository.lfs.add(value["path"])
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        oid = repository.commit(files, message, branch)
        self._send(200, {"success": True, "commitOid": oid, "commitUrl": f"{url}/commit/{oid}"})

    def _entry(self, repository: Repository, oid: str, path: str) -> dict[str, Any]:
        content = repository.commits[oid][path]
        entry = {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        if path in repository.lfs:
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        return entry

    def _resolve(self, parts: list[str]) -> None:
        at = parts.index("resolve")
        kind = "datasets" if parts[0] == "datasets" else "models"
        repository = self.held.repositories.get(f"{kind}/{'/'.join(parts[at - 2 : at])}")
        oid = repository.find(parts[at + 1]) if repository else None
        content = repository.commits[oid].get("/".join(parts[at + 2 :])) if repository and oid else None
        if content is None:
            self._missing("RepoNotFound" if repository is None else "EntryNotFound")
            return
        digest = hashlib.sha256(content).hexdigest()
        headers = {
            "X-Repo-Commit": oid,
            "ETag": f'"{digest}"',
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(content)),
        }
        self._send_bytes(content, headers, cut=self.command == "GET" and self._is_cut("/".join(parts[at + 2 :])))

    def _is_cut(self, path: str) -> bool:
        left = self.held.cuts.get(path, 0)
        self.held.cuts[path] = max(left - 1, 0)
        return left > 0

    def _missing(self, code: str, status: int = 404) -> None:
        self._send(status, {"error": code}, {"X-Error-Code": code})

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self._send_bytes(json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}, status)

    def _send_bytes(
        self, body: bytes, headers: dict[str, Any] | None = None, status: int = 200, cut: bool = False
    ) -> None:
        begin = 0
        if wanted := self.headers.get("Range"):
            begin, status = int(wanted.removeprefix("bytes=").partition("-")[0]), 206
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, str(value))
        if status == 206:
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - begin))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[begin : (begin + len(body)) // 2 if cut else None])
        self.close_connection = self.close_connection or cut
