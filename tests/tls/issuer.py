"""An authority of the tests' own: signs certificates for any names and any time."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
DAY_S = 86_400.0


def pem_of(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_key(kind: str = "ec") -> Key:
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1())


class Issuer:
    """A root and an intermediate."""

    def __init__(self) -> None:
        self._root_key, self._key = (
            ec.generate_private_key(ec.SECP256R1()),
            ec.generate_private_key(ec.SECP256R1()),
        )
        root = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test root")])
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test intermediate")])
        self.root = self._sign_authority(root, root, self._root_key.public_key())
        self.intermediate = self._sign_authority(self._name, root, self._key.public_key())

    def _sign_authority(self, name: x509.Name, by: x509.Name, key: ec.EllipticCurvePublicKey) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(by)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=4000))
            .not_valid_after(now + datetime.timedelta(days=4000))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .sign(self._root_key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def sign(
        self,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        names: Sequence[str],
        *,
        life_s: float = 90 * DAY_S,
        age_s: float = 60.0,
        serial: int | None = None,
    ) -> bytes:
        """A certificate with the intermediate behind it, in PEM; it began ``age_s`` ago."""
        begin = datetime.datetime.fromtimestamp(time.time() - age_s, datetime.UTC)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + datetime.timedelta(seconds=life_s))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True)
            .add_extension(identifier, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM) + self.intermediate

    def make(
        self, *names: str, kind: str = "ec", life_s: float = 90 * DAY_S, age_s: float = 60.0
    ) -> tuple[bytes, bytes]:
        """(certificate with chain, key), both PEM."""
        key = make_key(kind)
        return self.sign(key.public_key(), names, life_s=life_s, age_s=age_s), pem_of(key)
