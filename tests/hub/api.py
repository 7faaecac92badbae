"""The hub's API and its LFS storage: a request -> an answer. No sockets."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterable, Mapping
from threading import Lock
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from tests.hub.answers import Answer, as_json, failed
from tests.hub.repository import Content, Repository, StoredFile

_NAME = r"(?P<repo>[^/]+/[^/]+)"
_ROUTES = (
    ("list", re.compile(r"/api/models")),
    ("info", re.compile(rf"/api/models/{_NAME}(?:/revision/(?P<rev>[^/]+))?")),
    ("tree", re.compile(rf"/api/models/{_NAME}/tree/(?P<rev>[^/]+)(?:/(?P<path>.+))?")),
    ("paths-info", re.compile(rf"/api/models/{_NAME}/paths-info/(?P<rev>[^/]+)")),
    ("refs", re.compile(rf"/api/models/{_NAME}/refs")),
    ("whoami", re.compile(r"/api/whoami-v2")),
    ("cache", re.compile(rf"/api/resolve-cache/models/{_NAME}/(?P<rev>[^/]+)/(?P<path>.+)")),
    ("resolve", re.compile(rf"/{_NAME}/resolve/(?P<rev>[^/]+)/(?P<path>.+)")),
)
_SORT_KEYS = {
    "lastModified": lambda repository: repository.last_modified.isoformat(),
    "createdAt": lambda repository: repository.created.isoformat(),
    "downloads": lambda repository: f"{repository.downloads:020d}",
}
_TREE_PAGE = 1000


class Request(NamedTuple):
    """One request."""

    method: str
    target: str
    """Path and query."""
    token: str | None
    body: bytes = b""
    content_type: str = ""


class Refused(Exception):  # noqa: N818 - not an error of this program
    """Carries the answer that ends a request early."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def kind_of(target: str, is_storage: bool) -> str:
    """What a request is counted as."""
    if is_storage:
        return "storage"
    path = urlsplit(target).path
    found = next((kind for kind, pattern in _ROUTES if pattern.fullmatch(path)), "other")
    return "other" if found in ("refs", "whoami") else found


