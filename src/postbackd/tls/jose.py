"""Signed requests of RFC 8555: ES256 over P-256 (RFC 7515, RFC 7518 section 3.4), and nothing else of JOSE but HS256.

That one binds an account to another that an operator has at the authority.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

_COORDINATE_BYTES = 32


def encode(data: bytes) -> str:
    """Base64 for URLs without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def canonical(document: Mapping[str, Any]) -> bytes:
    """JSON without spaces, names in their order (RFC 7638 section 3)."""
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode("ascii")


class AccountKey:
    """The key of an account at an authority."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        numbers = key.public_key().public_numbers()
        self.jwk = {
            "crv": "P-256",
            "kty": "EC",
            "x": encode(numbers.x.to_bytes(_COORDINATE_BYTES, "big")),
            "y": encode(numbers.y.to_bytes(_COORDINATE_BYTES, "big")),
        }
        self.thumbprint = encode(hashlib.sha256(canonical(self.jwk)).digest())

    @classmethod
    def make(cls) -> AccountKey:
        """A new key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def read(cls, pem: str) -> AccountKey:
        """The key in a PEM text.  Raises ``ValueError``."""
        key = serialization.load_pem_private_key(pem.encode(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("not a key of the curve P-256")  # noqa: TRY004 - a value, from a file
        return cls(key)

    def write(self) -> str:
        """The key as PEM text, not encrypted."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode("ascii")

    def authorize(self, token: str) -> str:
        """The key authorization of a challenge's token (RFC 8555 section 8.1)."""
        return f"{token}.{self.thumbprint}"

    def sign(self, url: str, nonce: str, payload: Mapping[str, Any] | None, account: str | None) -> bytes:
        """The body of a request to ``url``.

        ``payload``: ``None`` reads (POST-as-GET).  ``account``: its address; ``None`` names the key itself, which
        only the request that registers it does.
        """
        who: dict[str, Any] = {"jwk": self.jwk} if account is None else {"kid": account}
        protected = encode(canonical({"alg": "ES256", "nonce": nonce, "url": url, **who}))
        text = "" if payload is None else encode(canonical(payload))
        signature = encode(self.sign_bytes(f"{protected}.{text}".encode("ascii")))
        return canonical({"payload": text, "protected": protected, "signature": signature})

    def bind(self, kid: str, key: bytes, url: str) -> dict[str, str]:
        """The proof that an operator's account wants this key (RFC 8555 section 7.3.4).

        ``kid`` and ``key`` are the operator's; ``url``: where the account is registered.
        """
        protected = encode(canonical({"alg": "HS256", "kid": kid, "url": url}))
        text = encode(canonical(self.jwk))
        signature = hmac.digest(key, f"{protected}.{text}".encode("ascii"), "sha256")
        return {"payload": text, "protected": protected, "signature": encode(signature)}

    def sign_bytes(self, data: bytes) -> bytes:
        """R and S of an ECDSA signature, each 32 bytes (RFC 7518 section 3.4)."""
        r, s = decode_dss_signature(self._key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(_COORDINATE_BYTES, "big") + s.to_bytes(_COORDINATE_BYTES, "big")
