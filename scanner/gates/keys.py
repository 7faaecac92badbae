"""Ed25519 keys: a private one signs verdicts, public ones stand in the policy.

Whoever checks a verdict holds nothing that could make one. A private key is a PEM file
(PKCS #8, as openssl writes it) or the same text in an environment variable; it is never an
argument of a command, and no message repeats any part of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from scanner.errors import AttestationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

KEY_VARIABLE = "ADAPTER_SCANNER_SIGNING_KEY"
"""Environment variable: the private key itself, as PEM text."""
KEY_FILE_VARIABLE = "ADAPTER_SCANNER_SIGNING_KEY_FILE"
"""Environment variable: the file of the private key."""
PREFIX = "ed25519:"
"""What a public key's text starts with."""
_KEY_BYTES = 32


@dataclass(frozen=True)
class PublicKey:
    """A public key, which verifies signatures."""

    raw: bytes

    @property
    def id(self) -> str:
        """The first 16 hex digits of the key's sha256: a name, not a secret."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def __str__(self) -> str:
        return PREFIX + base64.b64encode(self.raw).decode()

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether this key's private half signed the message."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._key().verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def _key(self) -> Ed25519PublicKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        return Ed25519PublicKey.from_public_bytes(self.raw)


@dataclass(frozen=True)
class SigningKey:
    """A private key, which signs. Printing it shows its name, never the key itself."""

    public: PublicKey
    _private: Ed25519PrivateKey = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """Returns the signature of a message."""
        return self._private.sign(message)


def parse_public_key(text: str, where: str = "") -> PublicKey:
    """Reads a public key as `gate keygen` prints it.

    Raises:
        AttestationError: If it is not one, or the cryptography package is missing.
    """
    require_cryptography()
    try:
        if not text.startswith(PREFIX):
            raise ValueError
        raw = base64.b64decode(text[len(PREFIX) :], validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != _KEY_BYTES:
        raise AttestationError(
            f"not a public key: {PREFIX} and {_KEY_BYTES} bytes in base64 were expected",
            where=where,
            todo="take it from `adapter-scanner gate keygen`",
        )
    return PublicKey(raw)


def load_signing_key(path: Path | None = None) -> SigningKey:
    """Loads the private key.

    Args:
        path: Its file; if None, the environment says (`KEY_FILE_VARIABLE`, `KEY_VARIABLE`).

    Raises:
        AttestationError: If there is none, it is not an Ed25519 key, or others can read its file.
    """
    if path is None and (named := os.environ.get(KEY_FILE_VARIABLE)):
        path = Path(named)
    if path is not None:
        return _private_key(_read_private(path), str(path))
    text = os.environ.get(KEY_VARIABLE)
    if not text:
        raise AttestationError(
            "no key to sign with",
            todo=f"make one with `adapter-scanner gate keygen FILE` and set {KEY_FILE_VARIABLE}",
        )
    return _private_key(text.encode(), f"${KEY_VARIABLE}")


def signing_key_at_hand(path: Path | None) -> bool:
    """Whether a private key is named, by an option or by the environment."""
    variables = (KEY_FILE_VARIABLE, KEY_VARIABLE)
    return path is not None or any(os.environ.get(variable) for variable in variables)


def write_new_key(path: Path) -> PublicKey:
    """Makes a key, writes its private half to a new file that only its owner can read.

    Raises:
        AttestationError: If the file exists or cannot be written.
    """
    require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise AttestationError("exists already; a key is never replaced", where=str(path)) from None
    except OSError as error:
        raise AttestationError(
            f"cannot be written: {error.strerror or error}", where=str(path)
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    return _signing_key(private).public


def _read_private(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise AttestationError(
                    "others can read or write this private key",
                    where=str(path),
                    todo="chmod 600, or make a new one if they may have",
                )
            return file.read()
    except OSError as error:
        raise AttestationError(
            f"cannot be read: {error.strerror or error}", where=str(path)
        ) from None


def _private_key(pem: bytes, where: str) -> SigningKey:
    require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        private = serialization.load_pem_private_key(pem, password=None)
    except Exception:
        # Whatever the library says may quote the key; nothing of it is repeated.
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise AttestationError(
            "not an unencrypted Ed25519 private key in PEM",
            where=where,
            todo="make one with `adapter-scanner gate keygen FILE`",
        ) from None
    return _signing_key(private)


def _signing_key(private: Ed25519PrivateKey) -> SigningKey:
    from cryptography.hazmat.primitives import serialization

    raw = private.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )
    return SigningKey(PublicKey(raw), private)


def require_cryptography() -> None:
    """Makes a missing package a clear error.

    Raises:
        AttestationError: If cryptography is not installed.
    """
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise AttestationError(
            "signed verdicts need the cryptography package",
            todo="pip install 'adapter-scanner[mlflow]'",
        ) from None
