"""Packs from the hub and the web: pinned by digest, checked before anything is in place."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanner.errors import SignatureError
from scanner.hub.client import HubClient, RetryPolicy
from scanner.signatures.distribution import archive, pulled
from scanner.signatures.distribution.pulled import Pull, pull_pack
from scanner.signatures.installed import installed_packs
from scanner.signatures.pack import Signature, load_signature
from scanner.system.folders import packs_folder
from tests.cli.program import run
from tests.hub.adapters import client
from tests.hub.fixtures import ServeHub
from tests.hub.server import Content, Fault, Repository
from tests.hub.web import serve_directory


@pytest.fixture(autouse=True)
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own place for packs."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, list[dict[str, str]]]]:
    (tmp_path / "www").mkdir()
    with serve_directory(tmp_path / "www") as served:
        yield served


def files_of(pack: Signature, folder: str = "") -> dict[str, Content]:
    return {f"{folder}{path.name}": path.read_bytes() for path in pack.path.iterdir()}


def nothing_is_installed() -> bool:
    return not packs_folder().exists() or list(packs_folder().iterdir()) == []


@pytest.mark.parametrize("folder", ["", "packs/one/"])
def test_from_the_hub(serve_hub: ServeHub, pack: Signature, folder: str) -> None:
    serve_hub(Repository("lab/packs", {**files_of(pack, folder), "README.md": b"x"}))
    found = run("signatures", "pull", f"hf://lab/packs/{folder}", "--digest", pack.digest)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.split() == [f"{packs_folder() / pack.id}:", pack.id, pack.digest]
    assert load_signature(packs_folder() / pack.id).digest == pack.digest
    assert packs_folder() / pack.id in installed_packs()


def test_from_a_folder_on_the_web(
    web: tuple[str, list[dict[str, str]]],
    pack: Signature,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    address, seen = web
    shutil.copytree(pack.path, tmp_path / "www" / "p")
    for place in (f"{address}/p", f"{address}/p/", f"{address}/p/signature.yaml"):
        assert pull_pack(Pull(place, pack.digest), client()).digest == pack.digest
    assert seen
    assert not any("Authorization" in headers for headers in seen)


def test_a_connection_that_breaks_goes_on(
    web: tuple[str, list[dict[str, str]]], pack: Signature, tmp_path: Path
) -> None:
    shutil.copytree(pack.path, tmp_path / "www" / "p")
    patient = HubClient(policy=RetryPolicy(attempts=40, first_wait=0.001, longest_wait=0.01))
    found = pull_pack(Pull(f"{web[0]}/cut/p", pack.digest), patient)
    assert found.digest == pack.digest


def tar(members: list[tuple[tarfile.TarInfo, bytes]], mode: str) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode=mode) as file:  # type: ignore[call-overload]
        for info, data in members:
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return raw.getvalue()


def packed(pack: Signature, kind: str, prefix: str = "top/") -> bytes:
    files = {path.name: path.read_bytes() for path in pack.path.iterdir()}
    if kind == "zip":
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in files.items():
                file.writestr(prefix + name, data)
        return raw.getvalue()
    return tar([(tarfile.TarInfo(prefix + name), data) for name, data in files.items()], kind)


@pytest.mark.parametrize(
    ("name", "kind"), [("p.tar", "w"), ("p.tar.gz", "w:gz"), ("p.tgz", "w:gz"), ("p.zip", "zip")]
)
@pytest.mark.parametrize("prefix", ["", "top/", "./top/"])
def test_from_an_archive(
    web: tuple[str, list[dict[str, str]]],
    pack: Signature,
    tmp_path: Path,
    name: str,
    kind: str,
    prefix: str,
) -> None:
    (tmp_path / "www" / name).write_bytes(packed(pack, kind, prefix))
    found = pull_pack(Pull(f"{web[0]}/{name}", pack.digest), client())
    assert found.path == packs_folder() / pack.id
    assert found.digest == pack.digest


def link(name: str, target: str, kind: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


HOSTILE = {
    "parent": (tarfile.TarInfo("../signature.yaml"), b"x"),
    "absolute": (tarfile.TarInfo("/etc/evil"), b"x"),
    "inner-parent": (tarfile.TarInfo("top/../../evil"), b"x"),
    "backslash": (tarfile.TarInfo("..\\evil"), b"x"),
    "drive": (tarfile.TarInfo("C:/evil"), b"x"),
    "symlink": link("top/signature.yaml", "/etc/passwd", tarfile.SYMTYPE),
    "hardlink": link("top/x", "/etc/passwd", tarfile.LNKTYPE),
    "device": link("top/x", "", tarfile.CHRTYPE),
    "pipe": link("top/x", "", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_unsafe_archives_are_refused(
    web: tuple[str, list[dict[str, str]]], pack: Signature, tmp_path: Path, name: str
) -> None:
    sound = [
        (tarfile.TarInfo(f"top/{path.name}"), path.read_bytes()) for path in pack.path.iterdir()
    ]
    (tmp_path / "www" / "p.tar").write_bytes(tar([*sound, HOSTILE[name]], "w"))
    with pytest.raises(SignatureError, match="unsafe entry"):
        pull_pack(Pull(f"{web[0]}/p.tar", pack.digest), client())
    assert nothing_is_installed()
    assert not (tmp_path / "evil").exists()


def zip_with(*entries: tuple[str, bytes, int]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data, mode in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            file.writestr(info, data)
    return raw.getvalue()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (zip_with(("../evil", b"x", 0)), "unsafe entry"),
        (zip_with(("link", b"/etc/passwd", 0o120777)), "unsafe entry"),
        (zip_with(("README", b"x", 0)), "no pack"),
        (zip_with(("a/signature.yaml", b"x", 0), ("b/signature.yaml", b"x", 0)), "2 packs"),
        (b"PK\x03\x04" + b"\0" * 40, "no readable archive"),
        (b"", "no readable archive"),
        (b"\x1f\x8b" + b"\0" * 40, "no readable archive"),
    ],
)
def test_archives_without_a_pack(
    web: tuple[str, list[dict[str, str]]], pack: Signature, tmp_path: Path, data: bytes, says: str
) -> None:
    (tmp_path / "www" / "p.zip").write_bytes(data)
    with pytest.raises(SignatureError, match=says):
        pull_pack(Pull(f"{web[0]}/p.zip", pack.digest), client())
    assert nothing_is_installed()


def test_an_archive_that_unpacks_to_too_much(
    web: tuple[str, list[dict[str, str]]],
    pack: Signature,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 10_000_000)
    bomb = [(tarfile.TarInfo(f"top/{i}"), b"\0" * 4_000_000) for i in range(3)]
    (tmp_path / "www" / "p.tar.gz").write_bytes(tar(bomb, "w:gz"))
    with pytest.raises(SignatureError, match="too large for a pack"):
        pull_pack(Pull(f"{web[0]}/p.tar.gz", pack.digest), client())


def test_another_digest(serve_hub: ServeHub, pack: Signature) -> None:
    serve_hub(Repository("lab/packs", files_of(pack)))
    found = run("signatures", "pull", "hf://lab/packs", "--digest", "0" * 64)
    assert found.returncode == 2
    assert f"the pack has digest {pack.digest}, not {'0' * 64}" in found.stderr
    assert nothing_is_installed()


@pytest.mark.parametrize("name", ["directions.safetensors", "calibration.json"])
def test_a_file_that_was_changed(serve_hub: ServeHub, pack: Signature, name: str) -> None:
    files = files_of(pack)
    data = files[name]
    assert isinstance(data, bytes)
    serve_hub(Repository("lab/packs", {**files, name: data[:-1] + b"x"}))
    with pytest.raises(SignatureError, match=f"{name}: sha256 is"):
        pull_pack(Pull("hf://lab/packs", pack.digest), client())
    assert nothing_is_installed()


def test_a_missing_file(serve_hub: ServeHub, pack: Signature) -> None:
    files = files_of(pack)
    del files["calibration.json"]
    serve_hub(Repository("lab/packs", files), Repository("lab/none", {"README.md": b"x"}))
    with pytest.raises(SignatureError, match=r"has no calibration\.json"):
        pull_pack(Pull("hf://lab/packs", pack.digest), client())
    with pytest.raises(SignatureError, match=r"has no signature\.yaml; name a pack's folder"):
        pull_pack(Pull("hf://lab/none", pack.digest), client())
    assert nothing_is_installed()


def test_a_manifest_that_names_a_path(
    web: tuple[str, list[dict[str, str]]], pack: Signature, tmp_path: Path
) -> None:
    text = (pack.path / "signature.yaml").read_text()
    (tmp_path / "www" / "p").mkdir()
    for name in ("../evil", "..", "signature.yaml", "/etc/evil", "a\\\\b", "C:x"):
        raw = text.replace("directions.safetensors:", f'"{name}":').encode()
        (tmp_path / "www" / "p" / "signature.yaml").write_bytes(raw)
        with pytest.raises(SignatureError, match="not a plain file name"):
            pull_pack(Pull(f"{web[0]}/p", hashlib.sha256(raw).hexdigest()), client())
    assert nothing_is_installed()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("http://example.org/pack.zip", "neither hf:// nor https://"),
        ("http://10.0.0.1/pack", "plain http is for this machine alone"),
        ("ftp://example.org/pack", "neither hf:// nor https://"),
        ("file:///etc", "neither hf:// nor https://"),
        ("pack", "neither hf:// nor https://"),
        ("https:///pack", "neither hf:// nor https://"),
        ("hf://lab", "names no repository"),
    ],
)
def test_where_packs_are_not_pulled_from(hub_home: Path, source: str, says: str) -> None:
    found = run("signatures", "pull", source, "--digest", "0" * 64)
    assert found.returncode == 2
    assert says in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_redirect_out_of_this_machine_over_plain_http(
    web: tuple[str, list[dict[str, str]]], pack: Signature
) -> None:
    with pytest.raises(SignatureError, match="a redirect to plain http"):
        pull_pack(Pull(f"{web[0]}/away/p", pack.digest), client())


def test_what_is_not_there(
    web: tuple[str, list[dict[str, str]]], serve_hub: ServeHub, pack: Signature
) -> None:
    serve_hub()
    with pytest.raises(SignatureError, match=r"cannot be fetched: nothing is there \(404\)"):
        pull_pack(Pull(f"{web[0]}/p", pack.digest), client())
    with pytest.raises(SignatureError, match="cannot be fetched: no such repository"):
        pull_pack(Pull("hf://lab/absent", pack.digest), client())
    found = run("signatures", "pull", "hf://lab/absent", "--digest", "12")
    assert (found.returncode, "is no sha256; 64 hexadecimal" in found.stderr) == (2, True)


def test_a_pack_that_stands_there_already(
    serve_hub: ServeHub, pack: Signature, tmp_path: Path
) -> None:
    hub = serve_hub(Repository("lab/packs", files_of(pack)))
    place = packs_folder() / pack.id
    shutil.copytree(pack.path, place)
    manifest = (place / "signature.yaml").read_text()
    (place / "signature.yaml").write_text(manifest + "\n")
    pull = Pull("hf://lab/packs", pack.digest)
    with pytest.raises(SignatureError, match=r"another pack stands there already .*say replace"):
        pull_pack(pull, client())
    assert load_signature(place).digest != pack.digest
    found = pull_pack(Pull("hf://lab/packs", pack.digest, replace=True), client())
    assert found.digest == load_signature(place).digest == pack.digest
    pull_pack(pull, client())  # the same one again is no conflict
    elsewhere = pull_pack(Pull("hf://lab/packs", pack.digest, output=tmp_path / "x"), client())
    assert elsewhere.path == tmp_path / "x"
    hub.faults.add(Fault("status", "/lfs/", status=500))
    with pytest.raises(SignatureError):
        pull_pack(Pull("hf://lab/packs", pack.digest, replace=True), client())
    assert load_signature(place).digest == pack.digest  # a failed pull leaves what was there


def test_a_place_that_cannot_be_written(
    serve_hub: ServeHub, pack: Signature, tmp_path: Path
) -> None:
    serve_hub(Repository("lab/packs", files_of(pack)))
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "pack"
    with pytest.raises(SignatureError, match="cannot be written: "):
        pull_pack(Pull("hf://lab/packs", pack.digest, output=place), client())


def test_an_endless_manifest(
    serve_hub: ServeHub, pack: Signature, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulled, "MAX_MANIFEST_BYTES", 1000)
    serve_hub(Repository("lab/packs", files_of(pack)))
    with pytest.raises(SignatureError, match="too large for a pack"):
        pull_pack(Pull("hf://lab/packs", pack.digest), client())
