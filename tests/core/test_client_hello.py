"""The protocols that a TLS client offers are read from its first bytes, whatever these are and however they arrive."""

from __future__ import annotations

import ssl
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postbackd.core.client_hello import LARGEST_HELLO, MOST_RECORDS, More, read_protocols
from tests.tls.hellos import first_message, in_records

HELLO = first_message("a.example", ["acme-tls/1"])
SIZES = st.lists(st.integers(1, 400), max_size=20)


def message(body: bytes) -> bytes:
    return b"\x16\x03\x01" + (len(body) + 4).to_bytes(2) + b"\x01" + len(body).to_bytes(3) + body


def hello(*extensions: tuple[int, bytes], session: bytes = b"") -> bytes:
    """A first message that is made by hand."""
    text = b"".join(kind.to_bytes(2) + len(value).to_bytes(2) + value for kind, value in extensions)
    body = bytes(34) + bytes((len(session),)) + session + b"\x00\x02\x13\x01\x01\x00"
    return message(body + len(text).to_bytes(2) + text)


def names(*protocols: bytes) -> tuple[int, bytes]:
    """The extension that offers protocols."""
    text = b"".join(bytes((len(protocol),)) + protocol for protocol in protocols)
    return 16, len(text).to_bytes(2) + text


@pytest.mark.parametrize("version", [None, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("protocols", [(), ("acme-tls/1",), ("h2", "http/1.1"), ("h2", "acme-tls/1")])
@pytest.mark.parametrize("name", ["a.example", None])
def test_what_a_real_client_offers_is_read(
    version: ssl.TLSVersion | None, protocols: tuple[str, ...], name: str | None
) -> None:
    assert read_protocols(first_message(name, protocols, version)) == tuple(
        protocol.encode() for protocol in protocols
    )


@given(SIZES)
@example([1] * (MOST_RECORDS - 2))
def test_the_records_in_which_it_arrives_make_no_difference(sizes: list[int]) -> None:
    assert read_protocols(in_records(HELLO, sizes)) == (b"acme-tls/1",)


@given(SIZES)
def test_a_part_asks_for_more_and_never_for_more_than_there_will_be(sizes: list[int]) -> None:
    whole = in_records(HELLO, sizes)
    end = next(end for end in range(len(whole) + 1) if not isinstance(read_protocols(whole[:end]), More))
    assert read_protocols(whole[:end]) == (b"acme-tls/1",)
    for length in range(0, end, 7):
        found = read_protocols(whole[:length])
        assert isinstance(found, More)
        assert length < found.wanted <= len(whole)


@given(st.binary(max_size=600))
@example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
@example(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 443\r\n" + HELLO)
@example(b"\x15\x03\x01\x00\x02\x02\x28")
@example(b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10")
def test_any_bytes_are_read_as_nothing_or_as_a_beginning(some: bytes) -> None:
    assert read_protocols(some) is None or isinstance(read_protocols(some), More)


@given(st.integers(0, len(HELLO) - 1), st.integers(0, 255), st.integers(0, len(HELLO)))
def test_a_damaged_message_raises_nothing(at: int, byte: int, cut: int) -> None:
    damaged = HELLO[:at] + bytes((byte,)) + HELLO[at + 1 :]
    for some in (damaged, damaged[:cut], damaged[cut:], damaged + HELLO[:cut]):
        found = read_protocols(some)
        assert found is None or isinstance(found, (More, tuple))


@given(st.lists(st.tuples(st.integers(0, 100).filter(lambda kind: kind != 16), st.binary(max_size=40)), max_size=6),
       st.lists(st.binary(min_size=1, max_size=255), min_size=1, max_size=4), st.binary(max_size=32))  # fmt: skip
def test_what_is_offered_is_found_among_extensions_of_any_kind(
    others: list[tuple[int, bytes]], protocols: list[bytes], session: bytes
) -> None:
    for at in range(len(others) + 1):
        text = hello(*others[:at], names(*protocols), *others[at:], session=session)
        assert read_protocols(text) == tuple(protocols)


@pytest.mark.parametrize(
    "text",
    [
        hello(names(b"acme-tls/1"), names(b"h2")),
        hello(names(b"acme-tls/1", b"")),
        hello((16, b"\x00\x0b\x0aacme-tls/1more")),
        hello((16, b"\x00\x0c\x0aacme-tls/1")),
        hello((16, b"")),
        message(bytes(34)),
        message(bytes(34) + b"\xff"),
        b"\x16\x03\x01\x00\x00" + HELLO,
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x02\x01" + HELLO[3:],
        b"\x16\x03\x01\x40\x01" + HELLO[5:],
    ],
)
def test_what_can_be_read_in_two_ways_or_in_none_is_not_read(text: bytes) -> None:
    assert read_protocols(text) is None


def test_a_client_without_extensions_offers_nothing() -> None:
    assert read_protocols(message(bytes(34) + b"\x00\x00\x02\x13\x01\x01\x00")) == ()


def test_a_message_without_end_is_given_up_and_costs_little() -> None:
    longest = in_records(message(bytes(LARGEST_HELLO - 200)), [300] * MOST_RECORDS)
    assert isinstance(read_protocols(longest[:LARGEST_HELLO]), More)
    assert read_protocols(longest[: LARGEST_HELLO + 1]) is None
    crumbs = in_records(HELLO, [1] * len(HELLO))
    began = time.process_time()
    looks, wanted = 0, 0
    for end in range(len(crumbs)):
        if end < wanted:
            continue
        found = read_protocols(crumbs[:end])
        looks += 1
        if not isinstance(found, More):
            break
        wanted = found.wanted
    assert found is None
    assert looks <= 3 * MOST_RECORDS
    assert time.process_time() - began < 0.5
