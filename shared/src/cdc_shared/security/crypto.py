"""AES-256-GCM: the one cipher for whatever the platform encrypts itself (the secrets file, payloads of dead letters).

Nonce rules. GCM fails completely when one key sees one nonce twice, so callers never choose a nonce: `encrypt` draws 96
random bits for each message. Random nonces are safe up to 2**32 messages under one key (NIST SP 800-38D, 8.3): replace
a key long before. The nonce is not secret and travels in front of the ciphertext.

Associated data is authenticated, not encrypted: put there what a ciphertext belongs to (a format, a name, an offset),
so that one moved elsewhere is refused.
"""

import base64
import binascii
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cdc_shared.errors import Fatal

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16


class InvalidKey(Fatal):
    """A key that is not 32 bytes in base64."""


class DecryptionFailed(Fatal):
    """The key is not the one it was encrypted with, or the data or its associated data has changed."""


def generate_key() -> bytes:
    """A new random key of `KEY_BYTES` bytes."""
    return secrets.token_bytes(KEY_BYTES)


def encode_key(key: bytes) -> str:
    """A key as text for a key file or a variable: standard base64."""
    return base64.b64encode(key).decode("ascii")


def decode_key(text: str, where: str) -> bytes:
    """The inverse of `encode_key`, white space around it ignored. `InvalidKey` names `where`, never the text."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise InvalidKey(
            f"{where} holds no key: put {KEY_BYTES} random bytes in base64 there (openssl rand -base64 32)"
        )
    return key


def encrypt(key: bytes, plaintext: bytes, associated_data: bytes = b"") -> bytes:
    """nonce (12 bytes) + ciphertext (as long as the plaintext) + tag (16 bytes)."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, associated_data)


def decrypt(key: bytes, message: bytes, associated_data: bytes = b"") -> bytes:
    """The plaintext of what `encrypt` returned. Raises `DecryptionFailed`."""
    if len(message) < NONCE_BYTES + TAG_BYTES:
        raise DecryptionFailed("the encrypted message is cut short")
    try:
        return AESGCM(key).decrypt(message[:NONCE_BYTES], message[NONCE_BYTES:], associated_data)
    except InvalidTag:
        raise DecryptionFailed("wrong key, or the encrypted message was changed") from None
