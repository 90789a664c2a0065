"""One request against trackers that do what they must not: it ends in time, and says what happened."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from pathlib import Path

import pytest

from postbackd_client import Client, Conversion
from postbackd_client.endpoint import read_endpoint
from postbackd_client.transport import Answer, Connection, NoAnswer
from tests.client.tracker import Reply, Tracker
from tests.delivery.bad_targets import SCRIPTED, server_tls, swallowing
from tests.delivery.certificates import Certificate, Desk
from tests.delivery.targets import OK, Talk, answers, target

CONNECT_S, TOTAL_S = 0.25, 0.3
SLACK_S = 1.0
"""What a busy test machine may add to a time limit."""
BODY_BYTES = 4096


def send(connection: Connection) -> Answer | str:
    """The answer, or why there was none."""
    try:
        request = read_endpoint("http://127.0.0.1/p/KEY").request(Conversion("abc"))
        return connection.send(request, {}, BODY_BYTES)
    except NoAnswer as error:
        return str(error)


def send_once(url: str) -> Answer | str:
    connection = connection_to(url)
    try:
        return send(connection)
    finally:
        connection.close()


def connection_to(url: str, ca_file: str | None = None) -> Connection:
    return Connection(read_endpoint(url), CONNECT_S, TOTAL_S, ca_file)


@pytest.mark.parametrize("name", sorted(SCRIPTED))
def test_a_bad_tracker_costs_no_more_than_the_total_time(name: str) -> None:
    script, expected = SCRIPTED[name]

    async def ask() -> tuple[Answer | str, float]:
        async with target(script) as running:
            began = time.monotonic()
            answer = await asyncio.to_thread(send_once, running.url())
            return answer, time.monotonic() - began

    answer, took_s = asyncio.run(ask())
    assert took_s < TOTAL_S + SLACK_S
    if isinstance(answer, Answer):
        assert len(answer.body) <= BODY_BYTES
        assert expected.status in (0, answer.status)
    else:
        assert answer
    if expected.error.startswith("^no answer within"):
        assert answer == f"no answer within {TOTAL_S:g} s"


def test_a_tracker_that_takes_no_connection_costs_the_time_for_connecting() -> None:
    async def ask() -> tuple[Answer | str, float]:
        async with swallowing() as port:
            began = time.monotonic()
            answer = await asyncio.to_thread(send_once, f"http://127.0.0.1:{port}/")
            return answer, time.monotonic() - began

    answer, took_s = asyncio.run(ask())
    assert str(answer).endswith(f"within {CONNECT_S:g} s")
    assert CONNECT_S * 0.9 < took_s < CONNECT_S + SLACK_S


def test_connections_are_kept(tracker: Tracker) -> None:
    with closing(Client(tracker.url())) as client:
        assert {client.deliver(Conversion("abc")).kind for _ in range(5)} == {"accepted"}
    assert (len(tracker.asked), tracker.connections) == (5, 1)


def test_a_kept_connection_that_was_closed_meanwhile_costs_no_attempt() -> None:
    async def close_after_each(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK)

    async def ask() -> list[Answer | str]:
        async with target(close_after_each) as running:
            connection = connection_to(running.url())
            with closing(connection):
                return [await asyncio.to_thread(send, connection) for _ in range(3)]

    assert [one.status for one in asyncio.run(ask()) if isinstance(one, Answer)] == [200, 200, 200]


def test_what_is_said_before_an_answer_is_not_taken_for_it_nor_the_answer_for_that_of_the_next() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\n"
    numbered = [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number for number in range(2)]

    async def hint_first(talk: Talk) -> None:
        for answer in numbered:
            await talk.request()
            await talk.say(early, b"HTTP/1.1 100 Continue\r\n\r\n", early, answer)

    async def ask() -> list[Answer | str]:
        async with target(hint_first) as running:
            connection = connection_to(running.url())
            with closing(connection):
                return [await asyncio.to_thread(send, connection) for _ in range(2)]

    answered = [one for one in asyncio.run(ask()) if isinstance(one, Answer)]
    assert [(one.status, one.body) for one in answered] == [(200, b"0"), (200, b"1")]


def test_a_redirect_is_not_followed(tracker: Tracker) -> None:
    tracker.otherwise = Reply(302, headers={"Location": tracker.url("/elsewhere")})
    with closing(Client(tracker.url())) as client:
        outcome = client.deliver(Conversion("abc"))
    assert (outcome.kind, outcome.status) == ("retry", 302)
    assert [one.target for one in tracker.asked] == ["/p/KEY"]


def test_a_name_that_does_not_resolve_is_tried_again() -> None:
    outcome = Client("https://nobody.invalid/p/KEY").deliver(Conversion("abc"))
    assert outcome.kind == "retry"
    assert "KEY" not in outcome.reason


# --- TLS -----------------------------------------------------------------------------------------------------


def test_only_a_trusted_certificate_of_the_right_name_is_sent_to(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "desk")
    root = desk.sign(None, "basicConstraints=critical,CA:TRUE", name="root")
    good = desk.sign(root, "subjectAltName=DNS:localhost")
    other = desk.sign(root, "subjectAltName=DNS:elsewhere.example")
    alone = desk.sign(None, "subjectAltName=DNS:localhost")

    async def ask(certificate: Certificate, ca_file: str | None) -> tuple[str, int]:
        async with target(
            answers(OK), tls=server_tls(str(certificate.path), str(certificate.key))
        ) as running:
            client = Client(f"https://localhost:{running.port}/p?id={{click_id}}", ca_file=ca_file, total_s=5)
            outcome = await asyncio.to_thread(client.deliver, Conversion("abc"))
            client.close()
            return f"{outcome.kind} {outcome.reason}", len(running.requests)

    trusted = str(root.path)
    assert asyncio.run(ask(good, trusted)) == ("delivered ", 1)
    for certificate, ca_file in ((good, None), (other, trusted), (alone, trusted), (alone, None)):
        told, requests = asyncio.run(ask(certificate, ca_file))
        assert told.startswith("retry no TLS with localhost")
        assert "certificate is not trusted" in told
        assert requests == 0
