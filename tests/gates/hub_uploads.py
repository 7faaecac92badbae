"""The test hub with uploads: creating repositories, LFS objects and commits."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.hub.answers import Answer, as_json, failed
from tests.hub.api import HubApi, Request
from tests.hub.handler import Handler
from tests.hub.repository import StoredFile
from tests.hub.server import HubServer, Repository

TOKEN = "hf_of_the_owner"
_NAME = r"(?P<repo>[^/]+/[^/]+?)"
_ROUTES = {
    "create": re.compile(r"/api/repos/create"),
    "validate": re.compile(r"/api/validate-yaml"),
    "preupload": re.compile(rf"/api/models/{_NAME}/preupload/(?P<rev>[^/]+)"),
    "batch": re.compile(rf"/{_NAME}\.git/info/lfs/objects/batch"),
    "commit": re.compile(rf"/api/models/{_NAME}/commit/(?P<rev>[^/]+)"),
}


class UploadApi(HubApi):
    """The hub's API, which also takes commits to `main` from whoever has the token."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.commits: list[dict[str, Any]] = []
        """Header of every commit: summary, description, parentCommit."""
        self.ignored: set[str] = set()
        """Paths that the repository's .gitignore leaves out."""
        self.instead: dict[str, bytes] = {}
        """Path -> what the hub keeps in place of what it is sent."""
        self.meanwhile: Repository | None = None
        """A state that somebody else pushes just before the next commit."""

    def files(self, name: str) -> dict[str, bytes]:
        """What a repository holds."""
        content = self._repositories[name].files
        return {path: item for path, item in content.items() if isinstance(item, bytes)}

    def has(self, name: str) -> bool:
        """Whether there is such a repository."""
        return name in self._repositories

    def answer(self, request: Request) -> Answer:
        """Answers for uploads here, the rest as any hub."""
        path = urlsplit(request.target).path
        for kind, pattern in _ROUTES.items():
            if request.method == "POST" and (match := pattern.fullmatch(path)):
                if request.token != TOKEN:
                    return failed(401, "Invalid username or password.")
                repo = unquote(match.groupdict().get("repo") or "")
                answer: Answer = getattr(self, f"_{kind}")(repo, request)
                return answer
        return super().answer(request)

    def stored(self, request: Request) -> Answer:
        """Takes an LFS object, if it is what its name says."""
        if request.method != "PUT":
            return super().stored(request)
        oid = urlsplit(request.target).path.rpartition("/")[2]
        if hashlib.sha256(request.body).hexdigest() != oid:
            return failed(400, "BadDigest")
        self._objects[oid] = request.body
        return Answer(200)

    def _create(self, _: str, request: Request) -> Answer:
        body = json.loads(request.body)
        name = f"{body['organization']}/{body['name']}"
        made = as_json({"url": f"{self._endpoint}/{name}", "name": name})
        if self.has(name):
            return replace(made, status=409)
        self.add([Repository(name, {}, private=body.get("visibility") == "private")])
        return made

    def _validate(self, _: str, request: Request) -> Answer:
        assert json.loads(request.body)["content"]
        return as_json({"errors": [], "warnings": []})

    def _preupload(self, repo: str, request: Request) -> Answer:
        if not self.has(repo):
            return failed(404, "Repository not found", "RepoNotFound")
        files = [
            {
                "path": item["path"],
                "uploadMode": "lfs" if StoredFile(item["path"], b"").is_lfs else "regular",
                "shouldIgnore": item["path"] in self.ignored,
                "oid": None,
            }
            for item in json.loads(request.body)["files"]
        ]
        return as_json({"files": files})

    def _batch(self, _: str, request: Request) -> Answer:
        objects = [
            {
                "oid": item["oid"],
                "size": item["size"],
                "actions": {"upload": {"href": f"{self._storage}/lfs/{item['oid']}", "header": {}}},
            }
            for item in json.loads(request.body)["objects"]
        ]
        return as_json({"transfer": "basic", "objects": objects})

    def _commit(self, repo: str, request: Request) -> Answer:
        if self.meanwhile is not None:
            self.add([self.meanwhile])
        lines = [json.loads(line) for line in request.body.splitlines()]
        header = lines[0]["value"]
        repository = self._repositories[repo]
        if header.get("parentCommit", repository.head) != repository.head:
            return failed(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repository.files)
        for line in lines[1:]:
            value = line["value"]
            content = (
                self._objects[value["oid"]]
                if line["key"] == "lfsFile"
                else base64.b64decode(value["content"])
            )
            files[value["path"]] = self.instead.get(value["path"], content)
        self.commits.append(header)
        new = replace(repository, files=files)
        self.add([new])
        url = f"{self._endpoint}/{repo}/commit/{new.head}"
        return as_json({"success": True, "commitUrl": url, "commitOid": new.head})


class _UploadHandler(Handler):
    """One connection that may also send files."""

    do_PUT = Handler.do_GET  # noqa: N815 - the base's names


class UploadHub(HubServer):
    """A hub that takes uploads."""

    api: UploadApi

    def __init__(self, repositories: Iterable[Repository] = ()) -> None:
        super().__init__()
        tokens: dict[str, list[str]] = {TOKEN: []}
        self.api = UploadApi(repositories, tokens, 1000, self.endpoint, self.storage)
        for listener in self._listeners:
            listener.RequestHandlerClass = _UploadHandler
