"""The keys that access tokens are signed with: P-256 private keys in PEM, in one secret, the newest first.

The first signs, all verify; a key's id is its RFC 7638 thumbprint. To rotate, put a new key in front (`openssl genpkey
-algorithm EC -pkeyopt ec_paramgen_curve:P-256`): nobody is signed out. An old one may go once the tokens that it signed
have expired, which takes `access_tokens.LIFETIME`.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jose import jwk
from jose.constants import ALGORITHMS

from cdc_shared.errors import Fatal
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.security.references import resolve_reference
from cdc_shared.security.secret_provider import Secret, SecretNotFound, SecretProvider

ALGORITHM: Final = ALGORITHMS.ES256
_PEM: Final = re.compile(r"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?-----END \1PRIVATE KEY-----", re.DOTALL)

log = get_logger(__name__)


class InvalidSigningKeys(Fatal):
    """The secret holds no key that tokens can be signed with. The message shows nothing of it."""


@runtime_checkable
class WritableProvider(Protocol):
    """A keeper of secrets that can be given one."""

    def add(self, name: str, value: str) -> Secret:
        """Store the secret unless there is one of that name; the one that is there now."""
        ...


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The keys as they were read at one moment."""

    newest: str
    """The id of the key that signs."""
    private: Any = field(repr=False)
    """That key, for `jose`."""
    public: Mapping[str, Any] = field(repr=False)
    """By id, what verifies."""

    @classmethod
    def parse(cls, text: str, where: str) -> "SigningKeys":
        """The keys in a text of PEM blocks. `InvalidSigningKeys` names `where`, never the text."""
        keys = [jwk.construct(_p256(match[0], where), ALGORITHM) for match in _PEM.finditer(text)]
        if not keys:
            raise _invalid(where)
        public = {_thumbprint(key.public_key().to_dict()): key.public_key() for key in keys}
        return cls(next(iter(public)), keys[0], public)

    @classmethod
    def read(cls, reference: str, providers: Mapping[str, SecretProvider]) -> "SigningKeys":
        """What the secret holds now. Raises what `resolve_reference` does, and `InvalidSigningKeys`."""
        return cls.parse(resolve_reference(reference, providers).reveal(), f"{reference} (API_SIGNING_KEYS)")

    @classmethod
    def read_or_make(cls, reference: str, providers: Mapping[str, SecretProvider]) -> "SigningKeys":
        """As `read`; a missing secret is made first where its provider can be written. Two who do so share one key."""
        try:
            return cls.read(reference, providers)
        except SecretNotFound:
            scheme, _, name = reference.partition(":")
            provider = providers[scheme]
            if not isinstance(provider, WritableProvider):
                raise
            provider.add(name, generate_key())
            log.info("a signing key was made", reference=reference)
            return cls.read(reference, providers)


def generate_key() -> str:
    """A new private key in PEM (PKCS#8)."""
    return (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode("ascii")
    )


def _p256(pem: str, where: str) -> str:
    """The PEM as it is, if it holds a P-256 private key."""
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _invalid(where) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _invalid(where)
    return pem


def _thumbprint(key: Mapping[str, Any]) -> str:
    members = {name: key[name] for name in ("crv", "kty", "x", "y")}
    digest = hashlib.sha256(json.dumps(members, separators=(",", ":"), sort_keys=True).encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _invalid(where: str) -> InvalidSigningKeys:
    return InvalidSigningKeys(
        f"{where} holds no signing keys: put P-256 private keys in PEM there, the newest first "
        "(openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256)"
    )