class HubApi:
    """State and routes of the hub; see `tests.hub.server.HubServer`."""

    def __init__(
        self,
        repositories: Iterable[Repository],
        tokens: Mapping[str, Collection[str]],
        page_size: int,
        endpoint: str,
        storage: str,
    ) -> None:
        self._lock = Lock()
        self._repositories: dict[str, Repository] = {}
        self._objects: dict[str, Content] = {}
        self._tokens = tokens
        self._page_size = page_size
        self._endpoint = endpoint
        self._storage = storage
        self.add(repositories)

    def add(self, repositories: Iterable[Repository]) -> None:
        """Adds repositories; one of the same name is replaced."""
        with self._lock:
            self._repositories |= {item.id: item for item in repositories}

    def remove(self, name: str) -> None:
        """Removes one."""
        with self._lock:
            del self._repositories[name]

    def answer(self, request: Request) -> Answer:
        """The hub's answer."""
        url = urlsplit(request.target)
        query = parse_qs(url.query)
        if request.token is not None and request.token not in self._tokens:
            return failed(401, "Invalid credentials in Authorization header")
        for kind, pattern in _ROUTES:
            if match := pattern.fullmatch(url.path):
                parts = {name: unquote(text or "") for name, text in match.groupdict().items()}
                try:
                    return self._routed(kind, request, parts, query)
                except Refused as refused:
                    return refused.answer
        return failed(404, "Sorry, we can't find the page you are looking for.")

    def stored(self, request: Request) -> Answer:
        """The LFS storage's answer."""
        oid = urlsplit(request.target).path.rpartition("/")[2]
        if request.token is not None:
            return Answer(400, b"<Error><Code>InvalidArgument</Code></Error>")
        if oid not in self._objects:
            return Answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        headers = {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"}
        return Answer(200, self._objects[oid], headers, ranged=True)

    def _routed(
        self, kind: str, request: Request, parts: dict[str, str], query: dict[str, list[str]]
    ) -> Answer:
        if kind == "list":
            return self._list(request, query)
        if kind == "whoami":
            return self._whoami(request)
        repository = self._visible(parts["repo"], request.token)
        if kind == "refs":
            return self._refs(repository)
        commit, files = self._revision(repository, parts.get("rev") or "main")
        if kind == "info":
            blobs = query.get("blobs", ["false"])[0].lower() == "true"
            return as_json(repository.info(parts["rev"] or "main", full=True, blobs=blobs))
        if kind == "tree":
            return self._tree(files, parts["path"], request, query)
        if kind == "paths-info":
            return self._paths_info(files, request)
        return self._file(kind, repository, commit, files, parts["path"], request)

    def _visible(self, name: str, token: str | None) -> Repository:
        repository = self._repositories.get(name)
        granted = token is not None and name in self._tokens[token]
        if repository is None or (repository.private and not granted):
            raise Refused(failed(404 if token else 401, "Repository not found", "RepoNotFound"))
        if repository.disabled:
            raise Refused(failed(403, "Access to this resource is disabled."))
        return repository

    def _revision(self, repository: Repository, rev: str) -> tuple[str, dict[str, StoredFile]]:
        found = repository.files_at(rev)
        if found is None:
            raise Refused(failed(404, f"Invalid rev id: {rev}", "RevisionNotFound"))
        return found

    def _whoami(self, request: Request) -> Answer:
        if request.token is None:
            return failed(401, "Invalid username or password.")
        return as_json({"type": "user", "name": "reader", "orgs": [], "auth": {}})

    def _refs(self, repository: Repository) -> Answer:
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": repository.commit_of(files)}
            for name, files in {"main": repository.files, **repository.revisions}.items()
        ]
        return as_json({"branches": branches, "tags": [], "converts": []})

    def _list(self, request: Request, query: dict[str, list[str]]) -> Answer:
        def first(name: str, default: str = "") -> str:
            return query.get(name, [default])[0]

        granted = self._tokens.get(request.token or "", ())
        wanted = [*query.get("filter", []), *query.get("filter[]", [])]
        key_of = _SORT_KEYS.get(first("sort"), lambda _: "")
        with self._lock:
            found = [
                item
                for item in self._repositories.values()
                if (not item.private or item.id in granted)
                and set(wanted) <= set(item.all_tags)
                and first("author") in ("", item.author)
                and first("search").lower() in item.id.lower()
            ]
        ordered = sorted(found, key=lambda item: item.id)
        ordered.sort(key=key_of, reverse=first("direction") != "1")
        if cursor := first("cursor"):
            ordered = _after(ordered, cursor)
        count = min(int(first("limit") or self._page_size), self._page_size)
        page, rest = ordered[:count], ordered[count:]
        headers = {}
        if rest:
            following = {name: value for name, value in query.items() if name != "cursor"}
            headers["Link"] = self._next("/api/models", following, page[-1].id)
        return as_json([_listed(item, query) for item in page], **headers)

    def _next(self, path: str, query: dict[str, list[str]], last: str) -> str:
        cursor = base64.urlsafe_b64encode(json.dumps({"after": last}).encode()).decode()
        text = urlencode({**query, "cursor": [cursor]}, doseq=True)
        return f'<{self._endpoint}{path}?{text}>; rel="next"'

    def _tree(
        self,
        files: dict[str, StoredFile],
        folder: str,
        request: Request,
        query: dict[str, list[str]],
    ) -> Answer:
        prefix = f"{folder}/" if folder else ""
        below = [file for path, file in files.items() if path.startswith(prefix)]
        if folder and not below:
            return failed(404, f"{folder} does not exist", "EntryNotFound")
        recursive = query.get("recursive", ["false"])[0].lower() == "true"
        folders = _folders(below, prefix, recursive)
        entries: list[dict[str, Any]] = [
            {"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in folders
        ]
        entries += [f.tree_entry() for f in below if recursive or "/" not in f.path[len(prefix) :]]
        if "cursor" in query:
            last = _cursor(query["cursor"][0])
            entries = entries[[entry["path"] for entry in entries].index(last) + 1 :]
        page, rest = entries[:_TREE_PAGE], entries[_TREE_PAGE:]
        following = {name: value for name, value in query.items() if name != "cursor"}
        own = urlsplit(request.target).path
        headers = {"Link": self._next(own, following, page[-1]["path"])} if rest else {}
        return as_json(page, **headers)

    def _paths_info(self, files: dict[str, StoredFile], request: Request) -> Answer:
        if "json" in request.content_type:
            paths = json.loads(request.body)["paths"]
        else:
            paths = parse_qs(request.body.decode()).get("paths", [])
        return as_json([files[path].tree_entry() for path in paths if path in files])

    def _file(
        self,
        kind: str,
        repository: Repository,
        commit: str,
        files: dict[str, StoredFile],
        path: str,
        request: Request,
    ) -> Answer:
        if repository.gated and repository.id not in self._tokens.get(request.token or "", ()):
            return _gated(repository, request.token)
        common = {"X-Repo-Commit": commit}
        file = files.get(path)
        if file is None:
            missing = failed(404, "Entry not found", "EntryNotFound")
            return Answer(404, missing.content, {**missing.headers, **common})
        common["ETag"] = f'"{file.etag}"'
        if kind == "cache":
            return Answer(200, file.content, {**common, "Accept-Ranges": "bytes"}, ranged=True)
        common |= {"X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{file.etag}"'}
        if not file.is_lfs:
            where = f"/api/resolve-cache/models/{repository.id}/{commit}/{quote(path)}"
            return Answer(307, b"", {**common, "Location": where})
        self._objects[file.sha256] = file.content
        where = f"{self._storage}/lfs/{file.sha256}?X-Amz-Signature={commit}"
        return Answer(302, b"", {**common, "Location": where})


def _gated(repository: Repository, token: str | None) -> Answer:
    what = f"Access to model {repository.id} is restricted"
    if token is None:
        return failed(
            401,
            f"{what}. You must have access to it and be authenticated to access it. Please log in.",
            "GatedRepo",
        )
    return failed(403, f"{what} and you are not in the authorized list.", "GatedRepo")


def _listed(repository: Repository, query: dict[str, list[str]]) -> dict[str, Any]:
    """A listing's record: short, whole with `full`, or the fields of `expand`."""
    full = query.get("full", ["false"])[0].lower() == "true"
    expand = [*query.get("expand", []), *query.get("expand[]", [])]
    record = repository.info(full=full or bool(expand))
    if not expand:
        return record
    return {name: record[name] for name in ("_id", "id", *expand) if name in record}


def _after(ordered: list[Repository], cursor: str) -> list[Repository]:
    names = [item.id for item in ordered]
    last = _cursor(cursor)
    if last not in names:
        raise Refused(failed(400, "Invalid cursor"))
    return ordered[names.index(last) + 1 :]


def _cursor(text: str) -> str:
    try:
        return str(json.loads(base64.urlsafe_b64decode(text))["after"])
    except (ValueError, KeyError):
        raise Refused(failed(400, "Invalid cursor")) from None


def _folders(below: list[StoredFile], prefix: str, recursive: bool) -> list[str]:
    found = set()
    for file in below:
        parts = file.path[len(prefix) :].split("/")[:-1]
        deepest = len(parts) if recursive else min(1, len(parts))
        found |= {prefix + "/".join(parts[:depth]) for depth in range(1, deepest + 1)}
    return sorted(found)
