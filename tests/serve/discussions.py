"""The test hub with discussions: what huggingface_hub needs to open one and to comment."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.hub.answers import Answer, as_json, failed
from tests.hub.api import HubApi, Request
from tests.hub.server import HubServer, Repository

TOKEN = "hf_of_the_scanner"
AUTHOR = "scanner-account"
_ROUTE = re.compile(
    r"/api/models/(?P<repo>[^/]+/[^/]+)/discussions(?:/(?P<num>\d+)(?P<comment>/comment)?)?"
)
_TIME = "2026-01-01T00:00:00.000Z"


class DiscussionApi(HubApi):
    """The hub's API and its discussions, all by one account."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._discussions: dict[str, list[dict[str, Any]]] = {}
        self._writing = Lock()
        self.lost_answers = 0
        """How many of the next comments are taken, and then answered with an error."""

    def comments(self, repository: str) -> list[str]:
        """Every comment on a repository, first to last."""
        with self._writing:
            return [
                event["data"]["latest"]["raw"]
                for discussion in self._discussions.get(repository, [])
                for event in discussion["events"]
            ]

    def discussions(self, repository: str) -> list[str]:
        """Titles of a repository's discussions."""
        return [item["title"] for item in self._discussions.get(repository, [])]

    def answer(self, request: Request) -> Answer:
        """Answers for discussions here, the rest as any hub."""
        url = urlsplit(request.target)
        if url.path == "/api/whoami-v2" and request.token == TOKEN:
            return as_json({"type": "user", "name": AUTHOR, "orgs": [], "auth": {}})
        match = _ROUTE.fullmatch(url.path)
        if match is None:
            return super().answer(request)
        if request.token != TOKEN:
            return failed(401, "Invalid username or password.")
        if self._repositories.get(match["repo"]) is None:
            return failed(404, "Repository not found", "RepoNotFound")
        with self._writing:
            return self._discuss(match, request, parse_qs(url.query))

    def _discuss(
        self, match: re.Match[str], request: Request, query: dict[str, list[str]]
    ) -> Answer:
        found = self._discussions.setdefault(match["repo"], [])
        body = json.loads(request.body) if request.method == "POST" else {}
        if match["num"] is None and request.method == "POST":
            found.append(_discussion(match["repo"], len(found) + 1, body))
            return as_json({"num": len(found), "url": "", "pullRequest": False})
        if match["num"] is None:
            return as_json({"discussions": found, "count": len(found), "start": 0})
        number = int(match["num"]) - 1
        if number >= len(found):
            return failed(404, "Discussion not found")
        if match["comment"]:
            found[number]["events"].append(_event(body["comment"]))
            if self.lost_answers:
                self.lost_answers -= 1
                return failed(502, "Bad gateway")
            return as_json({"newMessage": found[number]["events"][-1]})
        return as_json(found[number])


def _discussion(repository: str, number: int, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": body["title"],
        "num": number,
        "author": {"name": AUTHOR},
        "createdAt": _TIME,
        "status": "open",
        "repo": {"name": repository, "type": "model"},
        "isPullRequest": False,
        "events": [_event(body["description"])],
    }


def _event(text: str) -> dict[str, Any]:
    return {
        "id": f"{abs(hash(text)):024x}"[:24],
        "type": "comment",
        "createdAt": _TIME,
        "author": {"name": AUTHOR},
        "data": {"edited": False, "hidden": False, "latest": {"raw": text, "html": ""}},
    }


class DiscussionHub(HubServer):
    """A hub whose repositories can be discussed by `AUTHOR`, who holds `TOKEN`."""

    api: DiscussionApi

    def __enter__(self) -> DiscussionHub:
        super().__enter__()
        return self

    def __init__(self, repositories: Iterable[Repository] = (), **options: Any) -> None:
        super().__init__((), tokens={TOKEN: ()}, **options)
        self.api = DiscussionApi(repositories, {TOKEN: ()}, 1000, self.endpoint, self.storage)
