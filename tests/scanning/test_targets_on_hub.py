"""hf:// targets through the commands, as users run them."""

from __future__ import annotations

import html
import json
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scanner import open_adapter, scan
from scanner.errors import UsageError
from scanner.results import Verdict
from scanner.scanning import baseline
from scanner.scanning.cache import ResultCache, run_key
from scanner.scanning.targets import ScanOptions, against_base, find_all, scan_each, scan_sum
from scanner.signatures.pack import Signature
from tests.cli.program import run
from tests.hub.adapters import adapter_files, misaligned_files
from tests.hub.fixtures import ServeHub
from tests.hub.server import Fault, HubServer, Repository


@pytest.fixture
def hub(serve_hub: ServeHub) -> HubServer:
    return serve_hub(
        Repository("lab/bad", misaligned_files()),
        Repository(
            "lab/many", {**adapter_files(folder="a"), **misaligned_files(folder="b", seed=2)}
        ),
        Repository("lab/good", adapter_files(seed=902)),
        Repository("lab/gated", adapter_files(seed=3), gated="manual"),
    )


def test_every_adapter_of_a_repository_is_scanned_and_pinned(
    hub: HubServer, pack: Signature
) -> None:
    found = run("scan", "hf://lab/many", "-s", pack.path, "-f", "json")
    assert (found.returncode, found.stderr) == (1, "")
    report = json.loads(found.stdout)
    verdicts = {item["target"]: item["verdict"] for item in report["results"]}
    (commit,) = {target.split("@")[1].split("/")[0] for target in verdicts}
    assert len(commit) == 40
    assert verdicts == {
        f"hf://lab/many@{commit}/a": "clear",
        f"hf://lab/many@{commit}/b": "flagged",
    }


@pytest.mark.parametrize(
    "form", ["text", "jsonl", "sarif", "markdown", "html", "junit", "cyclonedx"]
)
def test_every_format_names_the_address(hub: HubServer, pack: Signature, form: str) -> None:
    found = run("scan", "hf://lab/bad", "-s", pack.path, "-f", form)
    assert found.returncode == 1
    shown = html.unescape(found.stdout)
    assert "hf://lab/bad@" in (shown.replace("\\", "") if form == "markdown" else shown)


def test_local_and_remote_targets_together(hub: HubServer, pack: Signature, benign: Path) -> None:
    found = run("scan", benign, "hf://lab/good", "hf://lab/gated", "-s", pack.path)
    assert found.returncode == 3
    assert "1 error" in found.stdout
    said = " ".join(found.stdout.split())
    assert "a gated repository, and you are not logged in (401)" in said
    assert "hf auth login" in said
    assert "Traceback" not in found.stdout + found.stderr


def test_inspect(hub: HubServer) -> None:
    found = run("inspect", "hf://lab/bad", "-f", "json")
    assert (found.returncode, found.stderr) == (0, "")
    record = json.loads(found.stdout)
    assert record["target"].startswith("hf://lab/bad@")
    assert len(record["updates"]) == 6
    assert record["uncovered"] == []


@pytest.mark.parametrize("command", ["scan", "inspect"])
@pytest.mark.parametrize(
    ("target", "status", "says"),
    [
        ("hf://lab", 2, "names no repository; write hf://owner/name"),
        ("hf://lab/absent", 3, "no such repository, or a private one"),
        ("hf://lab/bad@nope", 3, "no such revision in this repository (404)"),
        ("hf://lab/bad/nope", 3, "no such folder in this repository"),
    ],
)
def test_what_is_not_there_is_one_line(
    hub: HubServer, pack: Signature, command: str, target: str, status: int, says: str
) -> None:
    options = ("-s", pack.path) if command == "scan" else ()
    found = run(command, target, *options)
    assert found.returncode == status
    assert says in " ".join((found.stdout + found.stderr).split())
    assert "Traceback" not in found.stderr


def test_offline_mode_is_one_line(hub: HubServer, pack: Signature) -> None:
    found = run("scan", "hf://lab/bad", "-s", pack.path, env={"HF_HUB_OFFLINE": "1"})
    assert found.returncode == 3
    assert "offline mode; unset HF_HUB_OFFLINE" in " ".join(found.stdout.split())
    assert sum(hub.requests.values()) == 0


def test_an_endpoint_that_is_none(pack: Signature) -> None:
    found = run("scan", "hf://lab/bad", "-s", pack.path, env={"HF_ENDPOINT": "hub.example"})
    assert found.returncode == 2
    assert "HF_ENDPOINT=hub.example: is no http(s) address" in found.stderr


