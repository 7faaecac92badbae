"""Who made a pack: signatures over all its files, with a key of one's own.

The format is the OpenSSF model signing specification's (a Sigstore bundle over an in-toto
statement that holds each file's digest), written and checked by the model-signing library, so
that its own command can check it too. Keys are elliptic-curve keys in PEM files; nothing is
sent anywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scanner.errors import SignatureError, first_line
from scanner.signatures.manifest import MANIFEST_NAME
from scanner.signatures.pack import load_signature

SIGNATURE_NAME = "model.sig"
"""The signature's file, inside the pack; it is the only file the signature does not cover."""
MAX_SIGNATURE_BYTES = 2**20


def sign_pack(pack: Path, private_key: Path) -> Path:
    """Signs a pack, replacing the signature it had.

    Args:
        pack: The pack's directory; its digests are verified first.
        private_key: A PEM file, not encrypted: P-256, P-384 or P-521.

    Returns:
        The signature's file.

    Raises:
        SignatureError: If the pack is damaged, the key cannot be used, or model-signing is
            not installed.
    """
    signing, _, hashing = _library()
    load_signature(pack).close()
    path = pack / SIGNATURE_NAME
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=private_key)
    except Exception as error:  # a key that is none fails in as many ways as there are parsers
        raise SignatureError(
            f"is no usable private key: {first_line(error)}",
            where=str(private_key),
            todo="openssl ecparam -name prime256v1 -genkey -noout -out private.pem",
        ) from None
    try:
        config.set_hashing_config(_everything_else(hashing)).sign(pack, path)
    except OSError as error:
        raise SignatureError(
            f"cannot be signed: {error.strerror or error}", where=str(pack)
        ) from None
    return path


def verify_pack_signature(pack: Path, public_key: Path) -> None:
    """Checks that a pack is, file for file, what the holder of a key signed.

    Args:
        pack: The pack's directory.
        public_key: A PEM file.

    Raises:
        SignatureError: If it is not signed, signed by another key, or changed since; or if
            the key cannot be used.
    """
    _, verifying, hashing = _library()
    path = pack / SIGNATURE_NAME
    if not (pack / MANIFEST_NAME).is_file():
        raise SignatureError("is no signature pack", where=str(pack))
    try:
        size = path.stat().st_size
    except OSError:
        raise SignatureError(
            "is not signed",
            where=str(pack),
            todo=f"ask its maker for {SIGNATURE_NAME}",
        ) from None
    if size > MAX_SIGNATURE_BYTES:
        raise SignatureError(f"has {size:,} bytes, no signature has as many", where=str(path))
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:  # as for private keys
        raise SignatureError(
            f"is no usable public key: {first_line(error)}",
            where=str(public_key),
            todo="openssl ec -in private.pem -pubout -out public.pem",
        ) from None
    try:
        config.set_hashing_config(_everything_else(hashing)).verify(pack, path)
    except Exception as error:  # whatever the library cannot make sense of is no valid signature
        raise SignatureError(
            f"is not what the holder of {public_key} signed: {first_line(error)}",
            where=str(pack),
            todo="do not use it",
        ) from None


def _library() -> tuple[Any, Any, Any]:
    """The modules of model-signing.

    Raises:
        SignatureError: If it is not installed.
    """
    try:
        from model_signing import hashing, signing, verifying
    except ImportError as error:
        raise SignatureError(
            f"signing packs needs model-signing ({error})",
            todo="pip install 'adapter-scanner[sign]'",
        ) from None
    return signing, verifying, hashing


def _everything_else(hashing: Any) -> Any:
    """All files of a directory but the signature; links are refused."""
    return hashing.Config().set_ignored_paths(paths=[SIGNATURE_NAME], ignore_git_paths=False)
