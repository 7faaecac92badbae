"""Signed packs: who made them can be checked, and any change is seen."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from scanner.cli.root import cli
from scanner.errors import SignatureError
from scanner.signatures.distribution.signing import SIGNATURE_NAME, sign_pack, verify_pack_signature
from scanner.signatures.pack import Signature, load_signature


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["signatures", *map(str, arguments)])


def write_keys(root: Path, name: str, curve: ec.EllipticCurve | None = None) -> tuple[Path, Path]:
    key = ec.generate_private_key(curve or ec.SECP256R1())
    private, public = root / f"{name}.pem", root / f"{name}.pub"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


@pytest.fixture
def signed(pack: Signature, tmp_path: Path) -> tuple[Path, Path]:
    """A signed pack, and the key it can be checked with."""
    root = tmp_path / "pack"
    shutil.copytree(pack.path, root)
    private, public = write_keys(tmp_path, "maker")
    sign_pack(root, private)
    return root, public


def test_a_signed_pack_is_one(signed: tuple[Path, Path], pack: Signature) -> None:
    root, public = signed
    verify_pack_signature(root, public)
    assert load_signature(root).digest == pack.digest


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda c: c.name)
def test_other_curves(signed: tuple[Path, Path], tmp_path: Path, curve: ec.EllipticCurve) -> None:
    private, public = write_keys(tmp_path, "other", curve)
    sign_pack(signed[0], private)  # replaces the first signature
    verify_pack_signature(signed[0], public)
    with pytest.raises(SignatureError):
        verify_pack_signature(signed[0], signed[1])


def change_directions(root: Path) -> None:
    path = root / "directions.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def change_manifest(root: Path) -> None:
    path = root / "signature.yaml"
    path.write_text(path.read_text().replace("limitations: []", "limitations: [none]"))


def add_file(root: Path) -> None:
    (root / "more.txt").write_text("x")


def remove_file(root: Path) -> None:
    (root / "calibration.json").unlink()


def link_file(root: Path) -> None:
    shutil.copy(root / "calibration.json", root.parent / "away.json")
    (root / "calibration.json").unlink()
    (root / "calibration.json").symlink_to(root.parent / "away.json")


def cut_signature(root: Path) -> None:
    path = root / SIGNATURE_NAME
    path.write_bytes(path.read_bytes()[:-30])


def empty_signature(root: Path) -> None:
    (root / SIGNATURE_NAME).write_text("{}")


def other_payload(root: Path) -> None:
    """The signed statement exchanged, the signature kept."""
    import base64
    import json

    path = root / SIGNATURE_NAME
    bundle = json.loads(path.read_text())
    envelope = bundle["dsseEnvelope"]
    statement = base64.b64decode(envelope["payload"])
    envelope["payload"] = base64.b64encode(statement.replace(b"sha256", b"sha265")).decode()
    path.write_text(json.dumps(bundle))


CHANGES = [
    change_directions, change_manifest, add_file, remove_file, link_file, cut_signature,
    empty_signature, other_payload,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_is_seen(signed: tuple[Path, Path], change: Callable[[Path], None]) -> None:
    change(signed[0])
    with pytest.raises(SignatureError, match=r"is not what the holder of .* signed"):
        verify_pack_signature(*signed)


def test_another_key(signed: tuple[Path, Path], tmp_path: Path) -> None:
    _, stranger = write_keys(tmp_path, "stranger")
    with pytest.raises(SignatureError, match=r"is not what the holder of .*stranger\.pub signed"):
        verify_pack_signature(signed[0], stranger)


def test_without_a_signature(pack: Signature, signed: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="is not signed; ask its maker"):
        verify_pack_signature(pack.path, signed[1])
    with pytest.raises(SignatureError, match="is no signature pack"):
        verify_pack_signature(tmp_path, signed[1])


def test_keys_that_are_none(signed: tuple[Path, Path], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    ed = ed25519.Ed25519PrivateKey.generate()
    encrypted = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    plain = ed.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for raw in (b"", b"no key", plain, encrypted):
        wrong.write_bytes(raw)
        with pytest.raises(SignatureError, match="is no usable private key"):
            sign_pack(signed[0], wrong)
        with pytest.raises(SignatureError, match="is no usable public key"):
            verify_pack_signature(signed[0], wrong)
    verify_pack_signature(*signed)  # the signature that was there is kept


def test_a_damaged_pack_is_not_signed(signed: tuple[Path, Path], tmp_path: Path) -> None:
    change_directions(signed[0])
    with pytest.raises(SignatureError, match="the manifest says"):
        sign_pack(signed[0], tmp_path / "maker.pem")


def test_the_commands(pack: Signature, tmp_path: Path) -> None:
    root = tmp_path / "pack"
    shutil.copytree(pack.path, root)
    private, public = write_keys(tmp_path, "maker")
    unsigned = run("verify", root, "--public-key", public)
    assert unsigned.exit_code == 2
    assert "is not signed" in unsigned.stderr
    done = run("sign", root, "--key", private)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"signed: {root / SIGNATURE_NAME}\n"
    found = run("verify", root, "--public-key", public)
    assert (found.exit_code, found.stderr) == (0, "")
    assert found.stdout.startswith(f"ok  {root}")
    (root / "calibration.json").write_bytes(b"{}")
    changed = run("verify", root, "--public-key", public)
    assert changed.exit_code == 2
    assert changed.stderr.count("\n") == 1
    assert "Traceback" not in changed.stderr


@pytest.mark.slow
def test_the_librarys_own_command_can_check_it(signed: tuple[Path, Path]) -> None:
    root, public = signed
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(root)]
    command += ["--signature", str(root / SIGNATURE_NAME), "--public_key", str(public)]
    command += ["--ignore-paths", str(root / SIGNATURE_NAME)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_without_the_library(
    signed: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(SignatureError, match=r"pip install 'adapter-scanner\[sign\]'"):
        verify_pack_signature(*signed)
    with pytest.raises(SignatureError, match=r"pip install 'adapter-scanner\[sign\]'"):
        sign_pack(signed[0], tmp_path / "maker.pem")


def test_calibrating_again_drops_the_signature(signed: tuple[Path, Path], benign: Path) -> None:
    from scanner.signatures.building.calibrate import calibrate_pack
    from tests.synthetic import entry

    calibrate_pack(signed[0], [entry(benign, "facts")])
    with pytest.raises(SignatureError, match="is not signed"):
        verify_pack_signature(*signed)
