"""A Hugging Face Hub in one process: the few endpoints that pushing and pulling a model need."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

Files = dict[str, bytes]


class Hub:
    """Repositories as lists of commits.

    refuse: every writing request is answered with 403; lost: every large file with 400.
    """

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, Files]] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.private: set[str] = set()
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.refuse = self.lost = False
        self.endpoint = ""

    def create(self, repo: str) -> bool:
        if repo in self.commits:
            return False
        self.commits[repo], self.branches[repo] = {}, {}
        self.commit(repo, "main", {".gitattributes": b"*.safetensors filter=lfs"})
        return True

    def commit(self, repo: str, branch: str, added: Files) -> str:
        files = {**self.files(repo, branch), **added}
        content = repr((repo, branch, len(self.commits[repo]), sorted(files.items()))).encode()
        sha = hashlib.sha1(content).hexdigest()
        self.commits[repo][sha] = files
        self.branches[repo][branch] = sha
        return sha

    def sha(self, repo: str, revision: str) -> str | None:
        return revision if revision in self.commits[repo] else self.branches[repo].get(revision)

    def files(self, repo: str, revision: str) -> Files:
        sha = self.sha(repo, revision)
        return self.commits[repo][sha] if sha else {}


@contextmanager
def fake_hub() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, value: object, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def missing(self, what: str) -> None:
        self.answer(404, b"{}", X_Error_Code=what, X_Error_Message=what)

    def handle_request(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        path = unquote(self.path.split("?")[0])
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.refuse and self.command in ("POST", "PUT"):
            self.answer_json({"error": "Forbidden: no write token"}, 403)
            return
        for pattern, action in ROUTES.items():
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                groups = match.groupdict()
                if "repo" in groups and groups["repo"] not in self.hub.commits:
                    self.missing("RepoNotFound")
                elif "rev" in groups and self.hub.sha(groups["repo"], groups["rev"]) is None:
                    self.missing("RevisionNotFound")
                else:
                    action(self, body, **groups)
                return
        self.answer(501, f"not spoken here: {self.command} {path}".encode())

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def create_repo(self, body: bytes) -> None:
        wanted = json.loads(body)
        repo = f"{wanted['organization']}/{wanted['name']}"
        created = self.hub.create(repo)
        if created and (wanted.get("private") or wanted.get("visibility") == "private"):
            self.hub.private.add(repo)
        self.answer_json({"url": f"{self.hub.endpoint}/{repo}"}, 200 if created else 409)

    def create_branch(self, body: bytes, repo: str, new: str) -> None:
        exists = new in self.hub.branches[repo]
        if not exists:
            self.hub.branches[repo][new] = self.hub.branches[repo]["main"]
        self.answer_json({}, 409 if exists else 200)

    def validate_yaml(self, body: bytes) -> None:
        content = json.loads(body)["content"]
        good = content.startswith("---\n") and "\n---\n" in content
        self.answer_json({"errors": [], "warnings": []}, 200 if good else 400)

    def preupload(self, body: bytes, repo: str, rev: str) -> None:
        entries = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self.answer_json({"files": entries})

    def lfs_batch(self, body: bytes, repo: str) -> None:
        objects = [
            {**wanted, "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{wanted['oid']}"}}}
            for wanted in json.loads(body)["objects"]
        ]
        self.answer_json({"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> None:
        if self.hub.lost or hashlib.sha256(body).hexdigest() != oid:
            self.answer(400, b"other content")
            return
        self.hub.objects[oid] = body
        self.answer(200)

    def commit(self, body: bytes, repo: str, rev: str) -> None:
        added = {}
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                added[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                added[value["path"]] = self.hub.objects[value["oid"]]
        sha = self.hub.commit(repo, rev, added)
        url = f"{self.hub.endpoint}/{repo}/commit/{sha}"
        self.answer_json({"commitUrl": url, "commitOid": sha})

    def info(self, body: bytes, repo: str, rev: str = "main") -> None:
        files = self.hub.files(repo, rev)
        self.answer_json(
            {
                "id": repo,
                "private": repo in self.hub.private,
                "sha": self.hub.sha(repo, rev),
                "siblings": [{"rfilename": name} for name in files],
            }
        )

    def resolve(self, body: bytes, repo: str, rev: str, file: str) -> None:
        content = self.hub.files(repo, rev).get(file)
        sha = str(self.hub.sha(repo, rev))
        if content is None:
            self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
            return
        etag = hashlib.sha256(content).hexdigest()
        self.answer(200, content, ETag=f'"{etag}"', X_Repo_Commit=sha)


REPO = r"(?P<repo>[^/]+/[^/]+)"
REV = r"(?P<rev>[^/]+)"
ROUTES = {
    "POST /api/repos/create": _Handler.create_repo,
    "POST /api/validate-yaml": _Handler.validate_yaml,
    rf"POST /api/models/{REPO}/branch/(?P<new>[^/]+)": _Handler.create_branch,
    rf"POST /api/models/{REPO}/preupload/{REV}": _Handler.preupload,
    rf"POST /{REPO}\.git/info/lfs/objects/batch": _Handler.lfs_batch,
    "PUT /lfs/(?P<oid>[0-9a-f]+)": _Handler.lfs_put,
    rf"POST /api/models/{REPO}/commit/{REV}": _Handler.commit,
    rf"GET /api/models/{REPO}": _Handler.info,
    rf"GET /api/models/{REPO}/revision/{REV}": _Handler.info,
    rf"(GET|HEAD) /{REPO}/resolve/{REV}/(?P<file>.+)": _Handler.resolve,
}
