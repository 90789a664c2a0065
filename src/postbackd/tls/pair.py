"""A private key and the certificates that belong to it: read, checked, made."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from msgspec import Struct

from postbackd.core.certificates import Term
from postbackd.tls.jose import encode

LARGEST_FILE = 256 * 1024
"""A chain of certificates has 2 to 20 kB."""

_SHORTEST_RSA_BITS = 2048
_SELF_SIGNED_DAYS = 7


class UnusablePair(Exception):
    """A key or certificate cannot be used; says why, and of which file where there is one."""


class Pair(Struct, frozen=True):
    """A key with its certificates, in the form in which servers load them, and what is in the first one."""

    pem: bytes
    """The key, then the certificates, the server's own first."""
    term: Term
    fingerprint: str
    """SHA-256 of the server's certificate, in hexadecimal."""
    certificate_id: str
    """By which the authority knows it (RFC 9773 section 4.1); empty when it names no key of an authority."""
    draw: float
    """From 0 up to 1: drawn by chance when the certificate was made, and always the same for it."""
    certificates: int


def read_pair(pem: bytes) -> Pair:
    """A key and certificates in PEM, in this order or any other.  Raises ``UnusablePair``."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except TypeError as error:
        raise UnusablePair(
            "the key is encrypted; take the passphrase off, and keep the file readable by us only"
        ) from error
    except ValueError as error:
        raise UnusablePair(f"no private key in PEM ({_first_line(error)})") from error
    try:
        chain = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise UnusablePair(f"no certificate in PEM ({_first_line(error)})") from error
    own = chain[0]
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise UnusablePair("the key is neither RSA nor on a curve of NIST")
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < _SHORTEST_RSA_BITS:
        raise UnusablePair(
            f"the key has {key.key_size} bits, and clients want {_SHORTEST_RSA_BITS} of an RSA key"
        )
    if _public(own.public_key()) != _public(key.public_key()):
        hint = "; the server's own certificate has to come first" if len(chain) > 1 else ""
        raise UnusablePair(f"the key and the certificate do not belong together{hint}")
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(
        text + b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in chain),
        term_of(own),
        own.fingerprint(hashes.SHA256()).hex(),
        _certificate_id(own),
        int.from_bytes(hashlib.sha256(str(own.serial_number).encode()).digest()[:6], "big") / 2**48,
        len(chain),
    )


def read_files(certificate: Path, key: Path) -> Pair:
    """The pair in two files.  Raises ``UnusablePair`` naming the file."""
    texts = []
    for path in (key, certificate):
        try:
            with path.open("rb") as file:
                texts.append(file.read(LARGEST_FILE))
        except OSError as error:
            raise UnusablePair(
                f"cannot read {path}: {error.strerror}; check the path and its owner"
            ) from error
    try:
        return read_pair(texts[0] + b"\n" + texts[1] if key != certificate else texts[0])
    except UnusablePair as error:
        raise UnusablePair(f"{certificate} with {key}: {error}") from error


def make_key() -> str:
    """A new private key for a certificate: P-256, which every client of the last ten years takes."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode("ascii")


def make_request(key_pem: str, domains: Sequence[str]) -> bytes:
    """The request for a certificate (PKCS #10, DER) of these names."""
    key = serialization.load_pem_private_key(key_pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    names = x509.SubjectAlternativeName([x509.DNSName(domain) for domain in domains])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def make_self_signed(names: Sequence[str], now_ms: int) -> Pair:
    """A certificate that nobody has reason to trust, for tests."""
    key = serialization.load_pem_private_key(make_key().encode(), None)
    return read_pair(_sign_itself(key, names, datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC)))


_ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_OCTETS_32 = b"\x04\x20"
"""DER: a string of 32 octets follows."""


def make_challenge_pair(domain: str, key_authorization: str, now_ms: int) -> Pair:
    """The certificate that answers a challenge in a handshake (RFC 8737 section 3): for this name and nothing else."""
    key = serialization.load_pem_private_key(make_key().encode(), None)
    digest = hashlib.sha256(key_authorization.encode("ascii")).digest()
    proof = x509.UnrecognizedExtension(_ACME_IDENTIFIER, _OCTETS_32 + digest)
    now = datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC)
    return read_pair(_sign_itself(key, [domain], now, "postbackd acme-tls/1 challenge", proof))


def _sign_itself(
    key: PrivateKeyTypes,
    names: Sequence[str],
    now: datetime.datetime,
    title: str = "postbackd self-signed, for tests",
    proof: x509.ExtensionType | None = None,
) -> bytes:
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, title)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
    )
    if proof is not None:
        builder = builder.add_extension(proof, critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def term_of(certificate: x509.Certificate) -> Term:
    """For whom and for how long it is good."""
    return Term(
        _names(certificate), _ms(certificate.not_valid_before_utc), _ms(certificate.not_valid_after_utc)
    )


def _public(key: object) -> bytes:
    return key.public_bytes(  # type: ignore[attr-defined,no-any-return]  # every kind of public key has it
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = [str(address) for address in extension.get_values_for_type(x509.IPAddress)]
    return (*extension.get_values_for_type(x509.DNSName), *addresses)


def _certificate_id(certificate: x509.Certificate) -> str:
    try:
        issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound:
        return ""
    if issuer.key_identifier is None:
        return ""
    number = certificate.serial_number
    # The content of a DER INTEGER: a zero byte in front where the first bit would be a sign.
    return f"{encode(issuer.key_identifier)}.{encode(number.to_bytes(number.bit_length() // 8 + 1, 'big'))}"


def _ms(moment: datetime.datetime) -> int:
    return int(moment.timestamp() * 1000)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:120]
