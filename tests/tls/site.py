"""A server that speaks https, and clients that look closely."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import ssl
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.trust.server import Server, free_port, wait_until

PATIENCE_S = 20.0


class Site(Server):
    """``postbackd serve`` with its three ports on loopback."""

    def __init__(
        self,
        data_dir: Path,
        options: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        role: str = "serve",
        http_port: int | None = None,
        prefix: Sequence[str] = (),
        plain: bool = True,
    ) -> None:
        """``options``: of TLS, such as ``--cert``; ``http_port``: where the authority looks; ``plain``: whether it
        listens there.
        """
        super().__init__(data_dir, env=env, role=role, prefix=prefix)
        self.options = list(options)
        self.https_port = free_port()
        self.http_port = http_port or free_port()
        self.plain = plain

    @property
    def addresses(self) -> list[str]:
        """As ``Server.addresses``, with the ports for https and http, and what else was asked for."""
        secure = ["--https-listen", f"127.0.0.1:{self.https_port}"]
        plain = f"127.0.0.1:{self.http_port}" if self.plain else "off"
        return [*super().addresses, *secure, "--http-listen", plain, *self.options]

    @property
    def errors(self) -> str:
        """Everything on standard error."""
        return self.stderr_path.read_text() if self.stderr_path.exists() else ""

    def wait_said(self, words: str, deadline_s: float = PATIENCE_S) -> float:
        """Wait until it was said on standard error."""
        return wait_until(lambda: words in self.errors, deadline_s, f"{words!r} on standard error")

    def shown(self, name: str = "a.example", port: int | None = None) -> str:
        """The fingerprint of the certificate that a new connection is shown; empty: the handshake is refused."""
        try:
            with Visitor(port or self.https_port, name) as visitor:
                return visitor.fingerprint
        except OSError:
            return ""

    def wait_shown(self, is_it: str | None = None, deadline_s: float = PATIENCE_S) -> str:
        """Wait for this certificate, or for any."""
        wait_until(
            lambda: self.shown() == is_it if is_it else self.shown(),
            deadline_s,
            "the certificate on a connection",
        )
        return self.shown()

    def ask_plain(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a request to the port for plain http."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=PATIENCE_S)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()


class Visitor:
    """A connection over TLS that stays open."""

    def __init__(
        self,
        port: int,
        name: str = "a.example",
        trust: Path | None = None,
        version: ssl.TLSVersion | None = None,
    ) -> None:
        """``trust``: file of the authorities to trust; none: any certificate will do.  ``version``: the only one."""
        if trust is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        else:
            context = ssl.create_default_context(cafile=str(trust))
        if version is not None:
            context.set_ciphers("ALL:@SECLEVEL=0")  # the old ones sign with SHA-1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                context.minimum_version = context.maximum_version = version
        plain = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        try:
            self._socket = context.wrap_socket(plain, server_hostname=name)
        except BaseException:
            plain.close()
            raise
        self.version = self._socket.version()
        self.fingerprint = hashlib.sha256(self._socket.getpeercert(binary_form=True) or b"").hexdigest()

    def ask(self, path: str = "/healthz") -> tuple[int, bytes]:
        """Status and body of one request on this connection."""
        answer = self._get(path)
        return answer.status, answer.read()

    def headers_of(self, path: str) -> dict[str, str]:
        """Of the answer, by their names in small letters."""
        answer = self._get(path)
        answer.read()
        return {name.lower(): value for name, value in answer.getheaders()}

    def _get(self, path: str) -> http.client.HTTPResponse:
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        answer = http.client.HTTPResponse(self._socket)
        answer.begin()
        return answer

    def ask_json(self, path: str) -> dict[str, str]:
        document: dict[str, str] = json.loads(self.ask(path)[1])
        return document

    def __enter__(self) -> Visitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
