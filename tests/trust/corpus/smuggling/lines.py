"""Request lines and header lines that are no request lines and header lines, and those beyond the limits."""

from __future__ import annotations

from collections.abc import Iterator

from tests.trust.corpus.smuggling.draft import CRLF, END, Build, Draft, get, head, length, post


def drafts() -> Iterator[Draft]:
    """All cases of this module."""
    yield from _line_ends()
    yield from _header_names()
    yield from _header_values()
    yield from _hosts()
    yield from _request_lines()
    yield from _limits()


def _then(raw: bytes) -> Build:
    """The same bytes whatever the path, then the inner request."""
    return lambda path, inner: raw + inner


# --- line ends ------------------------------------------------------------------------------------


def _line_ends() -> Iterator[Draft]:
    for end_name, end in (
        ("lf", b"\n"),
        ("cr", b"\r"),
        ("crcr", b"\r\r\n"),
        ("nul", b"\x00\r\n"),
        ("lfcr", b"\n\r"),
    ):
        for place in ("request line", "first header", "last header", "all"):
            yield Draft("line end", f"line end {end_name} {place}", _line_end(place, end))
    for name, end in (("lf lf", b"\n\n"), ("crlf lf", b"\r\n\n"), ("lf crlf", b"\n\r\n"), ("cr cr", b"\r\r")):
        yield Draft("line end", f"head ended by {name}", _head_end(end))


def _line_end(place: str, end: bytes) -> Build:
    def build(path: bytes, inner: bytes) -> bytes:
        ends = {
            "request line": (end, CRLF, CRLF, CRLF),
            "first header": (CRLF, end, CRLF, CRLF),
            "last header": (CRLF, CRLF, end, CRLF),
            "all": (end, end, end, end),
        }[place]
        lines = (b"GET " + path + b" HTTP/1.1", b"Host: outer.example", b"X-A: b", b"")
        return b"".join(line + end for line, end in zip(lines, ends, strict=True)) + inner

    return build


def _head_end(end: bytes) -> Build:
    return lambda path, inner: b"GET " + path + b" HTTP/1.1\r\nHost: outer.example" + end + inner


# --- headers --------------------------------------------------------------------------------------

_BAD_NAMES: tuple[tuple[str, bytes], ...] = (
    ("space inside", b"X A: b"),
    ("space before colon", b"X-A : b"),
    ("tab before colon", b"X-A\t: b"),
    ("leading space", b" X-A: b"),
    ("leading tab", b"\tX-A: b"),
    ("empty", b": b"),
    ("no colon", b"X-A"),
    ("no colon with space", b"X-A b"),
    ("parenthesis", b"X(A): b"),
    ("slash", b"X/A: b"),
    ("at sign", b"X@A: b"),
    ("quotes", b'"X-A": b'),
    ("bracket", b"X[A]: b"),
    ("comma", b"X,A: b"),
    ("semicolon", b"X;A: b"),
    ("equals", b"X=A: b"),
    ("nul", b"X\x00A: b"),
    ("bell", b"X\x07A: b"),
    ("delete", b"X\x7fA: b"),
    ("latin 1", b"X\xe9A: b"),
    ("utf 8", "X\u00e9A: b".encode()),
    ("escape", b"X\x1bA: b"),
    ("bare cr", b"X\rA: b"),
    ("bare lf", b"X\nA: b"),
)


def _header_names() -> Iterator[Draft]:
    for name, line in _BAD_NAMES:
        yield Draft("header name", f"header name {name} last", _with_header(line))
        yield Draft("header name", f"header name {name} first", _with_first_header(line))


def _with_header(line: bytes) -> Build:
    return lambda path, inner: get(path, line) + inner


def _with_first_header(line: bytes) -> Build:
    return lambda path, inner: head(b"GET " + path + b" HTTP/1.1", b"Host: outer.example", host=line) + inner


