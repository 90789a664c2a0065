"""One malformed connection before its transaction ids are known, and the few ways to write a request head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

CRLF = b"\r\n"
END = b"\r\n\r\n"

Build = Callable[[bytes, bytes], bytes]
"""Path of the outer request, whole inner request -> the bytes of the connection."""


@dataclass(frozen=True)
class Draft:
    """A case before its transaction ids are known: ``build(outer path, inner request)`` gives the bytes."""

    family: str
    name: str
    build: Build
    refuse: bool = True
    closes: bool = True


def head(line: bytes, *headers: bytes, host: bytes = b"Host: outer.example") -> bytes:
    lines = (line, host, *headers) if host else (line, *headers)
    return CRLF.join(lines) + END


def post(path: bytes, *headers: bytes) -> bytes:
    return head(b"POST " + path + b" HTTP/1.1", b"Content-Type: application/x-www-form-urlencoded", *headers)


def get(path: bytes, *headers: bytes) -> bytes:
    return head(b"GET " + path + b" HTTP/1.1", *headers)


def length(size: int) -> bytes:
    return b"Content-Length: %d" % size
