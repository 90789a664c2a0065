"""Trace Context (W3C): which headers are read, and what goes out."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbackd.core.deliveries import Delivery, Facts, Outgoing, Owed
from postbackd.core.tracing import carry_trace, read_trace, within_trace

ID, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def delivery(trace: str | None) -> Delivery:
    owed = Owed(1, 2, 3, "sale", "", 2, 1, 1, 1, 1, 1, 2, 5, "USD", Facts(trace=trace), 0, 0, 0)
    return Delivery(7, owed, 0, told=False, outdated=False)


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (f"00-{ID}-{SPAN}-01", f"{ID}-01"),
        (f"00-{ID}-{SPAN}-00", f"{ID}-00"),
        (f"00-{ID}-{SPAN}-ff", f"{ID}-01"),
        (f"00-{ID}-{SPAN}-02", f"{ID}-00"),
        (f"00-{ID.upper()}-{SPAN}-01", None),
        (f"00-{ID}-{SPAN.upper()}-01", None),
        (f"01-{ID}-{SPAN}-01", None),
        (f"ff-{ID}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{ID}-{'0' * 16}-01", None),
        (f"00-{ID}-{SPAN}-01-extra", None),
        (f"00-{ID}-{SPAN}-1", None),
        (f"00-{ID}-{SPAN}", None),
        (f"00-{ID}-{SPAN}-0A", None),
        (f"00_{ID}-{SPAN}-01", None),
        (f" 00-{ID}-{SPAN}-01", None),
        (f"00-{ID}-{SPAN}-01\n", None),
        (f"00-{ID}-{SPAN}-01, 00-{ID}-{SPAN}-01", None),
        (f"00-{ID[:-1]}g-{SPAN}-01", None),
        ("", None),
    ],
)
def test_only_what_can_be_read_in_one_way_is_a_trace(header: str, trace: str | None) -> None:
    assert read_trace(header.encode()) == trace


@given(st.binary(max_size=80))
def test_no_bytes_make_it_fail(header: bytes) -> None:
    assert read_trace(header) is None


def test_what_goes_out_is_of_the_same_trace_and_a_span_of_its_own() -> None:
    trace = read_trace(f"00-{ID}-{SPAN}-01".encode())
    assert trace is not None
    assert carry_trace(trace, "00f067aa0ba902b7") == f"00-{ID}-00f067aa0ba902b7-01"
    drawn = iter(("1" * 16, "2" * 16))
    requests = [
        within_trace(Outgoing("GET", "https://a.example/"), [delivery(trace)], lambda _: next(drawn))
        for _ in range(2)
    ]
    assert [dict(one.headers)["traceparent"] for one in requests] == [
        f"00-{ID}-{'1' * 16}-01", f"00-{ID}-{'2' * 16}-01"
    ]  # fmt: skip
    assert all(re.fullmatch("[0-9a-f-]{55}", dict(one.headers)["traceparent"]) for one in requests)


def test_without_a_trace_with_several_or_with_an_own_header_a_request_stays_as_it_is() -> None:
    plain = Outgoing("GET", "https://a.example/")
    own = Outgoing("GET", "https://a.example/", (("Traceparent", "mine"),))
    for request, deliveries in (
        (plain, [delivery(None)]),
        (plain, [delivery(f"{ID}-01"), delivery(f"{ID}-01")]),
        (own, [delivery(f"{ID}-01")]),
    ):
        assert within_trace(request, deliveries, lambda _: pytest.fail("drawn")) is request
