"""The real program obtains a certificate through its port for https alone, from an authority that binds accounts."""

from __future__ import annotations

import hashlib
import socket
import threading
from pathlib import Path

import pytest

from tests.tls.hellos import client_context
from tests.tls.pebble import Pebble, missing_programs
from tests.tls.site import Site, Visitor
from tests.trust.server import free_port, wait_until

NAME = "a.example"
KID, HMAC_KEY = "kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"


def shown_to_an_authority(port: int) -> str:
    """The fingerprint that a client sees which offers ``acme-tls/1`` alone; empty: the handshake is refused."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            client_context(["acme-tls/1"]).wrap_socket(plain, server_hostname=NAME) as secure,
        ):
            if secure.selected_alpn_protocol() == "acme-tls/1":
                secure.settimeout(2)  # the limit for a client that says nothing would be 5 s
                assert secure.recv(1000) == b""
            return hashlib.sha256(secure.getpeercert(binary_form=True) or b"").hexdigest()
    except OSError:
        return ""


@pytest.mark.skipif(bool(missing_programs()), reason="needs pebble (apt-get install pebble)")
def test_a_certificate_is_obtained_through_the_port_for_https_alone(tmp_path: Path) -> None:
    key_file = tmp_path / "hmac-key"
    key_file.write_text(HMAC_KEY)
    key_file.chmod(0o600)
    env = {"POSTBACKD_ACME_EAB_HMAC_KEY_FILE": str(key_file)}
    site = Site(tmp_path / "data", [], env=env, plain=False)
    with Pebble(
        tmp_path / "pebble", free_port(), tls_port=site.https_port, bindings={KID: HMAC_KEY}
    ) as pebble:
        site.options = ["--domain", NAME, "--acme-challenge", "tls-alpn-01", "--acme-eab-kid", KID]
        site.options += pebble.options
        with site:
            seen: set[str] = set()
            ending = threading.Event()

            def look() -> None:
                while not ending.wait(0.05):
                    seen.add(shown_to_an_authority(site.https_port))

            looking = threading.Thread(target=look)
            looking.start()
            try:
                served = site.wait_shown()
            finally:
                ending.set()
                looking.join()
            assert len(seen - {"", served}) == 1  # the certificate of the challenge, and no other
            with Visitor(site.https_port, NAME, pebble.roots) as visitor:
                assert visitor.fingerprint == served
                assert visitor.ask() == (200, b"ok\n")
            wait_until(
                lambda: shown_to_an_authority(site.https_port) == served, 10, "the end of the challenge"
            )
            assert HMAC_KEY not in site.errors
