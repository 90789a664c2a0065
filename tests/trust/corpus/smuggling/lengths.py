"""Bodies whose length is said twice, wrongly or in an unknown way: Content-Length and Transfer-Encoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.trust.corpus.smuggling.draft import CRLF, Build, Draft, get, head, length, post


def drafts() -> Iterator[Draft]:
    """All cases of this module."""
    yield from _both_lengths()
    yield from _transfer_encoding_alone()
    yield from _content_lengths()
    yield from _double_content_lengths()


# --- Content-Length and Transfer-Encoding together ------------------------------------------------

_TE_LINES: tuple[tuple[str, bytes], ...] = (
    ("plain", b"Transfer-Encoding: chunked"),
    ("lower", b"transfer-encoding: chunked"),
    ("upper", b"TRANSFER-ENCODING: CHUNKED"),
    ("mixed", b"Transfer-Encoding: ChUnKeD"),
    ("no-space", b"Transfer-Encoding:chunked"),
    ("tab", b"Transfer-Encoding:\tchunked"),
    ("two-spaces", b"Transfer-Encoding:  chunked"),
    ("trailing-space", b"Transfer-Encoding: chunked "),
    ("trailing-tab", b"Transfer-Encoding: chunked\t"),
    ("space-before-colon", b"Transfer-Encoding : chunked"),
    ("tab-before-colon", b"Transfer-Encoding\t: chunked"),
    ("vertical-tab", b"Transfer-Encoding: \x0bchunked"),
    ("form-feed", b"Transfer-Encoding: \x0cchunked"),
    ("nul-before", b"Transfer-Encoding: \x00chunked"),
    ("nul-after", b"Transfer-Encoding: chunked\x00"),
    ("non-ascii", b"Transfer-Encoding: \xffchunked"),
    ("quoted", b'Transfer-Encoding: "chunked"'),
    ("single-quoted", b"Transfer-Encoding: 'chunked'"),
    ("prefixed", b"Transfer-Encoding: xchunked"),
    ("suffixed", b"Transfer-Encoding: chunkedx"),
    ("parameter", b"Transfer-Encoding: chunked;q=1"),
    ("comma", b"Transfer-Encoding: chunked,"),
    ("leading-comma", b"Transfer-Encoding: ,chunked"),
    ("identity", b"Transfer-Encoding: identity"),
    ("identity-chunked", b"Transfer-Encoding: identity, chunked"),
    ("chunked-identity", b"Transfer-Encoding: chunked, identity"),
    ("chunked-chunked", b"Transfer-Encoding: chunked, chunked"),
    ("gzip-chunked", b"Transfer-Encoding: gzip, chunked"),
    ("chunked-gzip", b"Transfer-Encoding: chunked, gzip"),
    ("cow", b"Transfer-Encoding: cow"),
    ("empty", b"Transfer-Encoding:"),
    ("folded", b"Transfer-Encoding:\r\n chunked"),
    ("folded-tab", b"Transfer-Encoding:\r\n\tchunked"),
    ("twice", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
    ("twice-reversed", b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"),
    ("twice-same", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    ("after-bare-lf", b"X-A: b\nTransfer-Encoding: chunked"),
    ("after-bare-cr", b"X-A: b\rTransfer-Encoding: chunked"),
    ("ended-by-lf", b"Transfer-Encoding: chunked\nX-A: b"),
    ("ended-by-cr", b"Transfer-Encoding: chunked\rX-A: b"),
    ("name-split", b"Transfer-Enc\r\noding: chunked"),
    ("name-with-nul", b"Transfer-\x00Encoding: chunked"),
    ("leading-space", b" Transfer-Encoding: chunked"),
)
"""Ways to write the header: some legal, most not.  Beside a Content-Length every one of them is refused."""


_LEGAL_TE = frozenset(
    ("plain", "lower", "upper", "mixed", "no-space", "tab", "two-spaces", "trailing-space", "trailing-tab")
)
"""The legal ones among them."""


def _both_lengths() -> Iterator[Draft]:
    for name, line in _TE_LINES:
        for order in ("length-first", "length-last"):
            yield Draft("cl.te", f"cl.te {name} {order}", _cl_te(line, order), refuse=True)
            yield Draft("te.cl", f"te.cl {name} {order}", _te_cl(line, order), refuse=True)
    yield from _almost_transfer_encoding()


def _ordered(te: bytes, length: bytes, order: str) -> tuple[bytes, bytes]:
    return (length, te) if order == "length-first" else (te, length)


def _cl_te(te: bytes, order: str) -> Build:
    """By Content-Length the inner request is body; by chunks the body ends before it."""

    def build(path: bytes, inner: bytes) -> bytes:
        body = b"0\r\n\r\n" + inner
        return post(path, *_ordered(te, length(len(body)), order)) + body

    return build


def _te_cl(te: bytes, order: str) -> Build:
    """By chunks the inner request is data; by Content-Length the body ends after the size line."""

    def build(path: bytes, inner: bytes) -> bytes:
        size = b"%x\r\n" % len(inner)
        return post(path, *_ordered(te, length(len(size)), order)) + size + inner + b"\r\n0\r\n\r\n"

    return build


def _almost_transfer_encoding() -> Iterator[Draft]:
    """Names that a gateway may turn into Transfer-Encoding; for us they are other headers."""
    for name in ("Transfer_Encoding", "Transfer.Encoding", "X-Transfer-Encoding", "TransferEncoding", "TE"):
        build = _cl_te(name.encode() + b": chunked", "length-first")
        yield Draft("cl.te", f"cl.te {name}", build, refuse=False, closes=False)


def _transfer_encoding_alone() -> Iterator[Draft]:
    """Without a length, anything but ``chunked`` leaves the end of the body unknown (RFC 9112, 6.3)."""
    for name, line in _TE_LINES:
        if name in _LEGAL_TE:
            yield Draft("te", f"te {name}", _inner_as_chunk(line), refuse=False, closes=False)
        else:
            yield Draft("te", f"te {name}", _inner_after_chunks(line), refuse=True)
    yield Draft("te", "te http/1.0", _te_in_http_1_0, refuse=True)


def _inner_as_chunk(te: bytes) -> Build:
    return lambda path, inner: post(path, te) + b"%x\r\n" % len(inner) + inner + b"\r\n0\r\n\r\n"


def _inner_after_chunks(te: bytes) -> Build:
    return lambda path, inner: post(path, te) + b"0\r\n\r\n" + inner


def _te_in_http_1_0(path: bytes, inner: bytes) -> bytes:
    line = b"POST " + path + b" HTTP/1.0"
    return head(line, b"Connection: keep-alive", b"Transfer-Encoding: chunked") + b"0\r\n\r\n" + inner


# --- Content-Length -------------------------------------------------------------------------------

_BAD_LENGTHS: tuple[tuple[str, str], ...] = (
    ("plus", "+{n}"),
    ("minus", "-{n}"),
    ("minus-zero", "-0"),
    ("plus-zero", "+0"),
    ("hex", "0x{n:x}"),
    ("hex-zero", "0x0"),
    ("octal", "0o{n:o}"),
    ("underscore", "{n}_0"),
    ("underscore-inside", "0_0"),
    ("fraction", "{n}.0"),
    ("zero-fraction", "0.0"),
    ("exponent", "0e1"),
    ("inner-space", "{n} 0"),
    ("inner-space-zero", "0 {n}"),
    ("inner-tab", "0\t{n}"),
    ("letters", "{n}a"),
    ("letters-zero", "0a"),
    ("word", "zero"),
    ("empty", ""),
    ("spaces", "   "),
    ("quoted", '"{n}"'),
    ("quoted-zero", '"0"'),
    ("list-differs", "0, {n}"),
    ("list-differs-reversed", "{n}, 0"),
    ("comma-end", "{n},"),
    ("comma-front", ",{n}"),
    ("semicolon", "{n};"),
    ("nan", "NaN"),
    ("two-to-the-64", "18446744073709551616"),
    ("two-to-the-64-and-more", "184467440737095516160"),
    ("two-to-the-63", "9223372036854775808"),
    ("forty-digits", "9" * 40),
    ("nul-end", "0\x00"),
    ("nul-front", "\x000"),
    ("vertical-tab", "\x0b0"),
    ("form-feed", "0\x0c"),
    ("folded", "\r\n 0"),
    ("bare-lf", "0\nX-A: b"),
    ("bare-cr", "0\rX-A: b"),
)
"""Values that are no number in the sense of RFC 9110, 8.6: whatever they mean to somebody else, refuse."""


_ODD_LENGTH_NAMES = (
    "Content-Length ",
    "Content-Length\t",
    " Content-Length",
    "Content\x00-Length",
    "Content Length",
)


def _content_lengths() -> Iterator[Draft]:
    for name, form in _BAD_LENGTHS:
        yield Draft("cl", f"cl post {name}", _bad_length(form, post))
        yield Draft("cl", f"cl get {name}", _bad_length(form, get))
    for number, digits in enumerate(("\uff10", "\u0660", "\u00b2", "\u0967")):
        yield Draft("cl", f"cl digit of another script {number}", _bad_length(digits, post))
    for odd in _ODD_LENGTH_NAMES:
        yield Draft("cl", f"cl name {odd!r}", _odd_length_name(odd.encode()))


def _bad_length(form: str, method: Callable[..., bytes]) -> Build:
    def build(path: bytes, inner: bytes) -> bytes:
        value = form.format(n=len(inner)) if "{" in form else form
        return method(path, b"Content-Length: " + value.encode()) + inner

    return build


def _odd_length_name(name: bytes) -> Build:
    return lambda path, inner: post(path, name + b": %d" % len(inner)) + inner


def _double_content_lengths() -> Iterator[Draft]:
    for name, first, second in (
        ("zero then all", "0", "{n}"),
        ("all then zero", "{n}", "0"),
        ("one then all", "1", "{n}"),
        ("all then plus", "{n}", "+{n}"),
        ("all then empty", "{n}", ""),
        ("empty then all", "", "{n}"),
        ("all then word", "{n}", "x"),
        ("leading zero differs", "{n}", "00"),
    ):
        for between in (b"", b"X-Between: 1\r\n"):
            where = "apart" if between else "adjacent"
            yield Draft("cl.cl", f"cl.cl {name} {where}", _two_lengths(first, second, between))
    yield Draft("cl.cl", "cl.cl same", _two_lengths("{n}", "{n}", b""), refuse=False, closes=False)
    yield Draft("cl.cl", "cl.cl case", _two_lengths("{n}", "0", b"", b"content-length"))


def _two_lengths(first: str, second: str, between: bytes, second_name: bytes = b"Content-Length") -> Build:
    def build(path: bytes, inner: bytes) -> bytes:
        one = b"Content-Length: " + first.format(n=len(inner)).encode()
        two = second_name + b": " + second.format(n=len(inner)).encode()
        return post(path, one + CRLF + between + two) + inner

    return build
