"""Chunked bodies that RFC 9112, 7.1 does not allow, and some that it does."""

from __future__ import annotations

from collections.abc import Iterator

from tests.trust.corpus.smuggling.draft import Build, Draft, post


def drafts() -> Iterator[Draft]:
    """All cases of this module."""
    yield from _chunk_sizes()
    yield from _chunk_endings()


# --- chunks ---------------------------------------------------------------------------------------

_BAD_SIZES: tuple[tuple[str, bytes], ...] = (
    ("hex prefix", b"0x5"),
    ("plus", b"+5"),
    ("minus", b"-5"),
    ("leading space", b" 5"),
    ("leading tab", b"\t5"),
    ("underscore", b"0_5"),
    ("letter", b"5g"),
    ("word", b"five"),
    ("empty", b""),
    ("only space", b" "),
    ("quoted", b'"5"'),
    ("comma", b"5,0"),
    ("dot", b"5.0"),
    ("nul front", b"\x005"),
    ("nul end", b"5\x00"),
    ("vertical tab", b"5\x0b"),
    ("wraps 64 bits", b"10000000000000005"),
    ("wraps 64 bits far", b"f0000000000000000000000000000005"),
    ("two numbers", b"5 5"),
    ("bare lf in extension", b"5;a\nb"),
    ("bare cr in extension", b"5;a\rb"),
    ("nul in extension", b"5;a\x00b"),
    ("bare cr", b"5\rx"),
    ("full width digit", "\uff15".encode()),
)
"""Size lines of a chunk of five bytes that RFC 9112, 7.1 does not allow."""


_LONG = b"5;" + b"a" * 70_000


def _chunk_sizes() -> Iterator[Draft]:
    for name, size in _BAD_SIZES:
        yield Draft("chunk size", f"chunk size {name}", _odd_size(size))
        yield Draft("chunk size", f"last chunk {name}", _odd_last_size(size.replace(b"5", b"0")))
    for size in (
        b"ffffffffffffffff",
        b"8000000000000005",
    ):  # a number: the server may wait for its data, 10 s
        name = f"chunk size {size.decode()}"
        yield Draft("chunk size", name, _odd_size(size), closes=False)
    for name, size in (
        ("zeros", b"0005"),
        ("extension", b"5;a=b"),
        ("quoted extension", b'5;a="b;c"'),
        ("long extension", _LONG),
    ):
        yield Draft("chunk size", f"chunk size legal {name}", _inner_in_second_chunk(size), False, False)


def _chunked(path: bytes) -> bytes:
    return post(path, b"Transfer-Encoding: chunked")


def _odd_size(size: bytes) -> Build:
    return lambda path, inner: _chunked(path) + size + b"\r\nabcde\r\n0\r\n\r\n" + inner


def _odd_last_size(size: bytes) -> Build:
    return lambda path, inner: _chunked(path) + b"5\r\nabcde\r\n" + size + b"\r\n\r\n" + inner


def _inner_in_second_chunk(size: bytes) -> Build:
    def build(path: bytes, inner: bytes) -> bytes:
        return _chunked(path) + size + b"\r\na=b&c\r\n%x\r\n" % len(inner) + inner + b"\r\n0\r\n\r\n"

    return build


_BAD_ENDINGS: tuple[tuple[str, bytes], ...] = (
    ("lf after size", b"5\nabcde\r\n0\r\n\r\n"),
    ("lf after data", b"5\r\nabcde\n0\r\n\r\n"),
    ("cr after data", b"5\r\nabcde\r0\r\n\r\n"),
    ("nothing after data", b"5\r\nabcde0\r\n\r\n"),
    ("two bytes after data", b"5\r\nabcdexx0\r\n\r\n"),
    ("data too long", b"5\r\nabcdefg\r\n0\r\n\r\n"),
    ("crlf crlf after data", b"5\r\nabcde\r\n\r\n0\r\n\r\n"),
    ("all lf", b"5\nabcde\n0\n\n"),
    ("last chunk lf", b"5\r\nabcde\r\n0\n\r\n"),
    ("last chunk lf lf", b"5\r\nabcde\r\n0\n\n"),
    ("end by lf", b"5\r\nabcde\r\n0\r\n\n"),
    ("end by cr", b"5\r\nabcde\r\n0\r\n\rx"),
    ("extension with lf", b"5;\nabcde\r\n0\r\n\r\n"),
    ("last extension with lf", b"5\r\nabcde\r\n0;x\n\r\n"),
    ("trailer folded", b"5\r\nabcde\r\n0\r\nX-A: b\r\n c\r\n\r\n"),
    ("trailer without colon", b"5\r\nabcde\r\n0\r\nX-A\r\n\r\n"),
    ("trailer bare lf", b"5\r\nabcde\r\n0\r\nX-A: b\nX-B: c\r\n\r\n"),
    ("trailer nul", b"5\r\nabcde\r\n0\r\nX-A: \x00\r\n\r\n"),
    ("trailer space name", b"5\r\nabcde\r\n0\r\nX A: b\r\n\r\n"),
)


def _chunk_endings() -> Iterator[Draft]:
    for name, body in _BAD_ENDINGS:
        yield Draft("chunk ending", f"chunk ending {name}", _with_body(body))
    trailers = b"5\r\nabcde\r\n0\r\n" + b"X-A: b\r\n" * 5_000 + b"\r\n"
    yield Draft("chunk ending", "5,000 trailers", _with_body(trailers))


def _with_body(body: bytes) -> Build:
    return lambda path, inner: _chunked(path) + body + inner