def _header_values() -> Iterator[Draft]:
    for name, value in (
        ("nul", b"a\x00b"),
        ("bare cr", b"a\rb"),
        ("bare lf", b"a\nb"),
        ("folded", b"a\r\n b"),
        ("folded tab", b"a\r\n\tb"),
        ("folded empty", b"a\r\n \r\n b"),
        ("cr at end", b"a\r"),
        ("bell", b"a\x07b"),
        ("escape", b"a\x1bb"),
        ("delete", b"a\x7fb"),
    ):
        yield Draft("header value", f"header value {name}", _with_header(b"X-A: " + value))
    for header in (b"Host", b"Connection", b"Cookie", b"User-Agent", b"Expect"):
        yield Draft(
            "header value", f"folded {header.decode()}", _with_header(header + b": a\r\n Content-Length: 5")
        )


# --- Host -----------------------------------------------------------------------------------------


def _hosts() -> Iterator[Draft]:
    for name, lines in (
        ("missing", b""),
        ("double same", b"Host: a.example\r\nHost: a.example"),
        ("double differs", b"Host: a.example\r\nHost: b.example"),
        ("double in other case", b"Host: a.example\r\nhOsT: a.example"),
        ("double apart", b"Host: a.example\r\nX-A: b\r\nHost: a.example"),
        ("three", b"Host: a\r\nHost: a\r\nHost: a"),
        ("double empty", b"Host:\r\nHost:"),
        ("space before colon", b"Host : a.example"),
        ("leading space", b" Host: a.example"),
        ("folded", b"Host:\r\n a.example"),
        ("nul", b"Host: a\x00.example"),
        ("bare lf", b"Host: a\nHost: b"),
        ("list", b"Host: a.example, b.example"),
        ("space inside", b"Host: a.example b.example"),
        ("user", b"Host: user@a.example"),
        ("path", b"Host: a.example/path"),
        ("bad port", b"Host: a.example:80x"),
        ("control", b"Host: a\x01.example"),
    ):
        yield Draft("host", f"host {name} get", _host(b"GET", lines))
        yield Draft("host", f"host {name} post", _host(b"POST", lines))


def _host(method: bytes, lines: bytes) -> Build:
    def build(path: bytes, inner: bytes) -> bytes:
        other = b"Content-Length: 0" if method == b"POST" else b"Accept: */*"
        return head(method + b" " + path + b" HTTP/1.1", other, host=lines) + inner

    return build


# --- request lines --------------------------------------------------------------------------------

_BAD_LINES: tuple[tuple[str, bytes], ...] = (
    ("no version", b"GET %s"),
    ("no version but a space", b"GET %s "),
    ("version 0.9", b"GET %s HTTP/0.9"),
    ("version 1.2", b"GET %s HTTP/1.2"),
    ("version 2.0", b"GET %s HTTP/2.0"),
    ("version 3.0", b"GET %s HTTP/3.0"),
    ("version 9.9", b"GET %s HTTP/9.9"),
    ("version 1", b"GET %s HTTP/1"),
    ("version 1.", b"GET %s HTTP/1."),
    ("version .1", b"GET %s HTTP/.1"),
    ("version 1.1.1", b"GET %s HTTP/1.1.1"),
    ("version 01.1", b"GET %s HTTP/01.1"),
    ("version 1.01", b"GET %s HTTP/1.01"),
    ("version 1,1", b"GET %s HTTP/1,1"),
    ("version 1.10", b"GET %s HTTP/1.10"),
    ("version +1.1", b"GET %s HTTP/+1.1"),
    ("version lower", b"GET %s http/1.1"),
    ("version mixed", b"GET %s Http/1.1"),
    ("version misspelt", b"GET %s HTP/1.1"),
    ("version long", b"GET %s HTTP/1.111111111111111"),
    ("version letters", b"GET %s HTTP/one.one"),
    ("version space inside", b"GET %s HTTP /1.1"),
    ("version space in number", b"GET %s HTTP/1. 1"),
    ("version then word", b"GET %s HTTP/1.1 again"),
    ("version twice", b"GET %s HTTP/1.1 HTTP/1.1"),
    ("version nul", b"GET %s HTTP/1.1\x00"),
    ("other protocol", b"GET %s ICE/1.0"),
    ("shtp", b"GET %s SHTTP/1.3"),
    ("tabs", b"GET\t%s\tHTTP/1.1"),
    ("tab before version", b"GET %s\tHTTP/1.1"),
    ("vertical tab", b"GET\x0b%s\x0bHTTP/1.1"),
    ("form feed", b"GET %s\x0cHTTP/1.1"),
    ("leading space", b" GET %s HTTP/1.1"),
    ("leading tab", b"\tGET %s HTTP/1.1"),
    ("leading nul", b"\x00GET %s HTTP/1.1"),
    ("byte order mark", b"\xef\xbb\xbfGET %s HTTP/1.1"),
    ("method with nul", b"G\x00ET %s HTTP/1.1"),
    ("method with space", b"GE T %s HTTP/1.1"),
    ("method with colon", b"GET: %s HTTP/1.1"),
    ("method with slash", b"G/T %s HTTP/1.1"),
    ("method latin 1", b"G\xcaT %s HTTP/1.1"),
    ("method lower", b"get %s HTTP/1.1"),
    ("method quoted", b'"GET" %s HTTP/1.1'),
    ("method missing", b" %s HTTP/1.1"),
    ("target missing", b"GET HTTP/1.1"),
    ("target missing, two spaces", b"GET  HTTP/1.1"),
    ("target with space", b"GET %s&a=b c HTTP/1.1"),
    ("target with tab", b"GET %s&a=b\tc HTTP/1.1"),
    ("target with nul", b"GET %s&a=\x00 HTTP/1.1"),
    ("target with bare cr", b"GET %s&a=\rb HTTP/1.1"),
    ("target with bare lf", b"GET %s&a=\nb HTTP/1.1"),
    ("target with delete", b"GET %s&a=\x7f HTTP/1.1"),
    ("target with bell", b"GET %s&a=\x07 HTTP/1.1"),
    ("target relative", b"GET p%s HTTP/1.1"),
    ("target backslash", b"GET \\%s HTTP/1.1"),
    ("http/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM"),
    ("connect", b"CONNECT inner.example:80 HTTP/1.1"),
    ("smtp", b"EHLO a.example"),
    ("tls hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ("proxy protocol", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2"),
    ("proxy protocol 2", b"\r\n\r\n\x00\r\nQUIT\n!\x11\x00\x0c"),
)
"""First lines that RFC 9112, 3 does not allow, or that ask for another protocol."""


