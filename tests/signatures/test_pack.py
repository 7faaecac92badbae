"""Packs on disk: damage, tricks, and writing in one step."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from scanner.errors import SignatureError
from scanner.scanning.opening import scan
from scanner.signatures import saving
from scanner.signatures.installed import installed_signatures
from scanner.signatures.pack import Signature, load_signature, read_signature
from scanner.signatures.saving import save_pack
from tests.cli.program import run


@pytest.fixture
def copy(pack: Signature, tmp_path: Path) -> Path:
    """A copy of the synthetic pack to damage."""
    shutil.copytree(pack.path, tmp_path / "packs" / "copy")
    return tmp_path / "packs" / "copy"


def edit_manifest(root: Path, **fields: Any) -> None:
    path = root / "signature.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **fields}))


@pytest.mark.parametrize(
    "name",
    [
        "directions.safetensors",
        "calibration.json",
        "crossfit.safetensors",
        "references.safetensors",
    ],
)
def test_a_changed_byte_is_found(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[-1] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(SignatureError, match="the manifest says") as caught:
        load_signature(copy)
    assert name in caught.value.where


def test_a_missing_file_is_found(copy: Path) -> None:
    (copy / "directions.safetensors").unlink()
    with pytest.raises(SignatureError, match="cannot be read"):
        load_signature(copy)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"format_version": 99}, "pack format 99"),
        ({"files": {}}, "lists no directions"),
        ({"rnak": 3}, "rnak"),
        ({"rank": "four"}, "Expected `int`"),
    ],
)
def test_an_unsound_manifest_is_refused(copy: Path, fields: dict[str, Any], says: str) -> None:
    edit_manifest(copy, **fields)
    with pytest.raises(SignatureError, match=says):
        load_signature(copy)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "sub/file", ".."])
def test_names_that_lead_out_of_the_pack_are_refused(copy: Path, name: str) -> None:
    (copy.parent / "outside").write_text("x")
    files = yaml.safe_load((copy / "signature.yaml").read_text())["files"]
    edit_manifest(copy, files={**files, name: "0" * 64})
    with pytest.raises(SignatureError, match=r"not a plain file name|not a regular file"):
        load_signature(copy)


def test_a_pipe_in_the_place_of_a_file_is_refused(copy: Path) -> None:
    (copy / "directions.safetensors").unlink()
    os.mkfifo(copy / "directions.safetensors")
    with pytest.raises(SignatureError, match="not a regular file"):
        load_signature(copy)


def test_a_link_to_other_content_is_found(copy: Path) -> None:
    (copy / "calibration.json").unlink()
    (copy / "calibration.json").symlink_to(copy / "signature.yaml")
    with pytest.raises(SignatureError, match="the manifest says"):
        load_signature(copy)


def test_yaml_that_would_build_objects_is_refused(copy: Path) -> None:
    (copy / "signature.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(SignatureError, match="invalid YAML"):
        load_signature(copy)


def test_only_packs_of_the_base_are_opened(
    copy: Path, benign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTER_SCANNER_SIGNATURES", str(copy.parent))
    other = shutil.copytree(copy, copy.parent / "other")
    base = yaml.safe_load((other / "signature.yaml").read_text())["base_model"]
    edit_manifest(other, base_model={**base, "id": "another/base"})
    (other / "directions.safetensors").write_bytes(b"damaged")
    signatures = [item for item in installed_signatures() if item.path.parent == copy.parent]
    assert [item.is_open for item in signatures] == [False, False]
    assert scan(benign, signatures).score is not None
    assert [item.is_open for item in signatures] == [True, False]
    (copy / "directions.safetensors").write_bytes(b"damaged")
    with pytest.raises(SignatureError, match="the manifest says"):
        scan(benign, [read_signature(copy)])


def test_a_failed_write_leaves_the_old_pack(
    pack: Signature, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in copy.iterdir()}

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(saving, "seal", fail)
    directions = {site: pack.direction(site) for site in pack.sites}
    with pytest.raises(OSError, match="disk full"):
        save_pack(copy, pack.manifest, directions)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_what_is_no_pack_is_not_overwritten(pack: Signature, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years")
    with pytest.raises(SignatureError, match="is not a signature pack"):
        save_pack(tmp_path / "precious", pack.manifest, {})
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years"


def test_a_saved_pack_is_read_back(pack: Signature, tmp_path: Path) -> None:
    directions = {site: pack.direction(site) for site in pack.sites}
    save_pack(tmp_path / "new", pack.manifest, directions, calibration=pack.calibration)
    again = load_signature(tmp_path / "new")
    assert again.calibration == pack.calibration
    for site in pack.sites:
        assert (again.direction(site).u == pack.direction(site).u).all()
    again.close()
    assert again.direction(next(iter(again.sites))).u.any()


def edit_calibration(pack: Path, **fields: Any) -> None:
    """Writes other fields into a pack's calibration, and seals the pack again."""
    path = pack / "calibration.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    files = yaml.safe_load((pack / "signature.yaml").read_text())["files"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit_manifest(pack, files={**files, path.name: digest})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"format_version": 2}, "calibration format 2, this version reads"),
        ({"statistic": "mean-cosine"}, "its scores are 'mean-cosine', this version computes"),
        ({"statistic": None}, r"Expected `str`, got `null` - at `\$.statistic`"),
    ],
)
def test_scores_of_another_kind_are_refused(copy: Path, fields: dict[str, Any], says: str) -> None:
    edit_calibration(copy, **fields)
    with pytest.raises(SignatureError, match=says) as caught:
        load_signature(copy)
    assert caught.value.where == str(copy / "calibration.json")


def test_another_pack_format_is_named_whatever_its_fields(copy: Path) -> None:
    (copy / "signature.yaml").write_text("format_version: 4\nnorms: {}\n")
    with pytest.raises(SignatureError, match="pack format 4, this version reads"):
        read_signature(copy)


@pytest.mark.parametrize("named", [False, True], ids=["installed", "named"])
def test_a_pack_of_another_format_is_left_out_unless_it_is_named(
    copy: Path, benign: Path, named: bool
) -> None:
    older = shutil.copytree(copy, copy.parent / "older")
    edit_calibration(older, statistic="mean-cosine")
    done = run(
        *("scan", benign, *(("-s", copy, "-s", older) if named else ())),
        env={"ADAPTER_SCANNER_SIGNATURES": str(copy.parent)},
    )
    assert done.stderr.count("\n") == 1
    assert f"{older}/calibration.json: its scores are 'mean-cosine'" in done.stderr
    if named:
        assert (done.returncode, done.stdout) == (2, "")
    else:
        assert done.returncode == 0
        assert "left out" in done.stderr


def test_python_warns_of_a_pack_that_is_left_out(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTER_SCANNER_SIGNATURES", str(copy.parent))
    (copy / "signature.yaml").write_text("[")
    with pytest.warns(UserWarning, match="pack left out: .*invalid YAML"):
        assert copy not in [item.path for item in installed_signatures()]
