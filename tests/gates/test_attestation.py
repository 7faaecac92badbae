"""Signed records: what is believed, what is not, and what never leaks."""

from __future__ import annotations

import base64
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from hypothesis import given
from hypothesis import strategies as st

from scanner.errors import AttestationError, TargetError
from scanner.gates import attestation as records
from scanner.gates.artifact import artifact_sha256
from scanner.gates.keys import (
    KEY_FILE_VARIABLE,
    KEY_VARIABLE,
    SigningKey,
    load_signing_key,
    parse_public_key,
    write_new_key,
)
from tests.gates.records import clear_verdict, subject


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    write_new_key(tmp_path / "key.pem")
    return load_signing_key(tmp_path / "key.pem")


def test_a_signed_record_comes_back_as_it_was(key: SigningKey) -> None:
    verdict = clear_verdict()
    signed = records.verify(records.sign(verdict, key), {"lab": key.public}, records.Attestation)
    assert (signed.record, signed.signer) == (verdict, "lab")


def test_the_payload_is_canonical_json(key: SigningKey) -> None:
    payload = records.sign(clear_verdict(), key).split(".")[2]
    text = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    assert text == msgspec.json.encode(msgspec.json.decode(text), order="sorted")
    assert b'"time":"2026-01-02T03:04:05Z"' in text


def test_a_key_that_the_policy_does_not_name_is_not_believed(
    key: SigningKey, tmp_path: Path
) -> None:
    write_new_key(tmp_path / "other.pem")
    other = load_signing_key(tmp_path / "other.pem")
    token = records.sign(clear_verdict(), other)
    with pytest.raises(AttestationError, match="does not know"):
        records.verify(token, {"lab": key.public}, records.Attestation)
    forged = token.replace(other.public.id, key.public.id)
    with pytest.raises(AttestationError, match="signature is not"):
        records.verify(forged, {"lab": key.public}, records.Attestation)


@given(st.data())
def test_no_changed_token_verifies(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("keys") / "key.pem"
    write_new_key(path)
    key = load_signing_key(path)
    token = records.sign(clear_verdict(), key)
    place = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.characters().filter(lambda c: c != token[place]))
    changed = token[:place] + character + token[place + 1 :]
    with pytest.raises(AttestationError):
        records.verify(changed, {"lab": key.public}, records.Attestation)


@given(st.text(max_size=300))
def test_any_text_is_refused_in_one_way(text: str) -> None:
    with pytest.raises(AttestationError):
        records.verify(text, {}, records.Attestation)


def test_a_record_of_one_kind_is_not_taken_for_another(key: SigningKey) -> None:
    override = records.Override(
        subject=subject(), reason="because", time=records.now(), expires=records.now()
    )
    token = records.sign(override, key)
    for kind in (records.Attestation, records.Pass):
        with pytest.raises(AttestationError, match="signature is not"):
            records.verify(token, {"lab": key.public}, kind)  # type: ignore[type-var]


def test_a_token_fits_a_tag_or_is_not_made(key: SigningKey) -> None:
    many = [records.PackIdentity(id=f"pack-{i}", digest="0" * 64) for i in range(100)]
    with pytest.raises(AttestationError, match="more than 5000"):
        records.sign(msgspec.structs.replace(clear_verdict(), packs=many), key)


def test_a_key_is_never_shown(key: SigningKey, tmp_path: Path) -> None:
    secret = (tmp_path / "key.pem").read_text().splitlines()[1]
    assert secret[10:] not in repr(key) + str(key)
    assert str(parse_public_key(str(key.public))) == str(key.public)


def test_a_file_that_others_can_read_is_no_key(tmp_path: Path) -> None:
    write_new_key(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o640)
    with pytest.raises(AttestationError, match="others can read"):
        load_signing_key(tmp_path / "key.pem")


def test_an_existing_file_is_not_replaced_by_a_new_key(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("mine")
    with pytest.raises(AttestationError, match="exists"):
        write_new_key(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").read_text() == "mine"


def test_a_broken_key_is_refused_without_a_word_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_new_key(tmp_path / "key.pem")
    broken = (tmp_path / "key.pem").read_text().replace("MC4C", "MC5C")
    monkeypatch.delenv(KEY_FILE_VARIABLE, raising=False)
    monkeypatch.setenv(KEY_VARIABLE, broken)
    with pytest.raises(AttestationError) as caught:
        load_signing_key()
    assert caught.value.__cause__ is None
    assert broken.splitlines()[1][8:] not in caught.value.line()


def test_a_key_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    monkeypatch.delenv(KEY_FILE_VARIABLE, raising=False)
    monkeypatch.setenv(KEY_VARIABLE, pem.decode())
    with pytest.raises(AttestationError, match="Ed25519"):
        load_signing_key()


def test_the_key_can_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = write_new_key(tmp_path / "key.pem")
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(tmp_path / "key.pem"))
    assert load_signing_key().public == public
    monkeypatch.delenv(KEY_FILE_VARIABLE)
    monkeypatch.setenv(KEY_VARIABLE, (tmp_path / "key.pem").read_text())
    assert load_signing_key().public == public
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(AttestationError, match="keygen"):
        load_signing_key()


def test_a_time_without_a_zone_is_not_read(key: SigningKey) -> None:
    naive = records.now().replace(tzinfo=None) + timedelta(days=1)
    token = records.sign(records.Pass(expires=naive), key)
    with pytest.raises(AttestationError, match="not in a form"):
        records.verify(token, {"lab": key.public}, records.Pass)


def test_the_digest_is_bound_to_names_and_contents(tmp_path: Path) -> None:
    def digest(files: dict[str, str]) -> str:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return artifact_sha256(root)

    first = digest({"a": "1", "b/c": "2"})
    assert first == digest({"b/c": "2", "a": "1"})
    others = [{"a": "1"}, {"a": "1", "b/c": "3"}, {"a": "2", "b/c": "1"}, {"a": "1", "b": "2"}]
    others += [{"a": "1", "b/c": "2", "d": ""}]
    assert len({first, *map(digest, others)}) == len(others) + 1


def test_a_link_in_an_artifact_has_no_digest(tmp_path: Path) -> None:
    root = tmp_path / "model"
    root.mkdir()
    (tmp_path / "outside").write_text("x")
    (root / "weights").symlink_to(tmp_path / "outside")
    with pytest.raises(TargetError, match="not a plain file"):
        artifact_sha256(root)
    (root / "weights").unlink()
    (root / "folder").symlink_to(tmp_path)
    with pytest.raises(TargetError, match="a link"):
        artifact_sha256(root)
