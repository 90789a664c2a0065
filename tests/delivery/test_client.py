"""The client against real sockets: bad targets, kept connections, names, limits."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Coroutine
from typing import Any

import pytest
import uvloop

from postbackd.core.addresses import Allowed, read_allowed
from postbackd.core.deliveries import Answer, Outgoing
from postbackd.delivery.client import MAX_IDLE, Client, make_tls
from postbackd.delivery.resolver import AddressInfo, LookUp, Resolver
from tests.delivery.bad_targets import PORTS, SCRIPTED, Expected
from tests.delivery.targets import OK, Talk, Target, answers, loopback, target

CONNECT_MS, TOTAL_MS = 400, 500
SLACK_S = 0.4
"""What a busy test machine may add to a time limit."""


def run(work: Coroutine[Any, Any, None]) -> None:
    uvloop.run(asyncio.wait_for(work, 30))


async def get(client: Client, url: str, *, total_ms: int = 5000, **parts: Any) -> Answer:
    request = Outgoing(parts.pop("method", "GET"), url, **parts)
    return await client.send(request, connect_ms=min(2000, total_ms), total_ms=total_ms)


def resolver(answer: LookUp | list[str]) -> Resolver:
    """Names have these addresses, or what the function says."""
    return Resolver(answer if callable(answer) else lambda host: rows(*answer))


def rows(*addresses: str) -> list[AddressInfo]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]


# --- bad targets ---------------------------------------------------------------------------------------------


def check(name: str, answer: Answer, expected: Expected, took_s: float) -> None:
    assert re.search(expected.error, answer.error), (name, answer)
    assert answer.status == expected.status, (name, answer)
    assert expected.body is None or answer.body == expected.body
    assert expected.headers is None or answer.headers == expected.headers
    assert len(answer.body) <= 4096
    assert took_s < TOTAL_MS / 1000 + SLACK_S
    assert answer.took_ms <= took_s * 1000


@pytest.mark.parametrize("name", SCRIPTED)
def test_a_bad_target_ends_in_time_with_the_truth(name: str) -> None:
    script, expected = SCRIPTED[name]

    async def work() -> None:
        async with target(script) as bad:
            client = Client(loopback(bad.port))
            began = time.perf_counter()
            answer = await client.send(
                Outgoing("POST", bad.url(), body=b"x" * 10), connect_ms=CONNECT_MS, total_ms=TOTAL_MS
            )
            check(name, answer, expected, time.perf_counter() - began)
            await client.close()

    run(work())


@pytest.mark.parametrize("name", PORTS)
def test_a_bad_port_ends_in_time_with_the_truth(name: str) -> None:
    make, scheme, expected = PORTS[name]

    async def work() -> None:
        async with make() as port:
            client = Client(loopback(port))
            began = time.perf_counter()
            url = f"{scheme}://127.0.0.1:{port}/"
            answer = await client.send(Outgoing("GET", url), connect_ms=CONNECT_MS, total_ms=TOTAL_MS)
            check(name, answer, expected, time.perf_counter() - began)
            await client.close()

    run(work())


def test_a_large_request_that_is_not_read_ends_in_time() -> None:
    async def work() -> None:
        async with target(SCRIPTED["reads nothing"][0]) as bad:
            client = Client(loopback(bad.port))
            answer = await get(client, bad.url(), method="POST", body=b"x" * (32 << 20), total_ms=TOTAL_MS)
            assert answer.error == "no answer within 0.5 s"
            await client.close()

    run(work())


def test_nothing_is_left_open_after_bad_targets() -> None:
    async def ask_all() -> None:
        for name in (
            "never answers",
            "endless body",
            "closes at once",
            "gzip bomb",
            "answer behind the answer",
        ):
            async with target(SCRIPTED[name][0]) as bad:
                client = Client(loopback(bad.port))
                await get(client, bad.url(), total_ms=100)
                await client.close()
        for make, scheme, _ in PORTS.values():
            async with make() as port:
                client = Client(loopback(port))
                await get(client, f"{scheme}://127.0.0.1:{port}/", total_ms=100)
                await client.close()
        for _ in range(20):  # the loop closes descriptors on its next rounds
            await asyncio.sleep(0)

    async def work() -> None:
        await ask_all()
        before = descriptors()
        await ask_all()
        assert descriptors() == before

    run(work())


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208  # names, of files that may be gone by now


# --- what is sent and what comes back ------------------------------------------------------------------------


def test_the_request_is_written_as_http_wants_it() -> None:
    async def work() -> None:
        async with target(answers(OK)) as good:
            client = Client(loopback(good.port))
            await get(client, good.url("/p?id={x}&y=[z]"), headers=(("X-Key", "a b"),))
            await get(client, good.url("?id=1").replace("http", "HTTP"), method="POST", body=b"{}")
            await get(client, good.url("").rstrip("/"), headers=(("User-Agent", "mine"),))
            host = b"Host: 127.0.0.1:%d\r\n" % good.port
            first, second, third = good.requests
            assert first.startswith(
                b"GET /p?id={x}&y=[z] HTTP/1.1\r\n" + host + b"X-Key: a b\r\nUser-Agent: postbackd/"
            )
            assert b"Content-Length" not in first
            assert b"Accept-Encoding: identity\r\n" in first
            assert second.startswith(b"POST /?id=1 HTTP/1.1\r\n" + host)
            assert second.endswith(b"\r\n\r\n{}")
            assert b"\r\nContent-Length: 2\r\n" in second
            assert third.startswith(b"GET / HTTP/1.1\r\n")
            assert third.lower().count(b"user-agent") == 1
            await client.close()

    run(work())


def test_an_answer_carries_status_body_the_headers_that_matter_and_the_time() -> None:
    said = (
        b"HTTP/1.1 429 Slow down\r\nServer: x\r\nRETRY-AFTER: 7\r\nSet-Cookie: a=b\r\nContent-Type: text/plain\r\n"
        b"Content-Length: 4\r\n\r\nlate"
    )

    async def work() -> None:
        async with target(answers(said, OK)) as good:
            client = Client(loopback(good.port))
            answer = await get(client, good.url())
            assert (answer.status, answer.body, answer.error) == (429, b"late", "")
            assert answer.headers == {"retry-after": "7", "content-type": "text/plain"}
            assert 0 <= answer.took_ms < 1000
            assert b"ookie" not in await second_request(client, good)
            await client.close()

    async def second_request(client: Client, good: Target) -> bytes:
        await get(client, good.url())
        return good.requests[-1]

    run(work())


@pytest.mark.parametrize("size", [0, 1, 4095, 4096])
def test_a_body_of_up_to_4_kb_is_whole_and_the_connection_is_kept(size: int) -> None:
    async def work() -> None:
        said = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
        async with target(answers(said)) as good:
            client = Client(loopback(good.port))
            for _ in range(3):
                answer = await get(client, good.url())
                assert (answer.status, answer.error, len(answer.body)) == (200, "", size)
            assert good.connections == 1
            await client.close()

    run(work())


def compressed(encoding: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (encoding, len(body))
    return head + body


def test_compressed_bodies_are_read_although_none_was_asked_for() -> None:
    import gzip
    import zlib

    raw = zlib.compressobj(wbits=-15)
    bodies = [
        (b"gzip", gzip.compress(b"success")),
        (b"X-GZIP", gzip.compress(b"success")),
        (b"deflate", zlib.compress(b"success")),
        (b"deflate", raw.compress(b"success") + raw.flush()),
        (b"identity", b"success"),
    ]

    async def work() -> None:
        async with target(answers(*(compressed(*body) for body in bodies))) as good:
            client = Client(loopback(good.port))
            for _ in bodies:
                answer = await get(client, good.url())
                assert (answer.body, answer.error) == (b"success", "")
            assert good.connections == 1
            await client.close()

    run(work())


def test_an_answer_in_single_bytes_and_after_interim_answers_is_read() -> None:
    said = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK

    async def script(talk: Talk) -> None:
        while await talk.request():
            for byte in said:
                await talk.say(bytes((byte,)))
                await asyncio.sleep(0)

    async def work() -> None:
        async with target(script) as good:
            client = Client(loopback(good.port))
            for _ in range(2):
                answer = await get(client, good.url())
                assert (answer.status, answer.body, answer.error) == (200, b"OK", "")
            assert good.connections == 1
            await client.close()

    run(work())


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"url": "https://user:pw@shop.example/"}, "a user or password before its host"),
        ({"url": "https://shop.example/a b"}, "percent-encode it"),
        ({"url": "https://shop.example/\r\nX: y"}, "percent-encode it"),
        ({"url": "https://shop.example/\x00"}, "percent-encode it"),
        ({"url": "https://shop.example/é"}, "percent-encode it"),
        ({"url": "https://shop.example/#x"}, "write %23"),
        ({"url": "ftp://shop.example/"}, "use https:// or http://"),
        ({"url": "https://evil\\@shop.example/"}, "a user or password before its host"),
        ({"url": "https://evil\\shop.example/"}, "has a character that no host may have"),
        ({"url": "https:///path"}, "no host"),
        ({"url": "https://shop.example:0/"}, "0 is no port"),
        ({"url": "https://shop.example:70000/"}, "70000 is no port"),
        ({"url": "shop.example/"}, "not of the form https://host/path"),
        ({"url": "https://shop.example/" + "x" * 16_384}, "longer than 16 kB"),
        ({"url": "https://0177.0.0.1/"}, "write four decimal numbers"),
        ({"url": "https://2130706433/"}, "write four decimal numbers"),
        ({"url": "https://0x7f.1/"}, "write four decimal numbers"),
        ({"url": "https://[fe80::1%25eth0]/"}, "no host may have"),
        ({"url": "https://[1:::2]/"}, "is no IPv6 address"),
        ({"url": "https://-shop.example/"}, "is no host name"),
        ({"url": "https://shop..example/"}, "is no host name"),
        ({"method": "GET /x HTTP/1.1\r\n"}, "is no method"),
        ({"headers": (("X-Key", "a\r\nHost: b"),)}, "a character that no header may have"),
        ({"headers": (("X Key", "a"),)}, "a character that no header may have"),
        ({"headers": (("Host", "a"),)}, "written by postbackd itself"),
        ({"headers": (("content-length", "1"),)}, "written by postbackd itself"),
    ],
)
def test_a_request_that_could_be_read_in_two_ways_is_not_sent(parts: dict[str, Any], sentence: str) -> None:
    async def work() -> None:
        client = Client(Allowed(), resolver=resolver(refuse_to_look_up))
        fields = {"method": "GET", "url": "https://shop.example/"} | parts
        answer = await client.send(Outgoing(**fields), connect_ms=100, total_ms=100)
        assert sentence in answer.error
        assert (answer.status, answer.body) == (0, b"")
        assert "pw" not in answer.error
        await client.close()

    run(work())


def refuse_to_look_up(host: str) -> list[AddressInfo]:
    raise AssertionError(f"{host} was looked up")


# --- kept connections ----------------------------------------------------------------------------------------


def test_a_connection_is_used_again_and_no_more_are_kept_than_allowed() -> None:
    async def work() -> None:
        async with target(answers(OK)) as good:
            client = Client(loopback(good.port))
            for _ in range(5):
                await get(client, good.url())
            assert good.connections == 1
            many = await asyncio.gather(*(get(client, good.url()) for _ in range(MAX_IDLE + 20)))
            assert {answer.status for answer in many} == {200}
            assert good.connections == MAX_IDLE + 20
            await asyncio.gather(*(get(client, good.url()) for _ in range(MAX_IDLE)))
            assert good.connections == MAX_IDLE + 20
            await client.close()

    run(work())


def test_an_idle_connection_is_closed_after_a_while() -> None:
    gone = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK)
        await talk.silence()
        gone.set()

    async def work() -> None:
        async with target(script) as good:
            client = Client(loopback(good.port), idle_s=0.02)
            await get(client, good.url())
            await gone.wait()
            await client.close()

    run(work())


def closing_on(*requests: int) -> Any:
    """Closes without an answer on these requests of its first connection, counted from 1; answers all others."""

    async def script(talk: Talk) -> None:
        number = 0
        while await talk.request():
            number += 1
            if talk.number == 1 and number in requests:
                return
            await talk.say(OK)

    return script


def test_a_kept_connection_that_was_closed_is_replaced_at_once() -> None:
    async def work() -> None:
        async with target(closing_on(2)) as flaky:
            client = Client(loopback(flaky.port))
            statuses = [(await get(client, flaky.url(f"/{n}"))).status for n in range(3)]
            assert statuses == [200, 200, 200]
            assert flaky.connections == 2
            assert [read.split()[1] for read in flaky.requests] == [b"/0", b"/1", b"/1", b"/2"]
            await client.close()

    run(work())


def test_a_new_connection_that_is_closed_is_not_replaced() -> None:
    async def work() -> None:
        async with target(closing_on(1)) as flaky:
            client = Client(loopback(flaky.port))
            assert (await get(client, flaky.url())).error == "the connection was closed without an answer"
            assert flaky.connections == len(flaky.requests) == 1
            await client.close()

    run(work())


def test_a_request_is_sent_again_once_and_not_twice() -> None:
    async def script(talk: Talk) -> None:
        if talk.number == 1:
            await talk.request()
            await talk.say(OK)
        await talk.request()

    async def work() -> None:
        async with target(script) as flaky:
            client = Client(loopback(flaky.port))
            await get(client, flaky.url())
            assert (await get(client, flaky.url())).error == "the connection was closed without an answer"
            assert (flaky.connections, len(flaky.requests)) == (2, 3)
            await client.close()

    run(work())


@pytest.mark.parametrize("half", [b"H", OK[:20], OK[:-1]])
def test_a_request_is_not_sent_again_once_a_byte_of_the_answer_came(half: bytes) -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK)
        await talk.request()
        await talk.say(half)

    async def work() -> None:
        async with target(script) as flaky:
            client = Client(loopback(flaky.port))
            await get(client, flaky.url())
            answer = await get(client, flaky.url())
            assert answer.error == "the connection was closed in the middle of the answer"
            assert (flaky.connections, len(flaky.requests)) == (1, 2)
            await client.close()

    run(work())


def numbered(number: int, behind: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n%03d" % number + behind


def test_an_answer_that_nobody_asked_for_is_taken_by_nobody() -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(numbered(talk.number, numbered(666)))
        await talk.silence()

    async def later(talk: Talk) -> None:
        await talk.request()
        await talk.say(numbered(talk.number))
        await asyncio.sleep(0)
        await talk.say(numbered(666))
        await talk.silence()
        gone.set()

    async def work() -> None:
        async with target(script) as smuggling:
            client = Client(loopback(smuggling.port))
            bodies = [(await get(client, smuggling.url())).body for _ in range(4)]
            assert bodies == [b"001", b"002", b"003", b"004"]
            await client.close()
        async with target(later) as smuggling:
            client = Client(loopback(smuggling.port))
            for number in range(1, 5):
                gone.clear()
                assert (await get(client, smuggling.url())).body == b"%03d" % number
                await gone.wait()
            await client.close()

    gone = asyncio.Event()
    run(work())


# --- names and addresses -------------------------------------------------------------------------------------


def test_host_stays_the_name_and_the_address_is_the_one_that_was_judged() -> None:
    asked: list[str] = []

    def look_up(host: str) -> list[AddressInfo]:
        asked.append(host)
        return rows("127.0.0.1")

    async def work() -> None:
        async with target(answers(OK)) as good:
            client = Client(loopback(good.port), resolver=resolver(look_up))
            for host in ("Shop.Example", "shop.example.", "shop.example"):
                assert (await get(client, f"http://{host}:{good.port}/")).status == 200
            assert asked == ["shop.example"]
            assert good.connections == 1
            assert b"\r\nHost: shop.example:%d\r\n" % good.port in good.requests[0]
            await client.close()

    run(work())


def test_a_forbidden_address_is_passed_over_and_a_dead_one_leaves_time_for_the_next() -> None:
    async def work() -> None:
        async with target(answers(OK)) as good:
            allowed = read_allowed("127.0.0.0/8", str(good.port))
            client = Client(allowed, resolver=resolver(["10.0.0.1", "::1", "127.0.0.9", "127.0.0.1"]))
            assert (await get(client, f"http://shop.example:{good.port}/")).status == 200
            await client.close()

    run(work())


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://127.0.0.1/", "address 127.0.0.1 is loopback; allow it with --deliver-ranges"),
        ("http://[::ffff:7f00:1]/", "loopback"),
        ("http://127.0.0.1./", "loopback"),
        ("http://metadata.example/", "address 169.254.169.254 is a cloud's metadata service"),
        ("http://8.8.8.8:22/", "port 22 is not allowed; allow it with --deliver-ports"),
    ],
)
def test_a_forbidden_target_is_refused_with_the_option_that_allows_it(url: str, error: str) -> None:
    async def work() -> None:
        client = Client(Allowed(), resolver=resolver(["169.254.169.254"]))
        answer = await get(client, url)
        assert error in answer.error
        assert answer.status == 0
        await client.close()

    run(work())


def test_a_dead_name_server_ends_in_time_and_an_unknown_name_at_once() -> None:
    over = threading.Event()

    def look_up(host: str) -> list[AddressInfo]:
        if host.startswith("dead"):
            over.wait(30)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def work() -> None:
        client = Client(Allowed(), resolver=resolver(look_up))
        for total_ms, limit in ((100, "0.1"), (200, "0.2")):
            answer = await get(client, "http://dead.example/", total_ms=total_ms)
            assert answer.error == f"the name dead.example was not looked up within {limit} s"
        assert (await get(client, "http://no.example/")).error == "the name no.example was not found"
        over.set()
        await client.close()

    run(work())


def test_the_system_is_asked_for_a_name() -> None:
    async def work() -> None:
        async with target(answers(OK)) as good:
            client = Client(read_allowed("127.0.0.0/8,::1/128", str(good.port)))
            assert (await get(client, f"http://localhost:{good.port}/")).status == 200
            await client.close()

    run(work())


def test_addresses_are_not_looked_up() -> None:
    async def work() -> None:
        async with target(answers(OK)) as good:
            client = Client(loopback(good.port), resolver=resolver(refuse_to_look_up))
            assert (await get(client, good.url())).status == 200
            await client.close()

    run(work())


def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with target(answers(OK)) as good, target(answers(OK)) as proxy:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
                monkeypatch.setenv(name, proxy.url(""))
            client = Client(loopback(good.port, proxy.port))
            assert (await get(client, good.url())).status == 200
            assert (good.connections, proxy.connections) == (1, 0)
            await client.close()

    run(work())


# --- the end -------------------------------------------------------------------------------------------------


def test_closing_ends_what_is_on_its_way_and_refuses_what_comes_after() -> None:
    async def work() -> None:
        async with target(SCRIPTED["never answers"][0]) as silent:
            client = Client(loopback(silent.port))
            sending = asyncio.create_task(get(client, silent.url()))
            await silent.asked.wait()
            await client.close()
            assert (await sending).error == "postbackd is stopping"
            assert (await get(client, silent.url())).error == "postbackd is stopping"

    run(work())


def test_a_cancelled_request_closes_its_connection() -> None:
    gone = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.silence()
        gone.set()

    async def work() -> None:
        async with target(script) as silent:
            client = Client(loopback(silent.port))
            sending = asyncio.create_task(get(client, silent.url()))
            await silent.asked.wait()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            await gone.wait()
            await client.close()

    run(work())


def test_a_client_that_would_verify_nothing_is_not_made() -> None:
    careless = make_tls()
    careless.check_hostname = False
    with pytest.raises(ValueError, match="verifies"):
        Client(Allowed(), careless)
    careless.verify_mode = ssl.CERT_NONE
    with pytest.raises(ValueError, match="verifies"):
        Client(Allowed(), careless)
    assert make_tls().minimum_version is ssl.TLSVersion.TLSv1_2
