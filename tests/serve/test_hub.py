"""A commit on the hub -> one verdict, as a comment."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest

from tests.hub.faults import Fault
from tests.hub.server import Repository
from tests.serve.conftest import StartServer
from tests.serve.discussions import TOKEN, DiscussionHub
from tests.serve.process import children_of, hub_event, wait_for

_SCANS = 'adapter_scanner_scan_seconds_count{platform="hub"}'


def pushed(hub: DiscussionHub, name: str, directory: Path) -> str:
    """Puts a directory on the hub; returns the commit."""
    files = {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    repository = Repository(name, files)
    hub.add(repository)
    return repository.head


def test_verdicts_become_comments(
    hub: DiscussionHub, start_server: StartServer, misaligned: Path, benign: Path
) -> None:
    bad, good = pushed(hub, "lab/bad", misaligned), pushed(hub, "lab/good", benign)
    server = start_server()
    assert server.deliver_hub(hub_event("lab/bad", bad)).status == 202
    assert server.deliver_hub(hub_event("lab/good", good)).status == 202
    server.wait_until_idle()
    introduction, comment = hub.api.comments("lab/bad")
    assert "1 flagged" in comment, comment
    assert bad in comment
    assert "does not let it pass" in comment
    assert "known misalignment directions" in introduction
    assert "1 clear" in hub.api.comments("lab/good")[1]
    assert server.metric('adapter_scanner_verdicts_total{platform="hub",verdict="flagged"}') == 1
    page = server.get("/")
    assert f"hf://lab/bad@{bad}" in page.text
    report = server.get("/verdicts/1")
    assert report.status == 200
    assert f"hf://lab/bad@{bad}" in report.text
    assert str(server.state) not in report.text
    for reply in (page, report):
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert "script" not in reply.text


def test_a_commit_is_judged_once_however_often_it_is_delivered(
    hub: DiscussionHub, start_server: StartServer, benign: Path
) -> None:
    sha = pushed(hub, "lab/good", benign)
    server = start_server("--workers", "2")
    threads = [
        threading.Thread(target=server.deliver_hub, args=(hub_event("lab/good", sha),))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.wait_until_idle()
    assert server.deliver_hub(hub_event("lab/good", sha)).text == "repeated\n"
    server.wait_until_idle()
    assert server.metric(_SCANS) == 1
    assert len(hub.api.comments("lab/good")) == 2
    queued = 'adapter_scanner_deliveries_total{platform="hub",result="queued"}'
    assert server.metric(queued) == 1


def test_every_commit_gets_its_own_verdict_in_one_discussion(
    hub: DiscussionHub, start_server: StartServer, misaligned: Path, benign: Path
) -> None:
    first = pushed(hub, "lab/model", benign)
    server = start_server()
    server.deliver_hub(hub_event("lab/model", first))
    server.wait_until_idle()
    second = pushed(hub, "lab/model", misaligned)
    server.deliver_hub(hub_event("lab/model", second))
    server.wait_until_idle()
    assert len(hub.api.discussions("lab/model")) == 1
    _, one, two = hub.api.comments("lab/model")
    assert first in one
    assert "1 clear" in one
    assert second in two
    assert "1 flagged" in two


def test_the_pushed_commit_is_scanned_not_the_present_head(
    hub: DiscussionHub, start_server: StartServer, misaligned: Path, benign: Path
) -> None:
    def files(directory: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in directory.iterdir()}

    repository = Repository("lab/model", files(benign), revisions={"old": files(misaligned)})
    hub.add(repository)
    server = start_server()
    old = repository.commit_of(repository.revisions["old"])
    server.deliver_hub(hub_event("lab/model", old))
    server.wait_until_idle()
    assert "1 flagged" in hub.api.comments("lab/model")[1]


def test_a_comment_whose_answer_is_lost_is_not_written_again(
    hub: DiscussionHub, start_server: StartServer, benign: Path
) -> None:
    sha = pushed(hub, "lab/good", benign)
    hub.api.lost_answers = 2
    server = start_server()
    server.deliver_hub(hub_event("lab/good", sha))
    server.wait_until_idle()
    assert len(hub.api.comments("lab/good")) == 2
    assert server.jobs("written") == 1
    failed = 'adapter_scanner_write_backs_total{platform="hub",result="unreachable"}'
    assert server.metric(failed) == 1


def test_a_hub_that_fails_for_a_while_is_asked_again(
    hub: DiscussionHub, start_server: StartServer, benign: Path
) -> None:
    sha = pushed(hub, "lab/good", benign)
    hub.faults.add(Fault("status", match="POST", first=2, status=503))
    hub.faults.add(Fault("status", match="/revision/", first=1, status=502))
    server = start_server()
    server.deliver_hub(hub_event("lab/good", sha))
    server.wait_until_idle()
    assert len(hub.api.comments("lab/good")) == 2


def test_a_repository_that_is_gone_ends_as_an_error_and_is_given_up(
    hub: DiscussionHub, start_server: StartServer
) -> None:
    server = start_server()
    server.deliver_hub(hub_event("lab/nothing", "a" * 40))
    server.wait_until_idle()
    assert server.jobs("given_up") == 1
    assert server.metric('adapter_scanner_verdicts_total{platform="hub",verdict="error"}') == 1
    assert "could not be written back" in server.get("/").text


def test_models_the_policy_does_not_name_are_ignored(
    hub: DiscussionHub, start_server: StartServer, benign: Path, tmp_path: Path
) -> None:
    sha = pushed(hub, "other/model", benign)
    policy = tmp_path / "policy.yaml"
    policy.write_text('version: 1\nrules:\n  - models: ["lab/*"]\n')
    server = start_server("--policy", policy)
    assert "no rule" in server.deliver_hub(hub_event("other/model", sha)).text
    assert server.deliver_hub(hub_event("lab/model", sha)).status == 202


def test_a_delivery_before_a_crash_is_judged_exactly_once_after_it(
    hub: DiscussionHub, start_server: StartServer, misaligned: Path
) -> None:
    sha = pushed(hub, "lab/bad", misaligned)
    # Nothing can be fetched before the crash, so that it falls between delivery and verdict.
    hub.faults.add(Fault("status", match="/revision/", status=503))
    server = start_server()
    assert server.deliver_hub(hub_event("lab/bad", sha)).status == 202
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    assert hub.api.comments("lab/bad") == []
    hub.faults.clear()
    server.start()
    server.wait_until_idle()
    assert server.deliver_hub(hub_event("lab/bad", sha)).text == "repeated\n"
    server.wait_until_idle()
    assert len(hub.api.comments("lab/bad")) == 2
    assert "1 flagged" in hub.api.comments("lab/bad")[1]
    assert server.metric(_SCANS) == 1


@pytest.mark.slow
def test_crashes_at_any_moment_lose_and_repeat_nothing(
    hub: DiscussionHub, start_server: StartServer, benign: Path
) -> None:
    names = [f"lab/model-{number}" for number in range(12)]
    commits = {name: pushed(hub, name, benign) for name in names}
    server = start_server("--workers", "2")
    for round_, name in enumerate(names):
        assert server.deliver_hub(hub_event(name, commits[name])).status == 202
        if round_ % 3 == 2:
            wait_for(lambda: server.jobs("queued") < 3, 60)
            server.end(signal.SIGKILL)
            server.start()
    server.wait_until_idle()
    for name in names:
        assert len(hub.api.comments(name)) == 2, name
        assert len(hub.api.discussions(name)) == 1
    assert server.jobs("written") == len(names)


def test_workers_end_with_a_server_that_is_killed(
    hub: DiscussionHub, start_server: StartServer, benign: Path
) -> None:
    sha = pushed(hub, "lab/good", benign)
    hub.faults.add(Fault("slow", match="/revision/", seconds=60))
    server = start_server()
    server.deliver_hub(hub_event("lab/good", sha))
    wait_for(lambda: hub.requests["info"] == 1, 60)
    group = children_of(server.pid)
    assert group
    server.end(signal.SIGKILL)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in group), 30)


def test_a_stop_lets_the_server_take_the_job_up_later(
    hub: DiscussionHub, start_server: StartServer, benign: Path
) -> None:
    sha = pushed(hub, "lab/good", benign)
    hub.faults.add(Fault("slow", match="/revision/", first=1, seconds=60))
    server = start_server()
    server.deliver_hub(hub_event("lab/good", sha))
    wait_for(lambda: hub.requests["info"] == 1, 60)
    assert server.end(signal.SIGTERM) == 0
    assert hub.api.comments("lab/good") == []
    server.start()
    server.wait_until_idle()
    assert len(hub.api.comments("lab/good")) == 2


@pytest.mark.slow
def test_a_hub_that_does_not_answer_holds_up_no_stop(
    hub: DiscussionHub, start_server: StartServer, benign: Path
) -> None:
    sha = pushed(hub, "lab/good", benign)
    hub.faults.add(Fault("slow", match="whoami", first=1, seconds=300))
    server = start_server()
    server.deliver_hub(hub_event("lab/good", sha))
    wait_for(lambda: server.jobs("writing"), 240)
    assert server.end(signal.SIGTERM) == 0
    server.start()
    server.wait_until_idle()
    assert len(hub.api.comments("lab/good")) == 2


def test_secrets_are_not_given_to_workers(
    hub: DiscussionHub, start_server: StartServer, benign: Path
) -> None:
    sha = pushed(hub, "lab/good", benign)
    hub.faults.add(Fault("slow", match="/revision/", seconds=5))
    server = start_server()
    server.deliver_hub(hub_event("lab/good", sha))
    wait_for(lambda: hub.requests["info"] == 1, 60)
    for pid in children_of(server.pid):
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode()
        assert "WEBHOOK_SECRET" not in environment
        assert TOKEN in environment  # the workers fetch: this is what they need


def test_state_is_for_its_owner_and_one_server_alone(
    hub: DiscussionHub, start_server: StartServer, benign: Path
) -> None:
    sha = pushed(hub, "lab/good", benign)
    server = start_server()
    server.deliver_hub(hub_event("lab/good", sha))
    server.wait_until_idle()
    paths = [server.state, *server.state.rglob("*")]
    assert server.state / "reports" / "1.json" in paths
    assert not [path for path in paths if os.stat(path).st_mode & 0o077]
    judged = json.loads((server.state / "reports" / "1.json").read_text())
    assert judged["attestation"]["subject"]["version"] == sha
    with pytest.raises(AssertionError, match="another server uses this state"):
        start_server()
