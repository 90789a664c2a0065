"""HTTP/1.1 at the front door: whole requests out of any bytes, answers in order, limits of size and time."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from postbackd.ingest import http
from postbackd.ingest.exchange import Exchange, FamiliarGet
from tests.ingest.wire import GET, Line, head, refusal_of

UTF8 = '{"txid": "é日本"}'.encode()
POST = (
    b"POST /b HTTP/1.1\r\nhost: h\r\nContent-Type: Application/JSON\r\nContent-Length: %d\r\n\r\n" % len(UTF8)
) + UTF8
CHUNKED = (
    b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\nA;ext=1\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
)
STREAM = GET + POST + CHUNKED + GET
REQUESTS = [
    (b"GET", b"/a?x=1", b""),
    (b"POST", b"/b", UTF8),
    (b"POST", b"/c", b"abc0123456789"),
    (b"GET", b"/a?x=1", b""),
]


# --- bytes become requests ----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(len(STREAM) + 1))
def test_a_stream_split_in_two_anywhere_is_the_same_requests(at: int) -> None:
    line = Line()
    line.feed(STREAM[:at], STREAM[at:]) if at else line.feed(STREAM)
    assert line.requests == REQUESTS
    assert [answer.body for answer in line.answers()] == [b"/a?x=1", b"/b", b"/c", b"/a?x=1"]
    assert line.handler.exchanges[1].content_type == b"application/json"
    assert not line.ended()


def test_a_stream_that_arrives_byte_by_byte_is_the_same_requests() -> None:
    line = Line()
    line.feed(*(STREAM[n : n + 1] for n in range(len(STREAM))))
    assert line.requests == REQUESTS


@given(st.lists(st.integers(1, 40), max_size=20))
@settings(max_examples=60)
def test_a_stream_cut_into_any_pieces_is_the_same_requests(sizes: list[int]) -> None:
    line, at = Line(), 0
    for size in sizes:
        line.feed(STREAM[at : at + size])
        at += size
    line.feed(STREAM[at:])
    assert line.requests == REQUESTS


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_no_bytes_raise_and_what_is_refused_is_closed(noise: bytes) -> None:
    for data in (
        noise,
        GET + noise,
        head(b"X: " + noise),
        b"GET /" + noise + b" HTTP/1.1\r\nHost: h\r\n\r\n",
    ):
        line = Line()
        line.feed(data)
        if line.handler.refusals:
            assert line.ended()
        assert all(status < 500 for status in line.statuses)


# --- order of answers ---------------------------------------------------------------------------------------


def test_answers_leave_in_the_order_of_the_requests_whatever_is_ready_first() -> None:
    line = Line(at_once=False)
    line.feed(b"".join(head(line=b"GET /%d HTTP/1.1" % n) for n in range(5)))
    exchanges = line.handler.exchanges
    for index in (3, 1, 2):
        line.handler.answer(exchanges[index])
        assert line.transport.sent == b""
    line.handler.answer(exchanges[0])
    assert [answer.body for answer in line.answers()] == [b"/0", b"/1", b"/2", b"/3"]
    line.handler.answer(exchanges[4])
    assert len(line.answers()) == 5


def test_a_refusal_waits_for_the_answers_before_it_and_ends_the_connection() -> None:
    line = Line(at_once=False)
    line.feed(GET + b"nonsense\r\n\r\n" + GET)
    assert line.transport.sent == b""
    line.handler.answer(line.handler.exchanges[0])
    assert line.statuses == [200, 400]
    assert line.ended()
    assert len(line.requests) == 1


def test_too_many_pipelined_requests_are_read_on_when_half_are_answered() -> None:
    line = Line(at_once=False)
    line.feed(GET * (http.MAX_PIPELINED + 1))
    assert not line.is_read()
    for exchange in line.handler.exchanges:
        line.handler.answer(exchange)
    assert line.is_read()
    assert len(line.answers()) == http.MAX_PIPELINED + 1


# --- ends of connections ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "closes"),
    [
        (GET, False),
        (head(b"Connection: close"), True),
        (head(b"Connection: Keep-Alive"), False),
        (head(line=b"GET / HTTP/1.0"), True),
        (head(line=b"GET / HTTP/1.0", host=b""), True),
    ],
)
def test_a_connection_stays_open_unless_the_client_or_its_version_says_otherwise(
    request_: bytes, closes: bool
) -> None:
    line = Line()
    line.feed(request_)
    (answer,) = line.answers()
    assert line.ended() is closes
    assert (answer.headers.get("connection") == "close") is closes


def test_what_is_pipelined_behind_the_last_request_is_not_read() -> None:
    line = Line(at_once=False)
    line.feed(head(b"Connection: close") + GET)
    line.feed(GET)
    assert len(line.requests) == 1
    line.handler.answer(line.handler.exchanges[0])
    assert line.statuses == [200]
    assert line.ended()


def test_a_draining_server_answers_and_closes() -> None:
    line = Line()
    line.handler.draining = True
    line.feed(GET)
    assert line.answers()[0].headers["connection"] == "close"
    assert line.ended()


def test_a_client_that_has_finished_sending_still_hears_its_answers() -> None:
    line = Line(at_once=False)
    line.feed(GET)
    assert line.connection.eof_received() is True
    line.handler.answer(line.handler.exchanges[0])
    assert line.statuses == [200]
    assert line.ended()


def test_a_client_that_ends_in_the_middle_of_a_request_is_let_go() -> None:
    line = Line()
    line.feed(GET[:10])
    assert not line.connection.eof_received()
    assert line.requests == []


def test_answers_for_a_client_that_has_gone_are_dropped() -> None:
    line = Line(at_once=False)
    line.feed(GET)
    line.transport.closed = True
    line.connection.connection_lost(ConnectionResetError())
    line.handler.answer(line.handler.exchanges[0])
    assert line.transport.sent == b""
    assert line.handler.connections == set()


def test_a_handler_that_fails_answers_500_and_the_connection_goes_on() -> None:
    line = Line()

    def fail(exchange: Exchange) -> None:
        raise ZeroDivisionError

    healthy, line.handler.handle = line.handler.handle, fail  # type: ignore[method-assign]
    line.feed(GET)
    line.handler.handle = healthy  # type: ignore[method-assign]
    line.feed(GET)
    assert line.statuses == [500, 200]


# --- refused messages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        head(host=b""),
        head(b"Host: h"),
        head(b"hOST: other"),
        head(b"Content-Length: 3", b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1") + b"abc",
        head(b"Transfer-Encoding: chunked", b"Content-Length: 3", line=b"POST / HTTP/1.1") + b"0\r\n\r\n",
        head(b"Content-Length: 3", b"Content-Length: 4", line=b"POST / HTTP/1.1") + b"abcd",
        head(b"Content-Length: -1", line=b"POST / HTTP/1.1"),
        head(b"Content-Length: 1x", line=b"POST / HTTP/1.1") + b"a",
        head(b"Content-Length: +3", line=b"POST / HTTP/1.1") + b"abc",
        head(b"Transfer-Encoding: chunked, identity", line=b"POST / HTTP/1.1") + b"abc",
        head(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1") + b"xyz\r\n",
        head(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1") + b"3\r\nabcd\r\n0\r\n\r\n",
        head(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1") + b"fffffffffffffffff\r\n",
        b"GET / HTTP/1.1\nHost: h\n\n",
        b"GET / HTTP/1.1\r\nHost: h\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX\x00: a\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: h\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: h\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        head(host=b"Host: a b"),
        head(host=b"Host: user@h"),
        head(host=b"Host: h/path"),
        b"GET / http/1.1\r\nHost: h\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"BREW / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 10,
    ],
    ids=lambda data: ascii(data)[:60],
)
def test_what_two_programs_could_read_differently_is_refused_and_closed(data: bytes) -> None:
    assert refusal_of(data) == 400
    assert refusal_of(*(data[n : n + 1] for n in range(len(data)))) == 400


def test_a_second_request_smuggled_behind_a_body_is_never_one_of_ours() -> None:
    smuggled = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
    for fields in (
        (b"Content-Length: %d" % len(smuggled), b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: xchunked", b"Content-Length: %d" % len(smuggled)),
        (b"Transfer-Encoding : chunked", b"Content-Length: %d" % len(smuggled)),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
    ):
        line = Line()
        line.feed(head(*fields, line=b"POST / HTTP/1.1") + smuggled)
        assert b"/smuggled" not in [target for _, target, _ in line.requests]
        assert line.ended()


# --- expectations, offers, methods --------------------------------------------------------------------------


def test_a_client_that_waits_for_100_continue_is_told_to_go_on() -> None:
    line = Line()
    line.feed(head(b"Expect: 100-continue", b"Content-Length: 3", line=b"POST / HTTP/1.1"))
    assert line.transport.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    line.feed(b"abc")
    assert line.statuses == [100, 200]
    assert line.requests[0][2] == b"abc"


def test_100_continue_never_overtakes_an_answer() -> None:
    line = Line(at_once=False)
    line.feed(GET + head(b"Expect: 100-continue", b"Content-Length: 3", line=b"POST / HTTP/1.1"))
    assert line.transport.sent == b""
    line.feed(b"abc")
    for exchange in line.handler.exchanges:
        line.handler.answer(exchange)
    assert line.statuses == [200, 200]


def test_an_answer_to_head_has_the_length_and_no_body() -> None:
    line = Line()
    line.feed(head(line=b"HEAD /abc HTTP/1.1") + GET)
    first, second = line.answers(["HEAD", "GET"])
    assert (first.headers["content-length"], first.body) == ("4", b"")
    assert second.body == b"/a?x=1"


OFFER = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")


def test_an_offer_to_upgrade_is_ignored_and_the_connection_goes_on_in_http_1() -> None:
    line = Line()
    line.feed(head(*OFFER))
    line.feed(GET)
    assert line.statuses == [200, 200]
    assert not line.ended()


def test_the_body_behind_an_offer_to_upgrade_is_the_body_and_not_the_next_request() -> None:
    body = GET
    data = head(*OFFER, b"Content-Length: %d" % len(body), line=b"POST /p HTTP/1.1") + body
    line = Line()
    line.feed(data + GET)
    assert [(method, target) for method, target, _ in line.requests][:1] == [(b"POST", b"/p")]
    assert line.requests[0][2] == body
    for at in range(1, len(data)):
        line = Line()
        line.feed(data[:at], data[at:])
        assert [r for r in line.requests if r[1] != b"/p"] == []


@pytest.mark.parametrize(
    "field", [b"Sec-Purpose: prefetch;prerender", b"Purpose: Prefetch", b"X-Moz: prefetch"]
)
def test_a_prefetch_is_recognised(field: bytes) -> None:
    line = Line()
    line.feed(head(field) + GET)
    assert [exchange.prefetch for exchange in line.handler.exchanges] == [True, False]


def test_bytes_that_a_sender_forgot_to_encode_reach_the_target() -> None:
    line = Line()
    line.feed(head(line="GET /p/k?txid=é HTTP/1.1".encode()))
    assert line.requests[0][1] in ("/p/k?txid=é".encode(), b"/p/k?txid=%C3%A9")


# --- header lines that the connection has seen before ---------------------------------------------------------


def parsed(line: Line) -> list[tuple[bytes, bytes, bytes, bytes, bool, bool]]:
    """All that a handler can see of the requests."""
    return [
        (e.method, e.target, e.body, e.content_type if e.body else b"", e.prefetch, e.keep_alive)
        for e in line.handler.exchanges
    ]


_FIELDS = (
    b"",
    b"User-Agent: x\r\n",
    b"Accept: */*\r\nX-A: 1\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Type: application/json\r\n",
    b"Sec-Purpose: prefetch\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: h2c\r\nConnection: Upgrade\r\n",
    b"Host: two\r\n",
    b"Transfer-Encoding: chunked\r\n",
)
_LINES = (
    b"GET /p/k?click_id=a&value=1 HTTP/1.1",
    b"GET /p/k?click_id=b HTTP/1.1",
    b"GET /p/k?click_id={b} HTTP/1.1",
    b"GET /p/k?click_id=\xc3\xa9 HTTP/1.1",
    b"GET /p/k?a b HTTP/1.1",
    b"GET  /p/k HTTP/1.1",
    b"GET /p/k HTTP/1.0",
    b"GET /p/k#f HTTP/1.1",
    b"HEAD /p/k HTTP/1.1",
    b"POST /p/k HTTP/1.1",
    b"GET http://h/p/k HTTP/1.1",
    b"GET /p/k?x=%0d%0aHost:%20evil HTTP/1.1",
)
_ENDS = (b"\r\n", b"\r\n0\r\n\r\n", b"\r\nGET /c/x HTTP/1.1\r\nHost: h\r\n\r\n", b"", b"\n", b"\r\nrest")


_MESSAGES = st.tuples(st.sampled_from(_LINES), st.sampled_from(_FIELDS), st.sampled_from(_ENDS))


@given(
    st.lists(st.sampled_from(_LINES), max_size=4), _MESSAGES, st.lists(_MESSAGES, max_size=2), st.booleans()
)
@example([_LINES[1], _LINES[4]], (_LINES[0], b"", b"\r\n"), [], True)
@settings(max_examples=300)
def test_a_request_means_the_same_whether_its_header_lines_were_seen_before_or_not(
    lines: list[bytes],
    first: tuple[bytes, bytes, bytes],
    others: list[tuple[bytes, bytes, bytes]],
    at_once: bool,
) -> None:
    messages = [first, *((line, *first[1:]) for line in lines), *others]
    remembering, forgetful = Line(at_once=at_once), Line(at_once=at_once)
    for request_line, fields, end in messages:
        message = request_line + b"\r\nHost: h\r\n" + fields + end
        remembering.feed(message)
        forgetful.feed(message)
        forgetful.connection._familiar = None
    assert parsed(remembering) == parsed(forgetful)
    assert remembering.handler.refusals == forgetful.handler.refusals
    assert remembering.transport.closed == forgetful.transport.closed
    assert remembering.transport.sent.replace(http._CONTINUE, b"") == forgetful.transport.sent.replace(
        http._CONTINUE, b""
    )


def test_the_parser_is_not_asked_again_for_header_lines_that_came_before() -> None:
    line = Line()
    line.feed(GET, GET.replace(b"x=1", b"x=2"))
    assert [type(exchange) for exchange in line.handler.exchanges] == [Exchange, FamiliarGet]
    assert line.statuses == [200, 200]
    assert not line.ended()


def test_a_draining_server_ends_a_familiar_connection_too() -> None:
    line = Line()
    line.feed(GET)
    line.handler.draining = True
    line.feed(GET)
    assert [answer.headers.get("connection") for answer in line.answers()] == [None, "close"]
    assert line.ended()


def test_a_client_that_sends_familiar_requests_without_reading_answers_is_not_read_on() -> None:
    line = Line(at_once=False)
    for _ in range(http.MAX_PIPELINED + 1):
        line.feed(GET)
    assert not line.is_read()
    for exchange in line.handler.exchanges:
        line.handler.answer(exchange)
    assert line.is_read()
    assert len(line.answers()) == http.MAX_PIPELINED + 1
