"""What is shown to whoever connects: one context for the listening socket, behind it the certificate of the moment.

The context that listens holds no certificate.  Its callback gives each handshake the context of the newest pair, which
was made whole and tried out before.  Loading a new pair into the same context would be simpler and is a trap: OpenSSL
keeps one certificate for each kind of key, so that after an RSA pair has replaced one of a curve most clients would go
on being shown the old one.

TLS 1.2 and 1.3 with the suites of Mozilla's "intermediate" list (ssl-config.mozilla.org, version 5.7) but those with
DHE, which clients without ECDHE would need and which cost ten times the work.  No session tickets: their key would
live as long as the process and open what was recorded (the same list switches them off), and who cares for the cost
of handshakes keeps the connection.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import Callable, Mapping
from typing import TypeVar

from postbackd.tls.handshake import PROTOCOL, Observed, ObservingContext
from postbackd.tls.pair import Pair, UnusablePair, make_challenge_pair

SUITES = ":".join((
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
))  # fmt: skip
"""Of TLS 1.2; all suites of 1.3 are on the list."""


C = TypeVar("C", bound=ssl.SSLContext)


def _bare_context() -> ssl.SSLContext:
    return _prepare(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


def _prepare(context: C) -> C:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(SUITES)
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    return context


def make_context(pair: Pair) -> ssl.SSLContext:
    """A context that shows a pair.  Raises ``ssl.SSLError``.

    ``ssl`` reads from files only; this one has no name and is never on a disk.
    """
    context = _bare_context()
    file = os.memfd_create("pair", os.MFD_CLOEXEC)
    try:
        os.write(file, pair.pem)
        context.load_cert_chain(f"/proc/self/fd/{file}")
    finally:
        os.close(file)
    return context


def check_loads(pair: Pair) -> None:
    """Show the pair to a client within this process, once by TLS 1.2 and once by 1.3.  Raises ``UnusablePair``."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        try:
            shown = _shake_hands(make_context(pair), version)
        except ssl.SSLError as error:
            raise UnusablePair(f"OpenSSL cannot use it: {error.reason or error}") from error
        if hashlib.sha256(shown).hexdigest() != pair.fingerprint:
            raise UnusablePair("OpenSSL shows another certificate than the one that was loaded")


def _shake_hands(context: ssl.SSLContext, version: ssl.TLSVersion) -> bytes:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.minimum_version = client.maximum_version = version
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server),
        context.wrap_bio(to_server, to_client, server_side=True),
    )
    waiting = {0, 1}
    for _ in range(4):
        for number in sorted(waiting):
            try:
                ends[number].do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.discard(number)
    return ends[0].getpeercert(binary_form=True) or b""


class HandshakeChallenges:
    """The certificates that answer challenges in handshakes, and a context that can tell who asks for one."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self.context = _prepare(ObservingContext(ssl.PROTOCOL_TLS_SERVER))
        self._answers: Mapping[str, str] = {}
        self._contexts: Mapping[str, ssl.SSLContext] = {}

    def lay_out(self, answers: Mapping[str, str]) -> None:
        """From now on answer these, and look at handshakes only if there are any.

        ``answers``: domain -> key authorization.
        """
        if answers == self._answers:
            return
        contexts = {}
        for domain, answer in answers.items():
            context = make_context(make_challenge_pair(domain, answer, self._now_ms()))
            context.set_alpn_protocols([PROTOCOL])
            contexts[domain.lower()] = context
        self._answers, self._contexts = answers, contexts
        self.context.observe(bool(contexts))

    def find(self, connection: ssl.SSLObject, name: str | None) -> ssl.SSLContext | None:
        """What a client is shown that came for a challenge; ``None``: it did not, or there is none for this name."""
        if not (isinstance(connection, Observed) and connection.asks and name):
            return None
        found = self._contexts.get(name.lower())
        connection.answered = found is not None
        return found


class Showcase:
    """The certificate of the moment.  Before the first there is none, and handshakes are refused.

    Not a stand-in that signed itself: a sender that takes it would tell its key to anybody, and whoever sets a
    sender up would learn to switch its checks off.
    """

    def __init__(self, challenges: HandshakeChallenges | None = None) -> None:
        """``challenges``: what an authority may come for."""
        self.pair: Pair | None = None
        self._current: ssl.SSLContext | None = None
        self._challenges = challenges
        self.context = _bare_context() if challenges is None else challenges.context
        """For the listening socket."""
        self.context.sni_callback = self._choose

    def show(self, pair: Pair) -> None:
        """From now on new handshakes are shown this pair; connections that are open stay.  Raises ``ssl.SSLError``."""
        self._current, self.pair = make_context(pair), pair

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int | None:
        if self._challenges is not None and (found := self._challenges.find(connection, name)) is not None:
            connection.context = found
            return None
        if self._current is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = self._current
        return None
