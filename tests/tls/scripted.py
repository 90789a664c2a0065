"""A scripted authority: as much of RFC 8555 and RFC 9773 as an order needs, and faults when the test wants some.

It checks signatures and nonces like a real one.  It validates nothing; pebble does, in the tests that need it.
"""

from __future__ import annotations

import base64
import hmac
import json
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.tls.issuer import DAY_S, Issuer

Answer = tuple[int, dict[str, str], Any]


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def problem(kind: str, status: int, detail: str = "in words", **headers: str) -> Answer:
    return status, headers, {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail, "status": status}


class Scripted:
    """What it answers can be changed while it runs."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.base = ""
        self.asked: Counter[str] = Counter()
        """What was asked for, by the first part of the path."""
        self.orders: list[dict[str, Any]] = []
        """What each new order said."""
        self.nonces: set[str] = set()
        self.faults: dict[str, Callable[[], Answer | None]] = {}
        """First part of the path -> the answer in place of the right one, ``None``: the right one."""
        self.reject_nonces = 0
        """So many good nonces more are refused."""
        self.kinds = ["tls-alpn-01", "http-01"]
        """Of challenge that it offers."""
        self.life_s = 90 * DAY_S
        self.age_s = 60.0
        self.suggests = False
        self.window: tuple[float, float] = (0.0, 0.0)
        self.suggestion_headers: dict[str, str] = {"Retry-After": "21600"}
        self.bindings: dict[str, bytes] = {}
        """Key id -> key, one of which every account needs when there are any."""
        self.accounts: dict[str, dict[str, Any]] = {}
        self.status: dict[str, str] = {}
        self.names: dict[str, list[str]] = {}
        self.certificates: dict[str, bytes] = {}
        self._lock = threading.Lock()

    # --- requests ------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        with self._lock:
            kind, _, rest = path.strip("/").partition("/")
            self.asked[kind] += 1
            fault = self.faults.get(kind, lambda: None)()
            if fault is not None:
                return fault
            if kind == "dir":
                return 200, {}, self._directory()
            if kind == "nonce":
                return 200, {}, b""
            if kind == "ari":
                return self._suggest()
            return self._signed(kind, rest, json.loads(body))

    def _directory(self) -> dict[str, Any]:
        names = {"newNonce": "nonce", "newAccount": "account", "newOrder": "new"}
        found: dict[str, Any] = {name: f"{self.base}/{path}" for name, path in names.items()}
        return found | ({"renewalInfo": f"{self.base}/ari"} if self.suggests else {})

    def _suggest(self) -> Answer:
        start, end = (datetime.fromtimestamp(at, UTC).isoformat() for at in self.window)
        return 200, self.suggestion_headers, {"suggestedWindow": {"start": start, "end": end}}

    def _signed(self, kind: str, rest: str, document: dict[str, str]) -> Answer:
        protected = json.loads(decode(document["protected"]))
        if protected["nonce"] not in self.nonces:
            return problem("badNonce", 400)
        self.nonces.discard(protected["nonce"])
        if self.reject_nonces > 0:
            self.reject_nonces -= 1
            return problem("badNonce", 400)
        if protected["url"] != f"{self.base}/{kind}{'/' if rest else ''}{rest}":
            return problem("unauthorized", 401, "signed for another address")
        key = protected.get("jwk") or self.accounts.get(protected.get("kid", ""))
        if key is None:
            return problem("accountDoesNotExist", 400)
        check_signature(key, document)
        payload = json.loads(decode(document["payload"])) if document["payload"] else None
        handle: Callable[[str, Any, dict[str, Any]], Answer] = getattr(self, f"_{kind}")
        return handle(rest, payload, key)

    def _account(self, rest: str, payload: Any, key: dict[str, Any]) -> Answer:
        assert payload["termsOfServiceAgreed"] is True
        if self.bindings:
            binding = payload.get("externalAccountBinding")
            if binding is None:
                return problem("externalAccountRequired", 403)
            if not self._is_bound(binding, key):
                return problem("unauthorized", 401, "no such key id, or not its key")
        url = next(
            (url for url, known in self.accounts.items() if known == key),
            f"{self.base}/who/{token_urlsafe(6)}",
        )
        self.accounts[url] = key
        return 201, {"Location": url}, {"status": "valid", **payload}

    def _is_bound(self, binding: dict[str, str], key: dict[str, Any]) -> bool:
        """As RFC 8555 section 7.3.4 wants it."""
        protected = json.loads(decode(binding["protected"]))
        assert protected == {"alg": "HS256", "kid": protected["kid"], "url": f"{self.base}/account"}
        assert json.loads(decode(binding["payload"])) == key
        known = self.bindings.get(protected["kid"], b"")
        signed = f"{binding['protected']}.{binding['payload']}".encode()
        return hmac.compare_digest(hmac.digest(known, signed, "sha256"), decode(binding["signature"]))

    def _new(self, rest: str, payload: Any, key: dict[str, Any]) -> Answer:
        self.orders.append(payload)
        number = token_urlsafe(6)
        self.names[number] = [identifier["value"] for identifier in payload["identifiers"]]
        self.status[number] = "pending"
        return 201, {"Location": f"{self.base}/order/{number}"}, self._describe(number)

    def _describe(self, number: str) -> dict[str, Any]:
        return {
            "status": self.status[number],
            "authorizations": [f"{self.base}/authorization/{number}/{name}" for name in self.names[number]],
            "finalize": f"{self.base}/finalize/{number}",
            "certificate": f"{self.base}/certificate/{number}",
        }

    def _order(self, rest: str, payload: Any, key: dict[str, Any]) -> Answer:
        if rest not in self.status:
            return problem("malformed", 404, "no such order")
        return 200, {}, self._describe(rest)

    def _authorization(self, rest: str, payload: Any, key: dict[str, Any]) -> Answer:
        number, _, name = rest.partition("/")
        status = "pending" if self.status[number] == "pending" else "valid"
        challenge = {
            "url": f"{self.base}/challenge/{rest}", "token": f"token-of-{number}-{name}"[:60],
            "status": status,
        }  # fmt: skip
        other = {"type": "dns-01", "url": "https://nowhere.example/", "token": "x", "status": "pending"}
        challenges = [other, *({**challenge, "type": kind} for kind in self.kinds)]
        return 200, {}, {"identifier": {"value": name}, "status": status, "challenges": challenges}

    def _challenge(self, rest: str, payload: Any, key: dict[str, Any]) -> Answer:
        assert payload == {}
        self.status[rest.partition("/")[0]] = "ready"
        return 200, {}, {"status": "processing"}

    def _finalize(self, rest: str, payload: Any, key: dict[str, Any]) -> Answer:
        request = x509.load_der_x509_csr(decode(payload["csr"]))
        wanted = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert sorted(wanted.get_values_for_type(x509.DNSName)) == sorted(self.names[rest])
        public = request.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
        self.certificates[rest] = self.issuer.sign(
            public, self.names[rest], life_s=self.life_s, age_s=self.age_s
        )
        self.status[rest] = "valid"
        return 200, {}, self._describe(rest) | {"status": "processing"}

    def _certificate(self, rest: str, payload: Any, key: dict[str, Any]) -> Answer:
        return 200, {"Content-Type": "application/pem-certificate-chain"}, self.certificates[rest]


def check_signature(key: dict[str, Any], document: dict[str, str]) -> None:
    """Raises when it is not the key's."""
    x, y = (int.from_bytes(decode(key[name]), "big") for name in ("x", "y"))
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    raw = decode(document["signature"])
    signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    public.verify(
        signature, f"{document['protected']}.{document['payload']}".encode(), ec.ECDSA(hashes.SHA256())
    )


@contextmanager
def running(directory: Path, issuer: Issuer | None = None) -> Iterator[tuple[Scripted, Path]]:
    """The authority and the file of the certificate that proves it."""
    directory.mkdir(parents=True, exist_ok=True)
    issuer = issuer or Issuer()
    scripted = Scripted(issuer)
    chain, key = issuer.make("localhost", life_s=3900 * DAY_S)
    (directory / "authority.pem").write_bytes(key + chain)
    (directory / "root.pem").write_bytes(issuer.root)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "authority.pem")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def do_HEAD(self) -> None:
            self._serve()

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, document = scripted.answer(self.command, self.path, body)
            text = document if isinstance(document, bytes) else json.dumps(document).encode()
            nonce = token_urlsafe(12)
            scripted.nonces.add(nonce)
            self.send_response(status)
            for name, value in {"Replay-Nonce": nonce, "Content-Length": str(len(text)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    scripted.base = f"https://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield scripted, directory / "root.pem"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
