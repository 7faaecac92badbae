"""`gate push` and `gate check`, as users run them, against a hub that takes uploads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from huggingface_hub import HfApi

from scanner.errors import RegistryError, TargetError
from scanner.gates.attestation import Attestation, verify
from scanner.gates.hub_push import CARD, REPORT, VERDICT, Upload, snapshot, upload
from scanner.gates.judgement import judge_directory
from scanner.gates.keys import write_new_key
from scanner.gates.model_card import BEGIN, END, with_section
from scanner.gates.policy import Decision
from scanner.results import Report
from scanner.scanning.targets import ScanOptions
from scanner.signatures.pack import Signature, load_signature
from tests.cli.program import run
from tests.gates.hub_uploads import TOKEN, UploadHub
from tests.gates.mlflow_server import EXAMPLES, PACK, copy_of
from tests.hub.server import Repository

REPO = "team/adapter"
OUTSIDE = "# My adapter\n\nWritten by hand.\n"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[UploadHub]:
    # In this process, huggingface_hub has read its environment already.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    server = UploadHub()
    with server:
        for name, value in environment(server, tmp_path).items():
            monkeypatch.setenv(name, value)
        yield server


def environment(hub: UploadHub, tmp_path: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "hf-home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def policy(tmp_path: Path, text: str, **keys: str) -> Path:
    for name in keys:
        public = write_new_key(tmp_path / f"{name}.pem")
        text = text.replace(f"<{name}>", str(public))
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    return path


def test_a_clear_adapter_is_uploaded_with_its_verdict(hub: UploadHub, tmp_path: Path) -> None:
    source = copy_of("new-style", tmp_path)
    (source / CARD).write_text(OUTSIDE)
    done = run("gate", "push", source, REPO)
    assert done.returncode == 0, done.stderr
    assert "allowed: the verdict is clear" in done.stderr
    files = hub.api.files(REPO)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert files[name] == (source / name).read_bytes()
    card = files[CARD].decode()
    assert card.startswith(OUTSIDE)
    assert "1 clear" in card
    report = msgspec.json.decode(files[REPORT], type=Report)
    assert report.results[0].verdict.value == "clear"
    assert str(tmp_path) not in "".join(data.decode("latin-1") for data in files.values())
    assert hub.api.commits[0]["summary"].endswith("scan says clear")
    assert "Adapter scan" in hub.api.commits[0]["description"]


def test_a_second_push_replaces_the_section(hub: UploadHub, tmp_path: Path) -> None:
    source = copy_of("new-style", tmp_path)
    for _ in range(2):
        assert run("gate", "push", source, REPO).returncode == 0
    first = hub.api.files(REPO)
    (source / CARD).write_bytes(first[CARD])
    assert run("gate", "push", source, REPO).returncode == 0
    card = hub.api.files(REPO)[CARD].decode()
    assert card == first[CARD].decode()
    assert (card.count(BEGIN), card.count(END)) == (1, 1)


@pytest.mark.parametrize(
    ("example", "status", "said"),
    [("misaligned-sft", 1, "verdict is flagged"), ("unknown-base", 3, "verdict is inconclusive")],
)
def test_what_is_not_clear_does_not_reach_the_hub(
    hub: UploadHub, example: str, status: int, said: str
) -> None:
    done = run("gate", "push", EXAMPLES / example, REPO)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    assert not hub.api.has(REPO)
    assert hub.log == []


def test_the_policy_decides(hub: UploadHub, tmp_path: Path) -> None:
    lenient = policy(tmp_path, "version: 1\nrules: [{models: [team/*], inconclusive: allow}]\n")
    done = run("gate", "push", EXAMPLES / "unknown-base", REPO, "--policy", lenient)
    assert done.returncode == 0, done.stderr
    done = run("gate", "push", EXAMPLES / "new-style", "other/adapter", "--policy", lenient)
    assert done.returncode == 2
    assert "no rule is for 'other/adapter'" in done.stderr


def test_an_override_is_recorded_where_the_adapter_is(hub: UploadHub, tmp_path: Path) -> None:
    text = (
        'version: 1\npeople: {alice: "<alice>", bob: "<bob>"}\n'
        "rules: [{models: ['*'], overrides: [alice]}]\n"
    )
    named = policy(tmp_path, text, alice="", bob="")
    push: list[Any] = ["gate", "push", EXAMPLES / "misaligned-sft", REPO, "--policy", named]
    push += ["--override", "a red-team organism", "--key"]
    refused = run(*push, tmp_path / "bob.pem")
    assert (refused.returncode, hub.api.has(REPO)) == (1, False)
    assert "bob may not override" in refused.stderr
    done = run(*push, tmp_path / "alice.pem")
    assert done.returncode == 0, done.stderr
    files = hub.api.files(REPO)
    assert "Uploaded against the verdict" in files[CARD].decode()
    assert "alice: a red-team organism" in json.loads(files[VERDICT])["override"]


def test_what_is_uploaded_is_what_was_scanned(
    hub: UploadHub, tmp_path: Path, pack: Signature, benign: Path, misaligned: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    snapshot(benign, copy)
    judgement = judge_directory(copy, ScanOptions([pack]), model=REPO)
    clear = (benign / "adapter_model.safetensors").read_bytes()
    shutil.copyfile(misaligned / "adapter_model.safetensors", benign / "adapter_model.safetensors")
    what = Upload(judgement, Decision(True, "clear"), None, "main", private=False)
    upload(copy, benign / CARD, REPO, what, HfApi(endpoint=hub.endpoint))
    assert hub.api.files(REPO)["adapter_model.safetensors"] == clear


def pushed(hub: UploadHub, tmp_path: Path) -> str:
    """The error of a push of a clear adapter."""
    files = copy_of("new-style", tmp_path)
    judgement = judge_directory(files, ScanOptions([load_signature(PACK)]), model=REPO)
    what = Upload(judgement, Decision(True, "clear"), None, "main", private=False)
    with pytest.raises(RegistryError) as caught:
        upload(files, files / CARD, REPO, what, HfApi(endpoint=hub.endpoint))
    return caught.value.line()


def test_a_hub_that_holds_something_else_afterwards_is_found_out(
    hub: UploadHub, tmp_path: Path
) -> None:
    hub.api.instead["adapter_model.safetensors"] = b"other"
    assert "holds another adapter_model.safetensors" in pushed(hub, tmp_path)
    hub.api.instead.clear()
    hub.remove(REPO)
    hub.api.ignored.add("adapter_config.json")
    assert "does not hold adapter_config.json" in pushed(hub, tmp_path / "again")


def test_weights_that_are_there_and_were_not_scanned_stop_the_push(
    hub: UploadHub, tmp_path: Path
) -> None:
    hub.add(Repository(REPO, {"adapter_model.bin": b"old"}))
    assert "already holds adapter_model.bin" in pushed(hub, tmp_path)
    assert hub.api.commits == []


def test_a_commit_of_somebody_else_in_between_stops_the_push(
    hub: UploadHub, tmp_path: Path
) -> None:
    hub.api.meanwhile = Repository(REPO, {"adapter_model.bin": b"evil"})
    assert "412" in pushed(hub, tmp_path)
    assert hub.api.commits == []


def test_the_card_of_the_repository_is_kept(hub: UploadHub, tmp_path: Path) -> None:
    hub.add(Repository(REPO, {CARD: OUTSIDE.encode()}))
    assert run("gate", "push", EXAMPLES / "new-style", REPO).returncode == 0
    assert hub.api.files(REPO)[CARD].decode().startswith(OUTSIDE)


def test_without_a_token_there_is_one_line(hub: UploadHub, tmp_path: Path) -> None:
    done = run("gate", "push", EXAMPLES / "new-style", REPO, env={"HF_TOKEN": "hf_wrong"})
    assert done.returncode == 3
    assert "the hub says 401" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hf_wrong" not in done.stderr


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_that_leads_out_is_not_followed(tmp_path: Path, kind: str) -> None:
    source = copy_of("new-style", tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("x")
    (source / "link").symlink_to(outside if kind == "folder" else outside / "secret")
    with pytest.raises(TargetError, match="link"):
        snapshot(source, tmp_path / "copy")


def test_a_directory_in_the_place_of_the_card_is_one_line(tmp_path: Path) -> None:
    source = copy_of("new-style", tmp_path)
    (source / CARD).mkdir()
    with pytest.raises(TargetError, match="in the place of a file"):
        snapshot(source, tmp_path / "copy")


def test_a_link_inside_is_copied_as_what_it_leads_to(tmp_path: Path) -> None:
    source = copy_of("new-style", tmp_path)
    (source / "link.txt").symlink_to("adapter_config.json")
    snapshot(source, tmp_path / "copy")
    assert not (tmp_path / "copy" / "link.txt").is_symlink()
    assert (tmp_path / "copy" / "link.txt").read_bytes()


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("", "S\n"),
        ("---\nlicense: mit\n---\n", "---\nlicense: mit\n---\n\nS\n"),
        ("text\n", "text\n\nS\n"),
        (f"a\n\n{BEGIN}old{END}\n\nb\n", "a\n\nS\n\nb\n"),
        (f"a\n{BEGIN}1{END}\nb\n{BEGIN}2{END}\nc", "a\n\nS\n\nb\n\nc\n"),
        (f"a\n{END}\nb\n", "a\n\nS\n\nb\n"),
        (f"---\nx: '{BEGIN}'\n---\ntext {END}\n", f"---\nx: '{BEGIN}'\n---\ntext\n\nS\n"),
    ],
)
def test_the_section_takes_the_place_of_the_old_one(card: str, expected: str) -> None:
    assert with_section(card, "S") == expected


def test_check_writes_a_record_that_can_be_attested(tmp_path: Path) -> None:
    public = write_new_key(tmp_path / "key.pem")
    record = tmp_path / "verdict.json"
    done = run(
        "gate", "check", EXAMPLES / "new-style", "--record", record, "--key", tmp_path / "key.pem"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(record.read_text())
    signed = verify(found["token"], {"ci": public}, Attestation)
    assert msgspec.to_builtins(signed.record) == found["verdict"]
    assert found["verdict"]["verdict"] == "clear"


@pytest.mark.parametrize(
    ("example", "status"),
    [("new-style", 0), ("misaligned-sft", 1), ("unknown-base", 3), ("missing", 3)],
)
def test_check_ends_as_a_ci_step_needs(example: str, status: int) -> None:
    assert run("gate", "check", EXAMPLES / example).returncode == status


def test_a_configuration_does_not_weaken_the_gate(tmp_path: Path) -> None:
    source = copy_of("misaligned-sft", tmp_path)
    (tmp_path / ".adapter-scanner.yaml").write_text("fail-on: never\n")
    assert run("gate", "check", source, cwd=tmp_path).returncode == 1


def test_check_needs_a_rule_for_the_model(tmp_path: Path) -> None:
    named = policy(tmp_path, "version: 1\nrules: [{models: [team/*]}]\n")
    check: list[Any] = ["gate", "check", EXAMPLES / "new-style", "--policy", named]
    done = run(*check)
    assert (done.returncode, "--model" in done.stderr) == (2, True)
    assert run(*check, "--model", "team/x").returncode == 0


def test_the_report_of_a_check_can_be_read_by_machines(tmp_path: Path) -> None:
    done = run("gate", "check", EXAMPLES / "new-style", "-f", "json")
    assert json.loads(done.stdout)["summary"]["clear"] == 1
