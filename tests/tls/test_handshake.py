"""A challenge is answered in the handshake: whoever comes for it gets its certificate, and nobody else ever does."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509

from postbackd.store.shelf import FileShelf
from postbackd.tls.documents import TLS_CHALLENGES
from postbackd.tls.pair import make_self_signed
from postbackd.tls.serving import HandshakeChallenges, Showcase
from postbackd.tls.watching import ShelfSource
from tests.tls.hellos import Meeting, client_context, first_message, in_records

NAME, OTHER = "a.example", "b.example"
ANSWER = "token.thumbprint"
ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def now_ms() -> int:
    return int(time.time() * 1000)


class Door:
    """What listens, with an ordinary certificate for two names and a challenge for one of them."""

    def __init__(self, *, ordinary: bool = True) -> None:
        self.challenges = HandshakeChallenges(now_ms)
        self.showcase = Showcase(self.challenges)
        self.ordinary = make_self_signed([NAME, OTHER], now_ms())
        if ordinary:
            self.showcase.show(self.ordinary)
        self.challenges.lay_out({NAME: ANSWER})

    def meet(
        self, *protocols: str, name: str | None = NAME, version: ssl.TLSVersion | None = None, piece: int = 65_536
    ) -> Meeting:  # fmt: skip
        meeting = Meeting(self.showcase.context, client_context(protocols, version), name, piece)
        meeting.shake_hands()
        return meeting

    def is_ordinary(self, meeting: Meeting) -> bool:
        return hashlib.sha256(shown(meeting)).hexdigest() == self.ordinary.fingerprint


def shown(meeting: Meeting) -> bytes:
    return meeting.client.getpeercert(binary_form=True) or b""


@pytest.fixture(scope="module")
def door() -> Door:
    return Door()


@pytest.mark.parametrize("version", VERSIONS)
def test_whoever_comes_for_the_challenge_is_shown_what_rfc_8737_wants(
    door: Door, version: ssl.TLSVersion
) -> None:
    meeting = door.meet("acme-tls/1", version=version)
    assert meeting.client.selected_alpn_protocol() == "acme-tls/1"
    certificate = x509.load_der_x509_certificate(shown(meeting))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName(NAME)]
    proof = certificate.extensions.get_extension_for_oid(ACME_IDENTIFIER)
    assert proof.critical
    assert isinstance(proof.value, x509.UnrecognizedExtension)
    assert proof.value.value == b"\x04\x20" + hashlib.sha256(ANSWER.encode()).digest()
    assert certificate.issuer == certificate.subject
    certificate.verify_directly_issued_by(certificate)


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_else_is_served_on_its_connection(door: Door, version: ssl.TLSVersion) -> None:
    meeting = door.meet("acme-tls/1", version=version)
    meeting.say(b"GET /healthz HTTP/1.1\r\nHost: a.example\r\n\r\n")
    assert meeting.server.read(1000) == b""
    assert meeting.server.pending()  # or the loop would not look for the end before the client says something
    into = bytearray(1000)
    assert not meeting.server.read(1000, into)
    assert not any(into)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("protocols", "name"),
    [
        ((), NAME),
        (("http/1.1",), NAME),
        (("h2", "http/1.1"), NAME),
        (("acme-tls/1", "http/1.1"), NAME),
        (("h2", "acme-tls/1"), NAME),
        (("acme-tls/1", "acme-tls/1"), NAME),
        (("acme-tls/1.1",), NAME),
        (("acme-tls/1",), OTHER),
        (("acme-tls/1",), None),
    ],
)
def test_everybody_else_is_shown_the_ordinary_certificate_and_heard(
    door: Door, protocols: tuple[str, ...], name: str | None, version: ssl.TLSVersion
) -> None:
    meeting = door.meet(*protocols, name=name, version=version)
    assert door.is_ordinary(meeting)
    meeting.say(b"GET /healthz")
    assert meeting.server.read(1000) == b"GET /healthz"


def test_chosen_by_its_name_alone_senders_would_be_shown_the_challenge(door: Door) -> None:
    """The control: what is read of the first message is what keeps them apart."""

    def by_name(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.asks = True  # type: ignore[attr-defined]
        if (found := door.challenges.find(connection, name)) is not None:
            connection.context = found

    context, ordinary = door.showcase.context, door.showcase.context.sni_callback
    context.sni_callback = by_name
    try:
        assert not door.is_ordinary(door.meet("http/1.1"))
    finally:
        context.sni_callback = ordinary


@pytest.mark.parametrize("piece", [1, 5, 6, 100])
def test_the_pieces_in_which_a_first_message_arrives_make_no_difference(door: Door, piece: int) -> None:
    assert not door.is_ordinary(door.meet("acme-tls/1", piece=piece))
    assert door.is_ordinary(door.meet("http/1.1", piece=piece))


def test_a_first_message_in_many_records_is_understood(door: Door) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = door.showcase.context.wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(in_records(first_message(NAME, ["acme-tls/1"]), [1, 2, 3] + [50] * 20))
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    assert server.context is not door.showcase.context
    assert outgoing.pending


@pytest.mark.parametrize(
    "some",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 600,
        first_message(NAME, ["acme-tls/1"])[:-250] + b"\xff" * 250,
        b"\x80\x2e\x01\x00\x02" + bytes(60),
        b"\x16\x03\x01\x40\x01" + bytes(20_000),
    ],
)
def test_what_is_no_first_message_fails_as_it_ever_did(door: Door, some: bytes) -> None:
    incoming = ssl.MemoryBIO()
    server = door.showcase.context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    incoming.write(some)
    with pytest.raises(ssl.SSLError) as refused:
        server.do_handshake()
    assert not isinstance(refused.value, ssl.SSLWantReadError)


def test_the_challenge_is_answered_while_there_is_no_certificate_yet_and_others_are_refused() -> None:
    door = Door(ordinary=False)
    assert shown(door.meet("acme-tls/1"))
    with pytest.raises(ssl.SSLError):
        door.meet("http/1.1")


def test_while_nothing_is_pending_no_connection_is_looked_at() -> None:
    door = Door()
    observed = door.meet("http/1.1").server
    assert type(observed) is not ssl.SSLObject
    door.challenges.lay_out({})
    assert type(door.meet("http/1.1").server) is ssl.SSLObject
    assert door.is_ordinary(door.meet("acme-tls/1"))


def test_without_the_setting_the_context_that_listens_is_an_ordinary_one() -> None:
    assert type(Showcase().context) is ssl.SSLContext


def test_what_is_on_the_shelf_is_laid_out_and_taken_away(tmp_path: Path) -> None:
    door = Door()
    door.challenges.lay_out({})
    source = ShelfSource(FileShelf(tmp_path), door.showcase, [NAME], door.challenges)

    async def look(document: bytes | None) -> None:
        shelf = FileShelf(tmp_path)
        assert await shelf.hold()
        if document is None:
            await shelf.remove(TLS_CHALLENGES)
        else:
            await shelf.save(TLS_CHALLENGES, document)
        await shelf.close()
        await source.look_for_challenges()

    for document, answered in [
        (b'{"A.example":"x.y"}', True),
        (b'{"a.example":"x.\xc3\xa4"}', True),  # cannot be answered: what was there stays
        (b"no JSON", False),
        (b'{"a.example":"x.y"}', True),
        (None, False),
    ]:
        asyncio.run(look(document))
        assert door.is_ordinary(door.meet("acme-tls/1")) is not answered