def _request_lines() -> Iterator[Draft]:
    for name, line in _BAD_LINES:
        yield Draft("request line", f"request line {name}", _line(line))


def _line(line: bytes) -> Build:
    return lambda path, inner: head(line.replace(b"%s", path)) + inner


# --- limits ---------------------------------------------------------------------------------------


def _limits() -> Iterator[Draft]:
    for size in (9_000, 20_000, 70_000, 1_000_000):
        yield Draft("limit", f"target of {size} bytes", _long_target(size))
        yield Draft(
            "limit", f"method of {size} bytes", _then(b"G" * size + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
        )
        yield Draft("limit", f"header value of {size} bytes", _with_header(b"X-A: " + b"a" * size))
        yield Draft("limit", f"header name of {size} bytes", _with_header(b"X" * size + b": a"))
        yield Draft("limit", f"spaces of {size} bytes", _spaces(size), refuse=False, closes=False)
    for count in (65, 100, 1_000, 10_000):
        yield Draft("limit", f"{count} headers", _many_headers(count))
    for count in (100, 10_000):
        yield Draft("limit", f"{count} empty headers", _with_header(CRLF.join([b"X:"] * count)))
    yield Draft("limit", "a body beyond the limit", _huge_body)
    yield Draft("limit", "a chunk beyond the limit", _huge_chunk, closes=False)  # waits for the chunk, 10 s


def _long_target(size: int) -> Build:
    return lambda path, inner: get(path + b"&pad=" + b"a" * size) + inner


def _spaces(size: int) -> Build:
    """White space around a value is no part of it, and what one read brings bounds it: either answer is right."""
    spaces = b"X-A:" + b" " * size + b"a"
    return lambda path, inner: post(path, spaces, length(len(inner))) + inner


def _many_headers(count: int) -> Build:
    lines = [b"X-%d: a" % number for number in range(count)]
    return lambda path, inner: get(path, *lines) + inner


def _huge_body(path: bytes, inner: bytes) -> bytes:
    return post(path, b"Content-Length: 2000000") + b"a=b" + inner


def _huge_chunk(path: bytes, inner: bytes) -> bytes:
    return post(path, b"Transfer-Encoding: chunked") + b"1000000" + END + inner
