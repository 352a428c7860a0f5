"""A small and strict Hub of models and data sets on loopback, for the real clients `huggingface_hub` and `datasets`.

It speaks what they speak: whoami, creation, write check, preupload, LFS batch, upload and verification, commits,
listing, paths, references, information, and resolve with a redirect to storage on another host name, which serves
ranges. Repositories may be private or gated, and have branches and tags beside `main`. Whatever it does not know, and
whatever a careful client would not do (a size or checksum that does not fit, a token sent to storage, a commit of what
was never uploaded), is kept in `problems` and fails the test.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import datasets
import huggingface_hub
import transformers
import yaml
from huggingface_hub import constants

LFS_ENDINGS = (".safetensors", ".png", ".bin", ".pt", ".parquet", ".tar", ".gz", ".zip", ".jpg", ".arrow")
COMMIT_KEYS = {"header", "file", "lfsFile", "deletedFile", "deletedFolder"}
TOKEN, READER = "hf_ownerSecretDistinct", "hf_readerSecretDistinct"  # of the users `user` and `reader`
KIND = r"(?P<kind>models|datasets)"
ID = r"(?P<repo>[\w.-]+/[\w.-]+)"
ANY_ID = r"(?P<repo>[\w.-]+(/[\w.-]+)?)"
REVISION = r"(?P<revision>[^/]+)"


@dataclass
class Repo:
    """A repository.

    Attributes:
        private (`bool`): Only its owner reads it.
        gated (`str`, *optional*): `"auto"` or `"manual"`: listed to all, read by its owner and those in `granted`.
        granted (`set[str]`): Users who accepted the terms.
        refs (`dict[str, dict[str, bytes]]`): Files of further branches and tags, such as `refs/convert/parquet`.
    """

    private: bool = False
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{".gitattributes": b""}])
    messages: list[str] = field(default_factory=lambda: ["initial commit"])
    gated: str | None = None
    granted: set[str] = field(default_factory=set)
    refs: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, bytes]:
        """Path to content, of the last commit."""
        return self.commits[-1]

    def sha(self, commit: int | str = -1) -> str:
        """The name of a commit on `main`, by its number, or of what a branch or tag points to."""
        if isinstance(commit, int):
            commit %= len(self.commits)
        return hashlib.sha1(f"{id(self)} {commit}".encode()).hexdigest()

    def at(self, revision: str) -> tuple[dict[str, bytes], str] | None:
        """Files and commit of a branch, tag or commit, if there is one."""
        commits = {self.sha(number): files for number, files in enumerate(self.commits)}
        commits.update((self.sha(ref), files) for ref, files in self.refs.items())
        sha = self.sha() if revision == "main" else self.sha(revision) if revision in self.refs else revision
        return (commits[sha], sha) if sha in commits else None

    @property
    def card(self) -> dict[str, Any]:
        """The metadata at the head of `README.md`."""
        head = re.match(r"---\n(.*?)\n---", self.files.get("README.md", b"").decode(), re.S)
        return yaml.safe_load(head[1]) if head else {}


@dataclass
class Fault:
    """What happens to the next `times` requests whose method and path match instead of what should."""

    method: str
    path: str
    status: int | None  # None: the line goes dead in the middle of the body
    times: int = 1
    done: bool = False  # what was asked for is done all the same


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.headers = status, {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}


class HubServer:
    """`with HubServer() as hub:` serves at `hub.url` until the block ends.

    Args:
        tokens (`dict[str, tuple[str, str]]`): Token to the user's name and `"write"` or `"read"`.
    """

    def __init__(self, tokens: dict[str, tuple[str, str]]):
        self.tokens, self.repos, self.storage, self.signed = tokens, {}, {}, {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []  # "METHOD /path"
        self.bodies: list[bytes] = []  # what came in, query and body, apart from the authorization header
        self.problems: list[str] = []
        self.served: Counter[str] = Counter()  # bytes by "repository/path"
        self.lock = threading.RLock()

    def __enter__(self) -> HubServer:
        handler = type("Handler", (Handler,), {"hub": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        # Another host, as storage is one: the client has to leave its token behind.
        self.storage_url = f"http://localhost:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.http.shutdown()
        self.http.server_close()

    def put(self, repo: str, files: dict[str, bytes], private: bool = False, **attributes: Any) -> Repo:
        """A repository that is there already: `user/model`, or `datasets/user/set`; with attributes of [`Repo`]."""
        self.repos[repo] = Repo(private, [dict(files)], ["made by the test"], **attributes)
        return self.repos[repo]

    def environment(self, home: str | os.PathLike, token: str | None = None) -> dict[str, str]:
        """Variables by which another process talks to this Hub, with caches of its own in `home`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "DISABLE_SAFETENSORS_CONVERSION": "1",
            **({"HF_TOKEN": token} if token else {}),
        }

    def fetched(self, name: str) -> dict[str, int]:
        """The files of a repository whose content was read, and how many bytes of each."""
        start = f"{name}/"
        return {path[len(start) :]: size for path, size in self.served.items() if path.startswith(start)}

    def fail(self, method: str, path: str, status: int | None, times: int = 1, done: bool = False) -> Fault:
        self.faults.append(Fault(method, path, status, times, done))
        return self.faults[-1]

    # ---- Rights ----

    def user(self, token: str | None) -> tuple[str, str] | None:
        if token is None:
            return None
        if token not in self.tokens:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.tokens[token]

    def readable(self, name: str, token: str | None) -> Repo:
        user, repo = self.user(token), self.repos.get(name)
        if repo is None or repo.private and (user is None or user[0] != owner_of(name)):
            raise Refused(401 if user is None else 404, "Repository not found", "RepoNotFound")
        return repo

    def opened(self, name: str, token: str | None) -> Repo:
        """A repository whose files the user may read, which of gated ones are those who accepted the terms."""
        user, repo = self.user(token), self.readable(name, token)
        if repo.gated and (user is None or user[0] not in {owner_of(name), *repo.granted}):
            login = "Please log in." if user is None else f"Visit {self.url}/{name} to ask for access."
            message = f"Access to {name} is restricted. You must have access to it and be authenticated. {login}"
            raise Refused(401 if user is None else 403, message, "GatedRepo")
        return repo

    def check_write(self, namespace: str, token: str | None) -> None:
        user = self.user(token)
        if user is None:
            raise Refused(401, "Invalid username or password.")
        if user != (namespace, "write"):
            raise Refused(403, f"You don't have the rights to write under the namespace {namespace!r}.")

    def writable(self, name: str, token: str | None) -> Repo:
        self.check_write(owner_of(name), token)
        return self.readable(name, token)

    # ---- What is asked for ----

    def whoami(self, request):
        if (user := self.user(request.token)) is None:
            raise Refused(401, "Invalid username or password.")
        return {"type": "user", "name": user[0], "orgs": [], "auth": {"accessToken": {"role": user[1]}}}

    def create(self, request):
        body = request.json({"name", "organization", "type", "visibility"})
        if (user := self.user(request.token)) is None:
            raise Refused(401, "Invalid username or password.")
        kind = body.get("type") or "model"
        made_name = f"{body.get('organization') or user[0]}/{body['name']}"
        name = f"datasets/{made_name}" if kind == "dataset" else made_name
        self.check_write(owner_of(name), request.token)
        made = {"url": f"{self.url}/{name}", "name": made_name}
        if name in self.repos:
            return 409, {**made, "error": f"You already created this {kind} repo"}
        self.repos[name] = Repo(private=body.get("visibility") == "private")
        return made

    def known_tools(self, request):
        """Names by which the client's user agent calls its surroundings; it asks once a day."""
        return {"standardEnvVars": [], "harnesses": {}}

    def check_auth(self, request, repo, write=None):
        (self.writable if write else self.opened)(repo, request.token)
        return {}

    def check_card(self, request):
        body = request.json({"content", "repoType"})
        if not re.match(r"---\n.*?\n---\n", body["content"], re.S):
            raise Refused(400, "no metadata")
        return {"errors": [], "warnings": []}

    def preupload(self, request, repo, revision):
        found = self.writable(repo, request.token)
        answers = []
        for entry in request.json({"files"})["files"]:
            lfs, content = entry["path"].endswith(LFS_ENDINGS), found.files.get(entry["path"])
            oid = None if content is None else oid_of(content, lfs)
            mode = "lfs" if lfs else "regular"
            answers.append({"path": entry["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": answers}

    def batch(self, request, repo):
        self.writable(repo, request.token)
        body = request.json({"operation", "transfers", "objects", "hash_algo", "ref"})
        request.expect(body["operation"] == "upload" and "basic" in body["transfers"], f"LFS batch {body}")
        objects = []
        for entry in body["objects"]:
            answer = dict(entry)
            if entry["oid"] not in self.storage:
                key = hashlib.sha256(f"signed {entry['oid']}".encode()).hexdigest()[:16]
                self.signed[key] = entry
                upload = {"href": f"{self.storage_url}/storage/{key}", "header": {}}
                answer["actions"] = {"upload": upload, "verify": {"href": f"{self.url}/{repo}.git/info/lfs/verify"}}
            objects.append(answer)
        return {"transfer": "basic", "objects": objects}

    def upload(self, request, key):
        entry = self.signed.get(key)
        if not request.expect(entry is not None, "an upload to an address that nobody was given"):
            raise Refused(403, "Signature does not match")
        request.expect(request.token is None, "the token went to storage")
        fits = len(request.body) == entry["size"] and hashlib.sha256(request.body).hexdigest() == entry["oid"]
        if not request.expect(fits, f"an upload of {len(request.body)} bytes that is not the {entry} it was to be"):
            raise Refused(400, "BadDigest")
        self.storage[entry["oid"]] = request.body
        return {}

    def verify(self, request, repo):
        self.writable(repo, request.token)
        entry = request.json({"oid", "size"})
        if len(self.storage.get(entry["oid"], b"")) != entry["size"]:
            raise Refused(404, "There is no such object")
        return {}

    def commit(self, request, repo, revision):
        found = self.writable(repo, request.token)
        lines = [json.loads(line) for line in request.body.splitlines()]
        request.expect(lines[0]["key"] == "header" and {line["key"] for line in lines} <= COMMIT_KEYS, "commit lines")
        files, touched = dict(found.files), []
        for key, value in ((line["key"], line["value"]) for line in lines[1:]):
            path = value["path"]
            request.expect(not path.startswith("/") and ".." not in path.split("/"), f"commit of {path!r}")
            touched.append(path)
            if key == "file":
                files[path] = base64.b64decode(value["content"], validate=True)
            elif key == "lfsFile":
                content = self.storage.get(value["oid"])
                known = value["algo"] == "sha256" and content is not None and len(content) == value["size"]
                if not request.expect(known, f"{path} was committed but never uploaded"):
                    raise Refused(400, "LFS object not found")
                files[path] = content
            elif key == "deletedFile":
                request.expect(files.pop(path, None) is not None, f"deletion of {path}, which is not there")
        request.expect(len(touched) == len(set(touched)), f"one path twice in a commit: {touched}")
        found.commits.append(files)
        found.messages.append(lines[0]["value"]["summary"])
        url = f"{self.url}/{repo}/commit/{found.sha()}"
        return {"success": True, "commitOid": found.sha(), "commitUrl": url}

    def info(self, request, repo, revision="main"):
        found = self.readable(repo, request.token)
        files, sha = self.at(found, unquote(revision))
        siblings = []
        for path, content in files.items():
            sibling = {"rfilename": path}
            if request.query.get("blobs", "").lower() == "true":
                sibling |= {"size": len(content), "blobId": oid_of(content, False)}
                if path.endswith(LFS_ENDINGS):
                    sibling["lfs"] = {"sha256": oid_of(content, True), "size": len(content), "pointerSize": 130}
            siblings.append(sibling)

        name = repo.removeprefix("datasets/")
        answer = {"id": name, "sha": sha, "private": found.private, "gated": found.gated or False}
        answer |= {"siblings": siblings, "tags": [], "cardData": found.card}
        return answer if repo.startswith("datasets/") else {**answer, "modelId": name}

    def refs(self, request, repo):
        found = self.readable(repo, request.token)
        answer = {"branches": [{"name": "main", "ref": "refs/heads/main", "targetCommit": found.sha()}]}
        answer |= {"converts": [], "tags": []}
        for ref in found.refs:
            kind = "converts" if ref.startswith("refs/convert/") else "tags"
            name = ref.removeprefix("refs/convert/")
            full = ref if kind == "converts" else f"refs/tags/{ref}"
            answer[kind].append({"name": name, "ref": full, "targetCommit": found.sha(ref)})
        return answer

    def tree(self, request, repo, revision, folder=""):
        files, _ = self.at(self.readable(repo, request.token), unquote(revision))
        inside = f"{unquote(folder)}/" if folder else ""
        entries = []
        for path, content in files_and_folders(files).items():
            deep = "/" in path.removeprefix(inside)
            if path.startswith(inside) and not (deep and request.query.get("recursive", "false").lower() == "false"):
                entries.append(describe(path, content))
        if folder and not entries:
            raise Refused(404, "There is no such folder", "EntryNotFound")
        return entries

    def paths_info(self, request, repo, revision):
        files, _ = self.at(self.readable(repo, request.token), unquote(revision))
        there = files_and_folders(files)
        asked = parse_qs(request.body.decode())
        request.expect(set(asked) <= {"paths", "expand"}, f"unknown keys {sorted(asked)}")
        return [describe(path, there[path]) for path in asked.get("paths", []) if path in there]

    def resolve(self, request, repo, revision, path):
        files, sha = self.at(self.opened(repo, request.token), unquote(revision))
        if (content := files.get(unquote(path))) is None:
            raise Refused(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": sha})
        lfs = path.endswith(LFS_ENDINGS)
        headers = {"X-Repo-Commit": sha, "ETag": f'"{oid_of(content, lfs)}"'}
        if not lfs:
            return self.part_of(request, content, headers, f"{repo}/{unquote(path)}")
        oid = oid_of(content, True)
        self.storage[oid] = content
        headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{oid}"'}
        return 302, b"", {**headers, "Location": f"{self.storage_url}/stored/{oid}/{repo}/{path}"}

    def download(self, request, oid, path):
        request.expect(request.token is None, "the token went to storage")
        return self.part_of(request, self.storage[oid], {"ETag": f'"{oid}"'}, unquote(path))

    def part_of(self, request, content, headers, path):
        """A file, or the range of it that is asked for, as readers of a parquet file's end do."""
        headers = {**headers, "Accept-Ranges": "bytes"}
        status = 200
        if (asked := request.headers["Range"]) is not None:
            first, last = re.fullmatch(r"bytes=(\d*)-(\d*)", asked).groups()
            start = int(first) if first else max(0, len(content) - int(last))
            stop = min(int(last) + 1, len(content)) if first and last else len(content)
            if start >= len(content):
                raise Refused(416, "Range not satisfiable", "", {"Content-Range": f"bytes */{len(content)}"})
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            status, content = 206, content[start:stop]

        if request.command == "GET":
            self.served[path] += len(content)
        return status, content, headers

    def at(self, repo: Repo, revision: str) -> tuple[dict[str, bytes], str]:
        if (found := repo.at(revision)) is None:
            raise Refused(404, "Revision not found", "RevisionNotFound")
        return found


ROUTES: list[tuple[str, str, Callable]] = [
    ("GET", r"/api/whoami-v2", HubServer.whoami),
    ("GET", r"/api/agent-harnesses", HubServer.known_tools),
    ("POST", r"/api/repos/create", HubServer.create),
    ("POST", r"/api/validate-yaml", HubServer.check_card),
    ("GET", rf"/api/{KIND}/{ID}/auth-check(?P<write>/write)?", HubServer.check_auth),
    ("POST", rf"/api/{KIND}/{ID}/preupload/{REVISION}", HubServer.preupload),
    ("POST", rf"/api/{KIND}/{ID}/commit/{REVISION}", HubServer.commit),
    ("POST", rf"/api/{KIND}/{ID}/paths-info/{REVISION}", HubServer.paths_info),
    ("GET", rf"/api/{KIND}/{ID}/tree/{REVISION}(/(?P<folder>.+))?", HubServer.tree),
    ("GET", rf"/api/{KIND}/{ID}/refs", HubServer.refs),
    ("GET", rf"/api/{KIND}/{ID}(/revision/{REVISION})?", HubServer.info),
    ("GET", rf"/api/{KIND}/(?P<repo>[\w.-]+)(/revision/{REVISION})?", HubServer.info),
    ("POST", rf"/(?P<kind>datasets/)?{ID}\.git/info/lfs/objects/batch", HubServer.batch),
    ("POST", rf"/(?P<kind>datasets/)?{ID}\.git/info/lfs/verify", HubServer.verify),
    ("PUT", r"/storage/(?P<key>\w+)", HubServer.upload),
    ("GET", r"/stored/(?P<oid>\w+)/(?P<path>.+)", HubServer.download),
    ("HEAD", r"/stored/(?P<oid>\w+)/(?P<path>.+)", HubServer.download),
    ("GET", rf"/(?P<kind>datasets/)?{ANY_ID}/resolve/{REVISION}/(?P<path>.+)", HubServer.resolve),
    ("HEAD", rf"/(?P<kind>datasets/)?{ANY_ID}/resolve/{REVISION}/(?P<path>.+)", HubServer.resolve),
]


def owner_of(name: str) -> str:
    """The user or organisation whose repository it is."""
    return name.removeprefix("datasets/").split("/")[0]


def files_and_folders(files: dict[str, bytes]) -> dict[str, bytes | None]:
    """Path to content, and of each folder to `None`."""
    folders = {str(folder): None for path in files for folder in list(PurePosixPath(path).parents)[:-1]}
    return {**folders, **files}


def describe(path: str, content: bytes | None) -> dict[str, Any]:
    """A file or folder as listings show it."""
    if content is None:
        return {"type": "directory", "path": path, "size": 0, "oid": oid_of(path.encode(), False)}
    entry = {"type": "file", "path": path, "size": len(content), "oid": oid_of(content, False)}
    if path.endswith(LFS_ENDINGS):
        entry["lfs"] = {"oid": oid_of(content, True), "size": len(content), "pointerSize": 130}
    return entry


def oid_of(content: bytes, lfs: bool) -> str:
    """As git names a file, or its content in the large file storage."""
    return (
        hashlib.sha256(content).hexdigest() if lfs else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def answer(self) -> None:
        url, hub = urlsplit(self.path), self.hub
        self.query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.token = self.headers["Authorization"].removeprefix("Bearer ") if self.headers["Authorization"] else None

        with hub.lock:
            fault = next(
                (f for f in hub.faults if f.times and f.method == self.command and re.search(f.path, url.path)), None
            )
            if fault is not None:
                fault.times -= 1

        size = int(self.headers["Content-Length"] or 0)
        if fault is not None and fault.status is None:
            self.rfile.read(size // 2)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return

        self.body = self.rfile.read(size)
        with hub.lock:
            hub.requests.append(f"{self.command} {url.path}")
            kept = [f"{key}: {value}" for key, value in self.headers.items() if key.lower() != "authorization"]
            hub.bodies.append("\n".join([self.path, *kept, ""]).encode() + self.body + self._decoded())
            try:
                if fault is not None:
                    if fault.done:
                        self.find(url.path)
                    raise Refused(fault.status, "the test wants it so")
                self.reply(*self.find(url.path))
            except Refused as refused:
                self.reply(refused.status, {"error": str(refused)}, refused.headers)
            except Exception as error:  # a bug of the server must not look like one of the client
                hub.problems.append(f"{self.command} {self.path}: {error!r}")
                self.reply(501, {"error": repr(error)})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def find(self, path: str) -> tuple:
        for method, pattern, function in ROUTES:
            if method == self.command and (match := re.fullmatch(pattern, path)):
                given = {key: value for key, value in match.groupdict().items() if value is not None}
                if given.pop("kind", "models").strip("/") == "datasets":
                    given["repo"] = f"datasets/{given['repo']}"
                result = function(self.hub, self, **given)
                return result if isinstance(result, tuple) else (200, result)
        self.expect(False, "an unknown route")
        raise Refused(404, "unknown route")

    def expect(self, condition: bool, what: str) -> bool:
        if not condition:
            self.hub.problems.append(f"{self.command} {self.path}: {what}")
        return condition

    def json(self, known: set[str]) -> dict:
        body = json.loads(self.body)
        self.expect(set(body) <= known, f"unknown keys {sorted(set(body) - known)}")
        return body

    def _decoded(self) -> bytes:
        """The files that a commit carries as base64, to be searched too."""
        lines = self.body.splitlines() if "/commit/" in self.path else []
        files = [json.loads(line)["value"].get("content") for line in lines]
        return b"".join(base64.b64decode(content) for content in files if content)

    def reply(self, status: int, content, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            if value:
                self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


@contextmanager
def own_hub(monkeypatch: Any, home: Path) -> Iterator[HubServer]:
    """A Hub that this process talks to as the user `user`, with caches in `home`. It allows nothing that it does not
    know, and asserts so at its end."""
    with HubServer({TOKEN: ("user", "write"), READER: ("reader", "read")}) as server:
        settings = {"ENDPOINT": server.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}
        settings["HUGGINGFACE_CO_URL_TEMPLATE"] = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        settings |= {"HF_HUB_CACHE": str(home / "cache"), "HF_TOKEN_PATH": str(home / "token")}
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        # Both clients were made with the endpoint of their import.
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", server.url)
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)

        settings = {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": False, "HF_UPDATE_DOWNLOAD_COUNTS": False}
        settings["HUB_DATASETS_URL"] = server.url + "/datasets/{repo_id}/resolve/{revision}/{path}"
        settings |= {"HF_DATASETS_CACHE": home / "datasets", "DOWNLOADED_DATASETS_PATH": home / "downloads"}
        settings |= {"EXTRACTED_DATASETS_PATH": home / "extracted", "USE_PARQUET_EXPORT": False}
        for name, value in settings.items():
            monkeypatch.setattr(datasets.config, name, value)

        monkeypatch.setenv("HF_TOKEN", TOKEN)
        # Else transformers asks a service to convert what is no safetensors.
        monkeypatch.setenv("DISABLE_SAFETENSORS_CONVERSION", "1")
        yield server
    assert server.problems == []
