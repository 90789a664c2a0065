"""The requests of a market, as they go over the wire."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest

from postbackd.catalog.file import read_text
from postbackd.core.deliveries import Outgoing
from postbackd.core.model import Channel, ClickKind
from postbackd.delivery.request import write_request
from postbackd.market.records import Call, Spelling, Visit
from postbackd.simulating.catalog import Book, read_book, write_catalog
from postbackd.simulating.plan import Plan, events_of
from postbackd.simulating.wording import read_landing, word_call, word_visit

_CLICK_ID = "0cnspq1pc00000000a31f8a2qx"


@pytest.fixture(scope="module")
def book() -> Book:
    return read_book(read_text(write_catalog(lambda: "k" * 26), "market.toml"))


def visit(campaign: str, offer: str, kind: ClickKind = ClickKind.COUNTED) -> Visit:
    subs = ("zone-7", "creative-2", "ios", "safari")
    return Visit(0, 0, campaign, offer, kind, "b2c3d4", 120_000, "GB", subs, converts=True)


def written(request: Outgoing) -> bytes:
    return write_request(request)[1]


def head(request: Outgoing) -> tuple[str, str, dict[str, str]]:
    first, *lines = written(request).decode().split("\r\n\r\n")[0].split("\r\n")
    method, target, _ = first.split(" ")
    return method, target, dict(line.split(": ", 1) for line in lines)


def test_a_source_fills_its_macros_into_the_link(book: Book) -> None:
    for (campaign, offer), link in book.links.items():
        _, target, headers = head(word_visit(visit(campaign, offer), link, "http://h:1"))
        sent = dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
        assert sent["source_click_id"] == "b2c3d4"
        assert sent["sub1"] == "zone-7"
        assert not any(mark in text for text in sent.values() for mark in "{}[]_$")
        assert headers["Host"] == "h:1"
        assert "iPhone" in headers["User-Agent"]


def test_programs_say_that_they_are_and_prefetches_too(book: Book) -> None:
    link = book.links["VPN worldwide", "VPN yearly"]

    def sent(kind: ClickKind) -> tuple[str, str, dict[str, str]]:
        return head(word_visit(visit("VPN worldwide", "VPN yearly", kind), link, "http://h"))

    assert sent(ClickKind.HEAD)[0] == "HEAD"
    assert "Bot" in sent(ClickKind.BOT)[2]["User-Agent"]
    assert sent(ClickKind.PREFETCH)[2]["Sec-Purpose"] == "prefetch"


def test_a_landing_page_finds_the_click_id_and_another_page_finds_none(book: Book) -> None:
    link = book.links["VPN worldwide", "VPN yearly"]
    assert read_landing(f"https://tunnelfox.example/plans?aff_sub={_CLICK_ID}", link) == _CLICK_ID
    assert read_landing(f"https://sleepwell.example/box?s1={_CLICK_ID}", link) is None


@pytest.mark.parametrize("network", ["Bluepeak", "Cobalt Leads"])
def test_a_network_sends_what_it_says_in_the_query_or_as_a_form(book: Book, network: str) -> None:
    call = Call(0, network, Channel.S2S, 0, "cid={id}&type=sale", Spelling.CAPITALS, 0, 1, "", "")
    request = word_call(call, _CLICK_ID, book, "http://h")
    method, target, headers = head(request)
    body = request.body.decode()
    said = f"cid={_CLICK_ID.upper()}&type=sale"
    if network == "Bluepeak":
        assert (method, target, body) == ("GET", f"/p/{'k' * 26}?{said}", "")
    else:
        assert (method, target, body) == ("POST", f"/p/{'k' * 26}", said)
        assert int(headers["Content-Length"]) == len(body)


def test_every_request_of_a_market_is_one_request_in_ascii(book: Book) -> None:
    for event in events_of(Plan(clicks=120)):
        if isinstance(event, Visit):
            request = written(word_visit(event, book.links[event.campaign, event.offer], "http://h"))
        elif isinstance(event, Call):
            request = written(word_call(event, _CLICK_ID, book, "http://h"))
        else:
            continue
        start = request.split(b"\r\n")[0]
        assert start.count(b" ") == 2
        assert request.count(b"\r\n\r\n") == 1
        assert request.isascii()
