"""Odd but legal requests: the outer one may be executed, and the inner one is body or comes after the end."""

from __future__ import annotations

from collections.abc import Iterator

from tests.trust.corpus.smuggling.draft import Build, Draft, get, head, length, post


def drafts() -> Iterator[Draft]:
    """All cases of this module."""
    yield from _bodies_that_stay_bodies()
    yield from _hop_by_hop()
    yield from _closed_connections()


def _body(line: bytes, *headers: bytes) -> Build:
    """The inner request is the body, of the length that is said."""

    def build(path: bytes, inner: bytes) -> bytes:
        return head(line.replace(b"%s", path), *headers, length(len(inner))) + inner

    return build


_METHODS = (
    "GET",
    "HEAD",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "PROPFIND",
    "M-SEARCH",
    "PURGE",
    "FOO",
)


_PATHS = (
    "/",
    "/nothing",
    "/c/nothing",
    "/healthz",
    "/readyz",
    "/p/nothing",
    "*",
    "//p/x",
    "/p/../healthz",
)


_TARGETS = (
    b"http://other.example%s",
    b"http://user@other.example%s",
    b"//other.example%s",
    b"%s#fragment",
)


_TYPES = (
    "application/json",
    "multipart/form-data; boundary=x",
    "text/plain",
    "",
    "application/x-ndjson",
)


def _bodies_that_stay_bodies() -> Iterator[Draft]:
    for method in _METHODS:
        yield _legal(f"body of {method}", _body(method.encode() + b" %s HTTP/1.1"))
    for path in _PATHS:
        yield _legal(f"body for {path}", _body(b"POST " + path.encode() + b" HTTP/1.1"))
    for target in _TARGETS:
        yield _legal(f"target {target!r}", _body(b"POST " + target + b" HTTP/1.1"))
    for kind in _TYPES:
        yield _legal(f"body of type {kind!r}", _body(b"POST %s HTTP/1.1", b"Content-Type: " + kind.encode()))
    for expect in ("100-continue", "100-Continue", "200-maybe", "", "100-continue, 100-continue"):
        yield _legal(f"expect {expect!r}", _body(b"POST %s HTTP/1.1", b"Expect: " + expect.encode()))
    for upgrade in ("h2c", "websocket", "TLS/1.0", "HTTP/2.0"):
        yield _legal(f"upgrade {upgrade}", _upgrade(upgrade))
    for value in ("000{n}", " {n} ", "\t{n}\t"):
        yield _legal(f"length {value!r}", _legal_length(value))


def _legal(name: str, build: Build, closes: bool = False) -> Draft:
    return Draft("legal", name, build, refuse=False, closes=closes)


def _upgrade(protocol: str) -> Build:
    asked = (
        b"Connection: Upgrade, HTTP2-Settings",
        b"Upgrade: " + protocol.encode(),
        b"HTTP2-Settings: AAMAAABkAAQ",
    )
    return _body(b"POST %s HTTP/1.1", *asked)


def _legal_length(value: str) -> Build:
    return lambda path, inner: post(path, b"Content-Length: " + value.format(n=len(inner)).encode()) + inner


_HINTS = (
    "Proxy-Connection: keep-alive",
    "Keep-Alive: timeout=99999",
    "X-HTTP-Method-Override: GET",
    "X-Original-URL: /healthz",
    "X-Forwarded-Host: inner.example",
    "Range: bytes=0-",
    "TE: trailers",
)


def _hop_by_hop() -> Iterator[Draft]:
    """A gateway that takes ``Connection`` at its word removes the header that says where the body ends."""
    for name in ("Content-Length", "Host", "Transfer-Encoding", "Content-Type", "close, Content-Length"):
        yield _legal(f"connection {name}", _body(b"POST %s HTTP/1.1", b"Connection: " + name.encode()))
    for header in _HINTS:
        yield _legal(header, _body(b"POST %s HTTP/1.1", header.encode()))


def _closed_connections() -> Iterator[Draft]:
    """The outer request ends the connection, so what follows it must not be read as a request."""
    for token in ("close", "Close", "close, close", "foo, close", "keep-alive, close"):
        yield _legal(f"inner after connection {token}", _after_close(token), closes=True)
    yield _legal("inner after rtsp/1.0", _after_rtsp, closes=True)
    yield _legal("inner after http/1.0", _after_http_1_0, closes=True)
    yield _legal("inner after http/1.0 close", _after_http_1_0_close, closes=True)


def _after_close(token: str) -> Build:
    return lambda path, inner: get(path, b"Connection: " + token.encode()) + inner


def _after_rtsp(path: bytes, inner: bytes) -> bytes:
    """The parser takes it for a request of version 1.0; that ends the connection, so nothing can hide behind it."""
    return head(b"GET " + path + b" RTSP/1.0") + inner


def _after_http_1_0(path: bytes, inner: bytes) -> bytes:
    return head(b"GET " + path + b" HTTP/1.0") + inner


def _after_http_1_0_close(path: bytes, inner: bytes) -> bytes:
    return head(b"GET " + path + b" HTTP/1.0", b"Connection: close") + inner
