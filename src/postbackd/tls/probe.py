"""Looks at a public endpoint from outside: names, ports, certificate, protocols, answers.  ``core.endpoint`` judges.

Every look has a time limit, and one that fails does not keep the others from being made.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import warnings
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlencode

import msgspec
from cryptography import x509

from postbackd.core.certificates import Term
from postbackd.core.endpoint import GOOD_PROTOCOLS, OLD_PROTOCOLS, Seen, Tried
from postbackd.core.replies import excerpt
from postbackd.tls.pair import term_of

TIMEOUT_S = 8.0

_LARGEST_BODY = 4096

_VERSIONS: Mapping[str, ssl.TLSVersion] = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}


def probe(host: str, port: int, now_ms: int) -> Seen:
    """Look at ``https://host:port``."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return Seen(host=host, port=port, now_ms=now_ms, dns_error=error.strerror or str(error))
    addresses = list(dict.fromkeys(str(row[4][0]) for row in found))
    refused = _find_closed(addresses, port)
    if len(refused) == len(addresses):
        return Seen(host=host, port=port, now_ms=now_ms, addresses=addresses, refused=refused)
    status, headers, body, answer_error = _get(host, port, "/healthz", _careless())
    return msgspec.structs.replace(
        look_at_tls(host, port, now_ms),
        addresses=addresses,
        refused=refused,
        status=status,
        headers=headers,
        body=body,
        answer_error=answer_error,
    )


def look_at_tls(host: str, port: int, now_ms: int, authorities: str | None = None) -> Seen:
    """The certificate, whether it is trusted, and the protocols; nothing is asked of the server behind them.

    ``authorities``: a PEM file to trust instead of the system's.
    """
    term, chain = _look_at_certificate(host, port)
    return Seen(
        host=host,
        port=port,
        now_ms=now_ms,
        chain_error=_find_distrust(host, port, authorities),
        term=term,
        chain=chain,
        protocols={name: _offers(host, port, name) for name in (*OLD_PROTOCOLS, *GOOD_PROTOCOLS)},
    )


def offers_http2(host: str, port: int) -> bool:
    """Whether HTTP/2 is agreed on when it is offered (ALPN)."""
    context = _careless()
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with _connect(host, port, context) as connection:
            return connection.selected_alpn_protocol() == "h2"
    except OSError:
        return False


def try_postback(host: str, port: int, path: str, names: tuple[str, str], transaction_id: str) -> Tried:
    """Send a postback that carries a test word for a click id; ``names``: of the click id and the transaction id.

    The transaction id should hold what a proxy that rewrites queries would change.
    """
    query = urlencode({names[0]: "test", names[1]: transaction_id}, quote_via=quote)
    status, headers, _, error = _get(host, port, f"{path}?{query}", ssl.create_default_context())
    return Tried(
        status=status,
        verdict=excerpt(headers.get("postbackd-verdict", ""), 40),
        reason=excerpt(headers.get("postbackd-reason", ""), 40),
        request=excerpt(headers.get("x-request-id", ""), 40),
        error=error,
    )


def _find_closed(addresses: list[str], port: int) -> dict[str, str]:
    closed = {}
    for address in addresses:
        try:
            socket.create_connection((address, port), TIMEOUT_S).close()
        except OSError as error:
            closed[address] = error.strerror or str(error)
    return closed


def _find_distrust(host: str, port: int, authorities: str | None) -> str:
    """Why a client that verifies the chain does not trust it, or nothing.  The name is looked at elsewhere."""
    context = ssl.create_default_context(cafile=authorities)
    context.check_hostname = False
    try:
        with _connect(host, port, context):
            return ""
    except ssl.SSLCertVerificationError as error:
        return str(error.verify_message)
    except OSError as error:
        return f"the handshake fails: {_words(error)}"


def _look_at_certificate(host: str, port: int) -> tuple[Term | None, int]:
    """The server's certificate, trusted or not, and how many were sent if that can be told."""
    try:
        with _connect(host, port, _careless()) as connection:
            shown = connection.getpeercert(binary_form=True)
            sent: Sequence[object] = getattr(connection, "get_unverified_chain", list)()  # Python 3.13
    except OSError:
        return None, 0
    return (term_of(x509.load_der_x509_certificate(shown)), len(sent)) if shown else (None, 0)


def _offers(host: str, port: int, version: str) -> bool | None:
    context = _careless()
    context.set_ciphers("ALL:@SECLEVEL=0")  # the old versions sign with SHA-1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # old ones are looked for
            context.minimum_version = context.maximum_version = _VERSIONS[version]
    except ValueError:  # this OpenSSL was built without it
        return None
    try:
        with _connect(host, port, context):
            return True
    except OSError:
        return False


def _get(host: str, port: int, target: str, context: ssl.SSLContext) -> tuple[int, dict[str, str], str, str]:
    """Status, headers, the beginning of the body, and what went wrong."""
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
    try:
        connection.request("GET", target, headers={"User-Agent": "postbackd-doctor"})
        answer = connection.getresponse()
        body = answer.read(_LARGEST_BODY).decode("utf-8", "replace")
        headers = {name.lower(): value for name, value in answer.getheaders()}
    except (OSError, http.client.HTTPException) as error:
        return 0, {}, "", _words(error)
    finally:
        connection.close()
    return answer.status, headers, body, ""


def _careless() -> ssl.SSLContext:
    """Looks at whatever is there; nothing secret is ever sent by it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _connect(host: str, port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection((host, port), TIMEOUT_S)
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error)
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    return f"{type(error).__name__} {error}".strip()[:200]