def test_the_sum_of_a_local_and_a_remote_adapter(
    hub: HubServer, pack: Signature, misaligned: Path
) -> None:
    options = ScanOptions([pack])
    mixed = scan_sum(find_all([str(misaligned), "hf://lab/bad"]), options)
    local = scan_sum(find_all([str(misaligned), str(misaligned)]), options)
    assert mixed.verdict is local.verdict is Verdict.FLAGGED
    assert mixed.score == pytest.approx(local.score)


def test_python(hub: HubServer, pack: Signature) -> None:
    with open_adapter("hf://lab/bad") as adapter:
        assert adapter.target.startswith("hf://lab/bad@")
        assert scan(adapter, [pack]).verdict is Verdict.FLAGGED
    assert scan("hf://lab/good", [pack]).verdict is Verdict.CLEAR


def cached(pack: Signature, tmp_path: Path) -> ScanOptions:
    cache = ResultCache(tmp_path / "results", run_key([pack], None, None))
    return ScanOptions([pack], cache=cache)


def test_a_known_result_costs_no_weights(
    serve_hub: ServeHub, pack: Signature, tmp_path: Path
) -> None:
    # Large enough that the header is fetched by itself.
    extra = {"pad": np.zeros((3000, 1000))}
    hub = serve_hub(Repository("lab/large", misaligned_files(extra=extra)))
    options = cached(pack, tmp_path)
    (first,) = scan_each(find_all(["hf://lab/large"]), options)
    before = hub.bytes["storage"]
    (second,) = scan_each(find_all(["hf://lab/large"]), options)
    assert second == first
    assert hub.bytes["storage"] - before <= 2**18


def test_a_hubs_word_for_a_digest_does_not_vouch_for_local_files(
    hub: HubServer, pack: Signature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = cached(pack, tmp_path)
    (there,) = scan_each(find_all(["hf://lab/good"]), options)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, data in adapter_files(seed=902).items():
        assert isinstance(data, bytes)
        (copy / name).write_bytes(data)
    (entry,) = options.cache.root.glob("*/*.json")  # type: ignore[union-attr]
    forged = msgspec.structs.replace(there, verdict=Verdict.FLAGGED)
    entry.write_bytes(msgspec.json.encode(forged))
    (again,) = scan_each(find_all(["hf://lab/good"]), options)
    assert again.verdict is Verdict.FLAGGED  # the entry is used for this hub
    (here,) = scan_each(find_all([str(copy)]), options)
    assert here.verdict is Verdict.CLEAR  # and not for a local file of the same digest
    assert here.sha256 == there.sha256


def test_a_failure_of_the_hub_is_no_evidence(serve_hub: ServeHub, pack: Signature) -> None:
    """It makes an error, never a verdict about the adapter, and nothing is remembered."""
    fault = Fault("status", "GET /lfs/", status=404)
    serve_hub(Repository("lab/bad", misaligned_files()), faults=[fault])
    (result,) = scan_each(find_all(["hf://lab/bad"]), ScanOptions([pack]))
    assert result.verdict is Verdict.ERROR


def test_full_fine_tunes_are_read_from_disk(hub: HubServer, benign: Path) -> None:
    with pytest.raises(UsageError, match="is on the hub; download it first"):
        against_base(find_all(["hf://lab/good"]), benign)


def test_a_baseline_accepts_the_content_of_an_address(
    hub: HubServer, pack: Signature, tmp_path: Path
) -> None:
    (result,) = scan_each(find_all(["hf://lab/bad"]), ScanOptions([pack]))
    today, last = date(2030, 1, 1), date(2030, 12, 31)
    around = [item.contents() for item in find_all(["hf://lab/bad"])]
    (entry,) = baseline.accept(
        [result], tmp_path, around, reason="a test organism", accepted=today, expires=last
    )
    assert entry.target == "hf://lab/bad"
    accepted = baseline.Baseline(version=baseline.FORMAT_VERSION, entries=[entry])
    marked, stale = baseline.apply_baseline([result], accepted, tmp_path, today, around)
    assert (marked[0].accepted is not None, stale) == (True, [])
    changed = msgspec.structs.replace(result, sha256="0" * 64)
    marked, stale = baseline.apply_baseline([changed], accepted, tmp_path, today, around)
    assert marked[0].accepted is None
    assert [item.reason for item in stale] == [
        "its content, its verdict, the signature or what lies beside it has changed"
    ]
    assert baseline.apply_baseline([], accepted, tmp_path, today, []) == ([], [])
