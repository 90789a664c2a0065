"""Each phase of an exchange is timed by itself, and what goes wrong is named by its kind."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence

import pytest

from postbackd.core.deliveries import Outgoing
from postbackd.core.exchange import CERTIFICATE, CONNECT, CUT, DNS, MALFORMED, TIMEOUT
from postbackd.delivery.resolver import AddressInfo, Resolver
from postbackd.exchanges.timed import KEPT_BYTES, Timer
from tests.delivery.targets import OK, Script, Talk, answers, target
from tests.exchanges.places import DELAY_S, ask, full_backlog, late_tls, run, server_tls, slowest, trusting

DELAY_MS = DELAY_S * 900
"""What must be found of it at least: clocks of loops are coarse."""


async def slow_answer(talk: Talk) -> None:
    await talk.request()
    await asyncio.sleep(DELAY_S)
    await talk.say(OK)


async def slow_body(talk: Talk) -> None:
    await talk.request()
    await talk.say(OK[:-2])
    await asyncio.sleep(DELAY_S)
    await talk.say(OK[-2:])


@pytest.mark.parametrize(("delay_s", "found"), [(DELAY_S, True), (0.0, False)], ids=["slow", "control"])
def test_a_late_handshake_is_found_in_tls_and_nowhere_else(delay_s: float, found: bool) -> None:
    async def work() -> None:
        async with late_tls(delay_s) as url:
            made = await ask(url)
        assert made.status == 200, made
        assert made.tls == "TLSv1.3"
        assert (slowest(made)[0] == "tls" and slowest(made)[1] >= DELAY_MS) is found
        assert (made.first_byte_ms or 0) < DELAY_MS

    run(work())


@pytest.mark.parametrize(("delay_s", "found"), [(DELAY_S, True), (0.0, False)], ids=["slow", "control"])
def test_a_slow_name_server_is_found_in_dns(delay_s: float, found: bool) -> None:
    def look_up(host: str) -> Sequence[AddressInfo]:
        threading.Event().wait(delay_s)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    async def work() -> None:
        async with target(answers(OK)) as place:
            timer = Timer(trusting(), resolver=Resolver(look_up))
            made = await ask(f"http://shop.example:{place.port}/", timer)
            timer.close()
        assert made.status == 200, made
        assert ((made.dns_ms or 0) >= DELAY_MS) is found
        assert sum((made.connect_ms or 0, made.first_byte_ms or 0)) < DELAY_MS

    run(work())


def test_a_connection_that_waits_for_its_place_is_found_in_connect() -> None:
    async def work() -> None:
        async with full_backlog() as (url, make_room):
            asyncio.get_running_loop().call_later(DELAY_S, make_room)
            timer = Timer(trusting(), total_ms=1500)
            made = await ask(url, timer)  # nobody reads there: it ends with a time-out, connected
            timer.close()
        assert (made.connect_ms or 0) >= DELAY_MS
        assert made.kind == TIMEOUT
        assert made.sent

    run(work())


@pytest.mark.parametrize(
    ("script", "in_first_byte", "in_total"),
    [(slow_answer, True, True), (slow_body, False, True), (answers(OK), False, False)],
    ids=["slow answer", "slow body", "control"],
)
def test_a_slow_answer_and_a_slow_body_are_told_apart(
    script: Script, in_first_byte: bool, in_total: bool
) -> None:
    async def work() -> None:
        async with target(script) as place:
            made = await ask(place.url())
        assert made.ok
        assert ((made.first_byte_ms or 0) >= DELAY_MS) is in_first_byte
        assert (made.total_ms >= DELAY_MS) is in_total

    run(work())


async def resets(talk: Talk) -> None:
    await talk.request()
    talk.reset()


async def drips(talk: Talk) -> None:
    await talk.request()
    await talk.drip(OK[:-1], every_s=0.001)


async def silent(talk: Talk) -> None:
    await talk.silence()


async def babbles(talk: Talk) -> None:
    await talk.request()
    await talk.say(b"220 mail.example ESMTP\r\n")


async def cuts(talk: Talk) -> None:
    await talk.request()
    await talk.say(OK[:-1])


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (resets, CUT),
        (drips, TIMEOUT),
        (silent, TIMEOUT),
        (babbles, MALFORMED),
        (cuts, CUT),
    ],
)
def test_an_endpoint_that_misbehaves_is_named_by_the_kind_of_its_fault(script: Script, kind: str) -> None:
    async def work() -> None:
        async with target(script) as place:
            timer = Timer(trusting(), total_ms=300)
            made = await ask(place.url(), timer)
            timer.close()
        assert (made.kind, made.sent) == (kind, True), made
        assert made.total_ms < 1500

    run(work())


def test_a_certificate_for_another_name_is_refused_and_nothing_is_sent() -> None:
    async def work() -> None:
        async with target(answers(OK), server_tls("other.example")) as place:
            made = await ask(f"https://localhost:{place.port}/p/secret")
            assert place.requests == []
        assert (made.kind, made.sent) == (CERTIFICATE, False)
        assert made.connect_ms is not None

    run(work())


def test_nobody_listening_and_no_such_name_are_told_apart() -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        refused = await ask(f"http://127.0.0.1:{port}/")
        unknown = await ask("http://nothing.invalid/")
        assert (refused.kind, refused.address, refused.sent) == (CONNECT, "127.0.0.1", False)
        assert (unknown.kind, unknown.address) == (DNS, "")

    run(work())


def test_a_kept_connection_saves_connecting_and_one_that_was_closed_is_opened_again() -> None:
    async def work() -> None:
        timer = Timer(trusting())
        async with target(answers(OK)) as place:
            first = await ask(place.url(), timer, keep=True)
            second = await ask(place.url(), timer, keep=True)
            assert (first.reused, second.reused, place.connections) == (False, True, 1)
            assert second.connect_ms is None
            assert second.address == "127.0.0.1"
        async with target(answers(OK, close=True)) as place:
            await ask(place.url(), timer, keep=True)
            again = await ask(place.url(), timer, keep=True)
            assert (again.status, again.reused, place.connections) == (200, False, 2)
        timer.close()

    run(work())


async def answers_once_and_then_hangs_up(talk: Talk) -> None:
    await talk.request()
    await talk.say(OK)
    if await talk.request():
        talk.reset()


@pytest.mark.parametrize(
    ("resends", "status", "requests"), [(False, 0, 2), (True, 200, 3)], ids=["once", "control"]
)
def test_who_may_send_nothing_twice_hears_that_it_was_sent_and_not_answered(
    resends: bool, status: int, requests: int
) -> None:
    async def work() -> None:
        timer = Timer(trusting(), resends=resends)
        async with target(answers_once_and_then_hangs_up) as place:
            await ask(place.url(), timer, keep=True)
            again = await ask(place.url(), timer, keep=True)
            assert (again.status, again.sent, len(place.requests)) == (status, True, requests)
        timer.close()

    run(work())


@pytest.mark.parametrize(("method", "whole"), [("HEAD", True), ("GET", False)], ids=["HEAD", "control"])
def test_the_answer_to_head_ends_with_its_head_whatever_length_it_tells(method: str, whole: bool) -> None:
    async def work() -> None:
        timer = Timer(trusting(), total_ms=300)
        async with target(tells_a_length_and_stays) as place:
            made = await timer.exchange(Outgoing(method, place.url()), keep=True)
        timer.close()
        assert (made.ok, made.status, made.body) == (whole, 200, b"")

    run(work())


async def tells_a_length_and_stays(talk: Talk) -> None:
    await talk.request()
    await talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
    await talk.silence()


@pytest.mark.parametrize(("kept_bytes", "found"), [(200_000, 200_000), (KEPT_BYTES, KEPT_BYTES)])
def test_so_much_of_a_body_is_kept_as_was_asked_for(kept_bytes: int, found: int) -> None:
    async def work() -> None:
        body = b"x" * 200_000
        timer = Timer(trusting(), kept_bytes=kept_bytes)
        async with target(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + body)) as place:
            made = await ask(place.url(), timer)
        timer.close()
        assert (made.ok, len(made.body)) == (True, found)

    run(work())


async def says_what_it_was_asked(talk: Talk) -> None:
    while request := await talk.request():
        number = request.split(b" ")[1].removeprefix(b"/")
        await talk.say(b"HTTP/1.1 200 OK\r\nAsked: %b\r\nContent-Length: 0\r\n\r\n" % number)


def test_exchanges_that_share_connections_each_hear_their_own_headers() -> None:
    async def work() -> None:
        timer = Timer(trusting())
        async with target(says_what_it_was_asked) as place:

            async def worker(name: str) -> None:
                for turn in range(40):
                    made = await ask(place.url(f"/{name}.{turn}"), timer, keep=True)
                    assert made.headers.get("asked") == f"{name}.{turn}"

            await asyncio.gather(*(worker(name) for name in "abcdefgh"))
            assert place.connections <= 8
        timer.close()

    run(work())
