"""Good and bad certificates, made by the ``openssl`` command, and what the client has to say of each."""

from __future__ import annotations

import itertools
import ssl
import subprocess
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NAME = "shop.example"
SAN = f"subjectAltName=DNS:{NAME}"

_CONFIG = """
[ca]
default_ca = desk
[desk]
database = {directory}/index.txt
new_certs_dir = {directory}
rand_serial = yes
unique_subject = no
policy = anything
default_md = sha256
[anything]
commonName = supplied
[req]
distinguished_name = name
[name]
"""
_PAST, _RECENT, _FUTURE, _FAR = "20200101000000Z", "20210101000000Z", "20990101000000Z", "20991231000000Z"
_AUTHORITY = "basicConstraints=critical,CA:TRUE"

EC = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key."""

    path: Path
    key: Path


class Desk:
    """Signs certificates in a directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._numbers = itertools.count()
        self._config = directory / "openssl.cnf"
        self._config.write_text(_CONFIG.format(directory=directory))
        (directory / "index.txt").touch()

    def sign(
        self,
        by: Certificate | None = None,
        *extensions: str,
        name: str = NAME,
        start: str = _PAST,
        end: str = _FAR,
        digest: str = "sha256",
        key: Sequence[str] = EC,
    ) -> Certificate:
        """A new key and its certificate; without ``by`` it signs itself."""
        stem = self._directory / f"c{next(self._numbers)}"
        made = Certificate(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        wish, wanted = stem.with_suffix(".csr"), stem.with_suffix(".ext")
        wanted.write_text("\n".join(extensions) + "\n")
        common = ("-batch", "-config", str(self._config))
        run("req", "-new", *common[1:], "-newkey", *key, "-nodes", "-keyout", str(made.key), "-subj", f"/CN={name}",
            "-out", str(wish))  # fmt: skip
        signer: tuple[str, ...] = ("-selfsign", "-keyfile", str(made.key))
        if by is not None:
            signer = ("-cert", str(by.path), "-keyfile", str(by.key))
        run("ca", *common, *signer, "-in", str(wish), "-out", str(made.path), "-notext", "-startdate", start,
            "-enddate", end, "-md", digest, "-extfile", str(wanted))  # fmt: skip
        return made

    def chain(self, *certificates: Certificate) -> Certificate:
        """The first with those that a server sends along with it."""
        path = self._directory / f"chain{next(self._numbers)}.pem"
        path.write_text("".join(certificate.path.read_text() for certificate in certificates))
        return Certificate(path, certificates[0].key)

    def spoil(self, certificate: Certificate) -> Certificate:
        """The last byte of the signature changed."""
        lines = ssl.PEM_cert_to_DER_cert(certificate.path.read_text())
        path = self._directory / f"spoilt{next(self._numbers)}.pem"
        path.write_text(ssl.DER_cert_to_PEM_cert(lines[:-1] + bytes((lines[-1] ^ 1,))))
        return Certificate(path, certificate.key)


def run(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr.strip()}")


@dataclass(frozen=True)
class Case:
    """A server that must be refused."""

    error: str
    """A regular expression that the client's error matches."""
    certificate: Certificate | None
    host: str = NAME
    adjust: Callable[[ssl.SSLContext], None] = field(default=lambda context: None)

    def context(self) -> ssl.SSLContext:
        """For the server.  Weak keys and old protocols are its own choice."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("ALL:aNULL:@SECLEVEL=0")
        if self.certificate is not None:
            context.load_cert_chain(self.certificate.path, self.certificate.key)
        self.adjust(context)
        return context


@dataclass(frozen=True)
class Certificates:
    """A trusted authority, servers to accept, servers to refuse."""

    authority: Path
    good: dict[str, Case]
    bad: dict[str, Case]


def make_certificates(directory: Path) -> Certificates:
    """All of them, in a new directory; takes about a second."""
    desk = Desk(directory)
    root = desk.sign(None, _AUTHORITY, name="Root")
    middle = desk.sign(root, _AUTHORITY, name="Middle")
    good = {
        "good": Case("^$", desk.sign(root, SAN)),
        "with an intermediate": Case("^$", desk.chain(desk.sign(middle, SAN), middle)),
        "a wildcard": Case("^$", desk.sign(root, "subjectAltName=DNS:*.shop.example"), f"www.{NAME}"),
        "an address": Case("^$", desk.sign(root, "subjectAltName=IP:127.0.0.1"), "127.0.0.1"),
    }
    bad = _of_time_and_name(desk, root) | _of_authority(desk, root, middle) | _of_strength(desk, root)
    return Certificates(root.path, good, bad)


def _of_time_and_name(desk: Desk, root: Certificate) -> dict[str, Case]:
    other = "^certificate: made for another (name|address)$"
    stale = desk.sign(root, _AUTHORITY, name="Stale", end=_RECENT)
    return {
        "expired": Case("^certificate: expired$", desk.sign(root, SAN, end=_RECENT)),
        "not yet valid": Case("^certificate: not yet valid$", desk.sign(root, SAN, start=_FUTURE)),
        "expired intermediate": Case("^certificate: expired$", desk.chain(desk.sign(stale, SAN), stale)),
        "another name": Case(other, desk.sign(root, "subjectAltName=DNS:other.example")),
        "a name above": Case(other, desk.sign(root, "subjectAltName=DNS:example")),
        "a wildcard over two labels": Case(
            other, desk.sign(root, "subjectAltName=DNS:*.shop.example"), f"a.b.{NAME}"
        ),
        "the name only as common name": Case(
            other, desk.sign(root, "subjectAltName=DNS:other.example", name=NAME)
        ),
        "a name instead of the address": Case(other, desk.sign(root, SAN), "127.0.0.1"),
        "the address as a name": Case(other, desk.sign(root, "subjectAltName=DNS:127.0.0.1"), "127.0.0.1"),
        "another address": Case(other, desk.sign(root, "subjectAltName=IP:127.0.0.2"), "127.0.0.1"),
    }


def _of_authority(desk: Desk, root: Certificate, middle: Certificate) -> dict[str, Case]:
    unknown = "^certificate: signed by an (unknown authority|authority that is not trusted)"
    may_not = "^certificate: signed by a certificate that may not sign$"
    stranger = desk.sign(None, _AUTHORITY, name="Stranger")
    namesake = desk.sign(None, _AUTHORITY, name="Root")
    leaf = desk.sign(root, "basicConstraints=CA:FALSE", SAN)
    short = desk.sign(root, f"{_AUTHORITY},pathlen:0", name="Short")
    below = desk.sign(short, _AUTHORITY, name="Below")
    narrow = desk.sign(
        root, _AUTHORITY, "nameConstraints=critical,permitted;DNS:other.example", name="Narrow"
    )
    unsigning = desk.sign(root, _AUTHORITY, "keyUsage=critical,digitalSignature", name="Unsigning")
    return {
        "self-signed": Case("^certificate: self-signed$", desk.sign(None, SAN)),
        "unknown authority": Case(unknown, desk.sign(stranger, SAN)),
        "unknown authority, sent along": Case(unknown, desk.chain(desk.sign(stranger, SAN), stranger)),
        "an authority with a trusted one's name": Case(unknown, desk.sign(namesake, SAN)),
        "missing intermediate": Case("intermediate certificate is missing$", desk.sign(middle, SAN)),
        "signed by a server's certificate": Case(may_not, desk.chain(desk.sign(leaf, SAN), leaf)),
        "signed by one that may not sign": Case(
            "^certificate: ", desk.chain(desk.sign(unsigning, SAN), unsigning)
        ),
        "chain too long": Case(
            "^certificate: its chain is longer", desk.chain(desk.sign(below, SAN), below, short)
        ),
        "name outside of the authority's": Case(
            "^certificate: its authority may not sign for this name$",
            desk.chain(desk.sign(narrow, SAN), narrow),
        ),
        "for clients only": Case(
            "^certificate: made for another purpose$", desk.sign(root, SAN, "extendedKeyUsage=clientAuth")
        ),
        "unknown critical extension": Case(
            "^certificate: unhandled critical extension$", desk.sign(root, SAN, "1.2.3.4=critical,DER:0500")
        ),
        "spoilt signature": Case("^certificate: its signature is wrong$", desk.spoil(desk.sign(root, SAN))),
    }


def _of_strength(desk: Desk, root: Certificate) -> dict[str, Case]:
    def only(version: ssl.TLSVersion) -> Callable[[ssl.SSLContext], None]:
        def adjust(context: ssl.SSLContext) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # old ones are what is wanted
                context.minimum_version = context.maximum_version = version

        return adjust

    # The loop's server closes without the alert that other servers send: "unsupported protocol", "handshake failure".
    old = "^TLS: .*(protocol|no TLS 1.2)"
    good = desk.sign(root, SAN)
    rsa = desk.sign(root, _AUTHORITY, name="RSA", key=("rsa:2048",))  # there is no ECDSA with MD5
    return {
        "RSA key of 1024 bits": Case(
            "^certificate: its key is too weak$", desk.sign(root, SAN, key=("rsa:1024",))
        ),
        "signed with SHA-1": Case(
            "^certificate: its signature is too weak$", desk.sign(root, SAN, digest="sha1")
        ),
        "signed with MD5": Case(
            "^certificate: its signature is too weak$", desk.chain(desk.sign(rsa, SAN, digest="md5"), rsa)
        ),
        "TLS 1.0": Case(old, good, adjust=only(ssl.TLSVersion.TLSv1)),
        "TLS 1.1": Case(old, good, adjust=only(ssl.TLSVersion.TLSv1_1)),
        "no certificate": Case(
            "^TLS: .*(handshake failure|without a reason)", None, adjust=only(ssl.TLSVersion.TLSv1_2)
        ),
    }
