"""One HTTPS request to an authority: verified, bounded in time and size, never redirected.

In a thread, by the standard library: an order is some twenty requests every few weeks, and nobody waits for them.
"""

from __future__ import annotations

import asyncio
import http.client
import ssl
import threading
from collections.abc import Mapping
from time import monotonic
from urllib.parse import urlsplit

from msgspec import Struct

from postbackd import __version__

TIMEOUT_S = 30.0
"""For one request, all told."""

LARGEST_ANSWER = 256 * 1024

_CONTENT_TYPE = "application/jose+json"


class AuthorityAway(Exception):
    """There was no answer that could be used; says what to do."""


class Reply(Struct, frozen=True):
    """What the authority answered."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; of several lines with one name the last."""
    body: bytes


class Caller:
    """Sends requests to an authority and trusts the given certificates, or those of the machine."""

    def __init__(self, ca_file: str | None = None) -> None:
        """``ca_file``: certificates to trust instead of the machine's.  Raises ``AuthorityAway``."""
        try:
            self._context = ssl.create_default_context(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise AuthorityAway(f"cannot use {ca_file} ({error}); check --acme-ca-file") from error
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2

    async def call(self, method: str, url: str, body: bytes | None = None, accept: str = "") -> Reply:
        """The answer, whatever its status.  Raises ``AuthorityAway``."""
        try:
            async with asyncio.timeout(
                TIMEOUT_S + 5
            ):  # a name may take longer to resolve than can be stopped
                return await asyncio.to_thread(self._call, method, url, body, accept)
        except TimeoutError as error:
            raise AuthorityAway(
                f"{_host(url)} did not answer within {TIMEOUT_S:.0f} s; is DNS working?"
            ) from error

    def _call(self, method: str, url: str, body: bytes | None, accept: str) -> Reply:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise AuthorityAway(f"the authority's address {url[:200]!r} is not https; check --acme-directory")
        deadline = monotonic() + TIMEOUT_S
        connection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=TIMEOUT_S / 2, context=self._context
        )
        # A timeout of a socket begins anew with every byte; this one does not.
        timer = threading.Timer(TIMEOUT_S, lambda: _cut(connection))
        timer.daemon = True
        timer.start()
        try:
            return _exchange(connection, method, parts.path or "/", parts.query, body, accept)
        except ssl.SSLCertVerificationError as error:
            raise AuthorityAway(_say_untrusted(parts.hostname, error)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            late = " (too slow)" if monotonic() >= deadline else ""
            raise AuthorityAway(
                f"cannot reach {parts.hostname}: {_words(error)}{late}; check that this machine may connect "
                f"to port {parts.port or 443} of it"
            ) from error
        finally:
            timer.cancel()
            connection.close()


def _exchange(
    connection: http.client.HTTPSConnection,
    method: str,
    path: str,
    query: str,
    body: bytes | None,
    accept: str,
) -> Reply:
    headers = {"User-Agent": f"postbackd/{__version__}", "Accept": accept or "*/*", "Connection": "close"}
    if body is not None:
        headers["Content-Type"] = _CONTENT_TYPE
    connection.request(method, f"{path}?{query}" if query else path, body, headers)
    answer = connection.getresponse()
    text = answer.read(LARGEST_ANSWER + 1)
    if len(text) > LARGEST_ANSWER:
        raise ValueError("the answer is too large")
    return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, text)


def _cut(connection: http.client.HTTPSConnection) -> None:
    """End a connection that another thread waits for."""
    sock = connection.sock
    if sock is None:
        return
    try:
        sock.shutdown(2)
    except OSError:
        return  # it has ended by itself


def _say_untrusted(host: str, error: ssl.SSLCertVerificationError) -> str:
    words = error.verify_message or str(error)
    if "expired" in words or "not yet valid" in words:
        return f"the certificate of {host} is not good now ({words}); is the clock of this machine right?"
    return f"the certificate of {host} is not trusted ({words}); name its authority with --acme-ca-file"


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    return f"{type(error).__name__}: {error}"[:200]


def _host(url: str) -> str:
    return urlsplit(url).hostname or url[:200]
