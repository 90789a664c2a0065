"""Which keys and certificates are taken, and what is shown to whoever connects."""

from __future__ import annotations

import hashlib
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from postbackd.tls.pair import (
    UnusablePair,
    make_key,
    make_request,
    make_self_signed,
    read_files,
    read_pair,
)
from postbackd.tls.serving import Showcase, check_loads, make_context
from tests.tls.issuer import Issuer, pem_of
from tests.tls.issuer import make_key as make_any_key

NOW = int(time.time() * 1000)


def shown(context: ssl.SSLContext, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, *, name: str | None = None,
          groups: str = "") -> str:  # fmt: skip
    """The fingerprint of what a client in this process is shown."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.minimum_version = client.maximum_version = version
    if groups:
        client.set_ciphers(groups)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server, server_hostname=name),
            context.wrap_bio(to_server, to_client, server_side=True)]  # fmt: skip
    for _ in range(5):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return hashlib.sha256(ends[0].getpeercert(binary_form=True) or b"").hexdigest()


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_pair_is_read_in_any_order_and_tried_by_both_protocols(issuer: Issuer, kind: str) -> None:
    certificate, key = issuer.make("a.example", "b.example", kind=kind)
    for text in (key + certificate, certificate + key):
        pair = read_pair(text)
        check_loads(pair)
        assert pair.term.names == ("a.example", "b.example")
        assert pair.certificates == 2
        assert pair.term.life_ms == 90 * 86_400_000


def test_what_cannot_be_used_is_refused_with_the_reason(issuer: Issuer) -> None:
    certificate, key = issuer.make("a.example")
    _, other_key = issuer.make("b.example")
    weak = rsa.generate_private_key(65537, 1024)
    locked = make_any_key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )
    own, _, intermediate = certificate.partition(b"-----END CERTIFICATE-----\n")
    turned = intermediate + own + b"-----END CERTIFICATE-----\n"
    for text, reason in [
        (b"", "no private key"),
        (key, "no certificate"),
        (certificate, "no private key"),
        (key[: len(key) // 2] + certificate, "no private key"),
        (key + certificate[: len(certificate) // 3], "no certificate"),
        (other_key + certificate, "do not belong together"),
        (key + turned, "has to come first"),
        (locked + certificate, "encrypted"),
        (pem_of(weak) + issuer.sign(weak.public_key(), ["a.example"]), "1024 bits"),
    ]:
        with pytest.raises(UnusablePair, match=reason):
            read_pair(text)


def test_files_that_are_not_there_are_named(tmp_path: Path, issuer: Issuer) -> None:
    certificate, key = issuer.make("a.example")
    (tmp_path / "c").write_bytes(certificate)
    with pytest.raises(UnusablePair, match=r"cannot read .*/k: No such file"):
        read_files(tmp_path / "c", tmp_path / "k")
    (tmp_path / "both").write_bytes(key + certificate)
    assert read_files(tmp_path / "both", tmp_path / "both").term.names == ("a.example",)


def test_the_id_of_a_certificate_is_that_of_the_specification() -> None:
    """RFC 9773 section 4.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    identifier = bytes.fromhex("69885B6B87464041E1B37B847BA0AE2CDE01C8D4")
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(0x87654321)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC)).not_valid_after(datetime(2027, 1, 1, tzinfo=UTC))
        .add_extension(x509.AuthorityKeyIdentifier(identifier, None, None), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pair = read_pair(pem_of(key) + certificate.public_bytes(serialization.Encoding.PEM))
    assert pair.certificate_id == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"


def test_the_request_for_a_certificate_asks_for_all_names() -> None:
    request = x509.load_der_x509_csr(make_request(make_key(), ["a.example", "b.example"]))
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example", "b.example"]
    assert request.is_signature_valid


# --- what is shown ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_new_pair_is_shown_at_once_whatever_kind_its_key_is(
    issuer: Issuer, version: ssl.TLSVersion
) -> None:
    showcase = Showcase()
    for kind in ("ec", "rsa", "ec", "rsa"):
        certificate, key = issuer.make("a.example", kind=kind)
        pair = read_pair(key + certificate)
        showcase.show(pair)
        assert shown(showcase.context, version) == pair.fingerprint
        assert shown(showcase.context, version, name="a.example") == pair.fingerprint


def test_loading_a_pair_into_the_context_that_listens_would_go_on_showing_the_old_one(
    issuer: Issuer, tmp_path: Path
) -> None:
    """The control of the test above: what the simple way does."""
    first, second = (
        read_pair(b"".join(reversed(issuer.make("a.example", kind=kind)))) for kind in ("ec", "rsa")
    )
    context = make_context(first)
    (tmp_path / "second.pem").write_bytes(second.pem)
    context.load_cert_chain(tmp_path / "second.pem")
    assert shown(context) == first.fingerprint


def test_before_the_first_pair_handshakes_are_refused() -> None:
    with pytest.raises(ssl.SSLError):
        shown(Showcase().context)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_protocols_are_refused_also_when_the_client_insists(version: ssl.TLSVersion) -> None:
    showcase = Showcase()
    showcase.show(make_self_signed(["localhost"], NOW))
    with pytest.warns(DeprecationWarning, match="TLSv1"), pytest.raises(ssl.SSLError):
        shown(showcase.context, version, groups="ALL:@SECLEVEL=0")


@pytest.mark.parametrize("suites", ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA256", "DHE-RSA-AES128-GCM-SHA256"])
def test_suites_that_are_not_on_the_list_are_refused(suites: str) -> None:
    showcase = Showcase()
    showcase.show(make_self_signed(["localhost"], NOW))
    with pytest.raises(ssl.SSLError):
        shown(showcase.context, ssl.TLSVersion.TLSv1_2, groups=f"{suites}:@SECLEVEL=0")


def test_the_key_is_in_no_file(issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    certificate, key = issuer.make("a.example")
    make_context(read_pair(key + certificate))
    assert list(tmp_path.iterdir()) == []
