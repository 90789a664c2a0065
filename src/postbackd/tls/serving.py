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

from postbackd.tls.pair import Pair, UnusablePair

SUITES = ":".join((
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
))  # fmt: skip
"""Of TLS 1.2; all suites of 1.3 are on the list."""


def _bare_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
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


class Showcase:
    """The certificate of the moment.  Before the first there is none, and handshakes are refused.

    Not a stand-in that signed itself: a sender that takes it would tell its key to anybody, and whoever sets a
    sender up would learn to switch its checks off.
    """

    def __init__(self) -> None:
        self.pair: Pair | None = None
        self._current: ssl.SSLContext | None = None
        self.context = _bare_context()
        """For the listening socket."""
        self.context.sni_callback = self._choose

    def show(self, pair: Pair) -> None:
        """From now on new handshakes are shown this pair; connections that are open stay.  Raises ``ssl.SSLError``."""
        self._current, self.pair = make_context(pair), pair

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int | None:
        if self._current is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = self._current
        return None
