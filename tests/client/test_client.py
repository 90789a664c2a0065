"""The client as a shop uses it: against the real server, and against a tracker that answers by script."""

from __future__ import annotations

import json
import logging
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from postbackd_client import Client, Conversion, Limits, Outcome, Schedule, dead, preset
from postbackd_client.payload import encode
from tests.client.tracker import Reply, Tracker
from tests.ingest.shop import KEY, Shop, wait_until

SOON = Schedule(first_s=0.01, longest_s=0.02)
DEADLINE_S = 20.0


@contextmanager
def client_of(url: str, spool: Path, **options: Any) -> Iterator[Client]:
    options.setdefault("schedule", SOON)
    made = Client(url, spool=spool, **options)
    try:
        yield made
    finally:
        made.close(0)


def conversions(server: Shop, click_id: str) -> list[dict[str, Any]]:
    rows = server.rows(
        "SELECT type, transaction_id, value_micros, currency FROM conversions ORDER BY transaction_id"
    )
    assert click_id
    return rows


# --- the real server -----------------------------------------------------------------------------------------


def test_a_conversion_is_counted_and_its_repeat_is_not(server: Shop, tmp_path: Path) -> None:
    click_id, before = server.click(), server.count("conversions")
    with client_of(f"http://127.0.0.1:{server.port}/p/{KEY}", tmp_path) as client:
        for _ in range(2):
            client.conversion(click_id, type="sale", value="12.50", currency="USD", transaction_id="A-1001")
        assert client.flush(DEADLINE_S)
        found = client.statistics()
    assert found.sent == {"accepted": 1, "duplicate": 1}
    assert (found.reported, found.waiting, found.failed, found.dead) == (2, 0, 0, 0)
    assert server.count("conversions") == before + 1
    row = server.rows("SELECT * FROM conversions WHERE transaction_id = 'A-1001'")[0]
    assert (row["type"], row["value_micros"], row["currency"]) == ("sale", 12_500_000, "USD")


def test_a_large_backlog_goes_in_batches_and_each_has_its_verdict(server: Shop, tmp_path: Path) -> None:
    click_id, heard = server.click(), []
    nowhere = Client("http://127.0.0.1:9/p/KEY", spool=tmp_path)
    for number in range(500):
        nowhere.conversion(click_id, transaction_id=f"B-{number}")
    nowhere.conversion("nonsense", transaction_id="B-foreign")
    nowhere.conversion(click_id, value="{payout}", transaction_id="B-literal")
    nowhere.close(0)

    def hear(conversion: Conversion, outcome: Outcome) -> None:
        heard.append((conversion.transaction_id, outcome.kind, outcome.reason))

    url = f"http://127.0.0.1:{server.port}/p/{KEY}"
    with client_of(url, tmp_path, on_rejected=hear, on_unmatched=hear) as client:
        assert client.drain(DEADLINE_S, any_url=True)
        found = client.statistics()
    assert found.sent == {"accepted": 500, "unmatched": 1, "rejected": 1}
    assert found.requests <= 5
    assert sorted(heard) == [
        ("B-foreign", "unmatched", "click_id_foreign"),
        ("B-literal", "rejected", "value_macro_literal"),
    ]


def test_delivering_says_what_became_of_one(server: Shop) -> None:
    client = Client(f"http://127.0.0.1:{server.port}/p/{KEY}")
    conversion = Conversion(server.click(), "sale", "3", "USD", "D-1")
    kinds = [client.deliver(conversion).kind, client.deliver(conversion).kind]
    outcome = client.deliver(Conversion("{click_id}"))
    client.close()
    other = Client(f"http://127.0.0.1:{server.port}/p/nobodys-key-0000000000000")
    refused = other.deliver(conversion)
    other.close()
    assert kinds == ["accepted", "duplicate"]
    assert (outcome.kind, outcome.reason, bool(outcome.request_id)) == ("unmatched", "macro_literal", True)
    assert (refused.kind, refused.status) == ("refused", 404)


def test_a_time_of_its_own_reaches_the_server(server: Shop, tmp_path: Path) -> None:
    """A conversion that waited for a day happened when it was reported."""
    with client_of(f"http://127.0.0.1:{server.port}/p/{KEY}", tmp_path) as client:
        client.conversion(server.click(), transaction_id="T-1", time=1_750_000_000)
        assert client.flush(DEADLINE_S)
    assert server.rows("SELECT status_time_ms FROM conversions WHERE transaction_id = 'T-1'") == [
        {"status_time_ms": 1_750_000_000_000}
    ]


def test_the_client_signs_what_a_server_verifies(server: Shop, tmp_path: Path) -> None:
    from postbackd.core.model import Network
    from postbackd.core.senders import Scheme, Secret, Senders

    key = "kEyOfTheSigningNetwork000"
    senders = Senders(signature_mode="enforce", scheme=Scheme(), secrets=(Secret("pbs_secret"),))
    server.publish(Network(id=0, name="signing", key=key, senders=senders))
    url, click_id = f"http://127.0.0.1:{server.port}/p/{key}", server.click()
    signing, unsigned = Client(url, secret="pbs_secret"), Client(url)
    kinds = [signing.deliver(Conversion(click_id, transaction_id="S-1")).kind]
    kinds.append(unsigned.deliver(Conversion(click_id, transaction_id="S-2")).kind)
    signing.close()
    unsigned.close()
    with client_of(url, tmp_path, secret="pbs_secret") as client:
        for number in range(40):
            client.conversion(click_id, transaction_id=f"S-batch-{number}")
        assert client.flush(DEADLINE_S)
        assert client.statistics().sent == {"accepted": 40}
    assert kinds == ["accepted", "refused"]
    assert "pbs_secret" not in repr(vars(signing))


# --- nothing reaches the caller ------------------------------------------------------------------------------


def test_what_is_no_conversion_is_counted_and_logged_and_never_raised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad: list[dict[str, Any]] = [
        {"click_id": ""},
        {"click_id": None},
        {"click_id": "abc", "value": 12.5},
        {"click_id": "abc", "extra": 7},
        {"click_id": "abc", "time": object()},
    ]
    with client_of("http://127.0.0.1:9/p/KEY", tmp_path) as client:
        for fields in bad:
            client.conversion(**fields)
        assert client.statistics().unusable == len(bad)
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == len(bad)
    assert list(tmp_path.iterdir()) == []


def test_a_client_without_a_spool_says_how_to_make_one(caplog: pytest.LogCaptureFixture) -> None:
    client = Client("http://127.0.0.1:9/p/KEY")
    client.conversion("abc")
    assert "spool=directory" in caplog.text
    assert client.flush(0)


def test_what_is_reported_to_a_closed_client_is_sent_by_the_next(
    tracker: Tracker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with client_of(tracker.url(), tmp_path) as client:
        client.close(0)
        client.conversion("abc")
        client.conversion("abd")
        assert client.statistics().dropped == 0
    assert "the client is closed" in caplog.text
    with client_of(tracker.url(), tmp_path) as following:
        assert following.drain(DEADLINE_S)
    assert len(tracker.asked) == 2


def test_a_closed_client_without_a_disk_loses_nothing_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with client_of("http://127.0.0.1:9/p/KEY", tmp_path / "file" / "spool") as client:
        client.close(0)
        client.conversion("abc")
        assert client.statistics().dropped == 1
    assert "found no place" in caplog.text


def test_a_tracker_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/p/KEY"
        with client_of(url, tmp_path, total_s=0.2) as client:
            for number in range(300):
                client.conversion("abc", transaction_id=str(number))
            assert not client.flush(0.3)
            found = client.statistics()
    assert found.waiting == 300
    assert found.failed >= 1


def test_neither_the_key_nor_what_was_bought_is_logged(
    tracker: Tracker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tracker.script += [Reply(503), Reply(404), Reply(200, headers={"Postbackd-Verdict": "unmatched"})]
    with client_of(tracker.url("/p/SECRETKEY"), tmp_path, secret="SECRETTOO") as client:
        for number in range(3):
            client.conversion("CLICKID", value="77.70", transaction_id=f"ORDER-{number}")
        assert client.flush(DEADLINE_S)
    assert len(caplog.records) >= 3
    for word in ("SECRET", "CLICKID", "77.70", "ORDER"):
        assert word not in caplog.text


# --- retries -------------------------------------------------------------------------------------------------


def told(asked: Tracker) -> list[str]:
    return [one.body.decode() for one in asked.asked]


@pytest.mark.parametrize("status", [503, 500, 429, 408, 302])
def test_what_may_pass_is_sent_again_under_the_same_key(
    tracker: Tracker, tmp_path: Path, status: int
) -> None:
    tracker.script += [Reply(status)] * 2
    with client_of(tracker.url(), tmp_path) as client:
        client.conversion("abc", value=5)
        assert client.flush(DEADLINE_S)
        found = client.statistics()
    assert (found.sent, found.failed) == ({"accepted": 1}, 2)
    assert len(set(told(tracker))) == 1
    assert "txid=" in told(tracker)[0]


def test_retry_after_is_waited_for(tracker: Tracker, tmp_path: Path) -> None:
    tracker.script.append(Reply(429, headers={"Retry-After": "3000"}))
    with client_of(tracker.url(), tmp_path) as client:
        client.conversion("abc")
        wait_until(lambda: client.statistics().failed, "a refusal")
        client.conversion("abc")
        works = client._works
        assert works
        left_s = works._sender._paused_until - time.monotonic()
        assert 2900 < left_s <= 3000
        assert len(tracker.asked) == 1
        assert client.flush(DEADLINE_S), "a flush asks at once"


def test_what_will_not_pass_is_kept_as_dead_and_told(tracker: Tracker, tmp_path: Path) -> None:
    heard: list[Outcome] = []
    tracker.script.append(Reply(404))
    with client_of(tracker.url(), tmp_path, on_rejected=lambda _, outcome: heard.append(outcome)) as client:
        client.conversion("abc", transaction_id="X-1")
        client.conversion("abc", transaction_id="X-2")
        assert client.flush(DEADLINE_S)
        found = client.statistics()
        assert "postbackd-client dead" in client.health().problems[0]
    assert (found.sent, found.dead) == ({"refused": 1, "accepted": 1}, 1)
    entry = next(dead.entries(tmp_path))
    assert (entry["status"], entry["conversion"]["transaction_id"]) == (404, "X-1")
    assert [one.status for one in heard] == [404]


def test_one_that_spoils_a_batch_is_found_and_the_others_arrive(tracker: Tracker, tmp_path: Path) -> None:
    nowhere = Client("http://127.0.0.1:9/p/KEY", spool=tmp_path)
    for number in range(30):
        nowhere.conversion("abc", transaction_id=f"P-{number}")
    nowhere.close(0)
    tracker.script += [Reply(413), Reply(200), Reply(400)]
    with client_of(tracker.url(), tmp_path) as client:
        assert client.drain(DEADLINE_S, any_url=True)
        assert client.statistics().sent == {"accepted": 29, "refused": 1}
    assert next(dead.entries(tmp_path))["conversion"]["transaction_id"] == "P-1"


def test_one_that_always_fails_lets_the_others_pass(tmp_path: Path, tracker: Tracker) -> None:
    tracker.script += [Reply(500)] * 3
    slow_for_one = Schedule(first_s=0.01, longest_s=0.01)
    with client_of(tracker.url(), tmp_path, schedule=slow_for_one) as client:
        client.conversion("abc", transaction_id="poison")
        client.conversion("abc", transaction_id="honey")
        assert client.flush(DEADLINE_S)
        assert client.statistics().sent == {"accepted": 2}
    order = [text.partition("txid=")[2].partition("&")[0] for text in told(tracker)]
    assert order[:3] == ["poison"] * 3
    assert sorted(order[3:]) == ["honey", "poison"]


def test_what_is_too_old_is_given_up_and_kept(tracker: Tracker, tmp_path: Path) -> None:
    tracker.otherwise = Reply(503)
    at_once = Schedule(first_s=0.01, longest_s=0.02, give_up_after=timedelta(seconds=-1))
    with client_of(tracker.url(), tmp_path, schedule=at_once) as client:
        client.conversion("abc", transaction_id="old")
        assert client.flush(DEADLINE_S)
        assert client.statistics().dead == 1
    assert next(dead.entries(tmp_path))["reason"] == "given up: the tracker answered 503"


def test_a_text_in_the_spool_that_is_no_conversion_does_not_stop_the_others(
    tracker: Tracker, tmp_path: Path
) -> None:
    with client_of(tracker.url(), tmp_path) as client:
        client.conversion("abc")
        assert client.flush(DEADLINE_S)
        works = client._works
        assert works
        works.report(0, "{nonsense", durable=False)
        client.conversion("abc")
        assert client.flush(DEADLINE_S)
        assert client.statistics().dead == 1
    assert len(tracker.asked) == 2


def test_a_hook_that_fails_stops_nothing(
    tracker: Tracker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker.otherwise = Reply(200, headers={"Postbackd-Verdict": "unmatched"})

    def fail(*_: object) -> None:
        raise RuntimeError("the shop's own mistake")

    with client_of(tracker.url(), tmp_path, on_unmatched=fail) as client:
        client.conversion("abc")
        client.conversion("abc")
        assert client.flush(DEADLINE_S)
        assert client.statistics().sent == {"unmatched": 2}
    assert "the shop's own mistake" in caplog.text


def test_any_tracker_is_told_by_its_template(tracker: Tracker, tmp_path: Path) -> None:
    template = tracker.url("/postback?cid={click_id}&payout={value}&txid={transaction_id}&sub1={sub1}")
    with client_of(template, tmp_path) as client:
        for number in range(40):
            client.conversion("abc", value="1.50", transaction_id=f"V-{number}", extra={"sub1": "x"})
        assert client.flush(DEADLINE_S)
        assert client.statistics().sent == {"accepted": 40}
    assert [one.target for one in tracker.asked] == [
        f"/postback?cid=abc&payout=1.50&txid=V-{number}&sub1=x" for number in range(40)
    ]


def test_a_tracker_that_refuses_with_200_is_understood(tracker: Tracker) -> None:
    tracker.otherwise = Reply(200, b"success=false; err_msg=Invalid Trans. ID #9;")
    made = preset("tune", domain="demo.go2cloud.org")
    client = Client(made._replace(url=made.url.replace("https://demo.go2cloud.org", tracker.url(""))))
    outcome = client.deliver(Conversion("abc"))
    client.close()
    assert (outcome.kind, outcome.reason) == ("refused", "Invalid Trans. ID #9")


# --- durable -------------------------------------------------------------------------------------------------


def on_disk(spool: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many bytes of a log its last sync has covered."""
    covered: list[int] = [0]
    import os

    sync = os.fdatasync

    def note(number: int) -> None:
        size = os.fstat(number).st_size
        sync(number)
        covered[0] = max(covered[0], size)

    monkeypatch.setattr("postbackd_client.segment.sync_file", note)
    return lambda: covered[0]


def test_a_durable_client_returns_when_the_disk_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    covered = on_disk(tmp_path, monkeypatch)
    with client_of("http://127.0.0.1:9/p/KEY", tmp_path, durable=True) as client:
        for number in range(5):
            client.conversion("abc", transaction_id=f"{number:0100d}")
            assert covered() == next(tmp_path.glob("*-wal")).stat().st_size


def test_a_client_that_is_not_durable_does_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the one above: here the disk never answers, and nobody notices."""
    never = threading.Event()
    monkeypatch.setattr("postbackd_client.segment.sync_file", lambda _number: never.wait())
    with client_of("http://127.0.0.1:9/p/KEY", tmp_path) as client:
        for number in range(50):
            client.conversion("abc", transaction_id=str(number))
        assert client.statistics().waiting == 50
        never.set()


# --- limits --------------------------------------------------------------------------------------------------


def test_what_is_lost_is_counted_and_health_says_so(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("no directory")
    limits = Limits(memory_rows=5)
    with client_of("http://127.0.0.1:9/p/KEY", tmp_path / "spool", limits=limits) as client:
        for _ in range(8):
            client.conversion("abc")
        found, health, text = client.statistics(), client.health(), client.prometheus()
    assert (found.in_memory, found.dropped) == (5, 3)
    assert not health.ok
    assert "make room" in health.problems[0]
    assert "postbackd_client_dropped_total 3" in text


def test_a_batch_is_what_the_texts_in_the_spool_are(tmp_path: Path) -> None:
    """Whatever reads the file beside this client finds JSON in it."""
    made = Conversion("abc", transaction_id="R-1", extra={"sub1": "ä"})
    with client_of("http://127.0.0.1:9/p/KEY", tmp_path) as client:
        client.report(made)
    database = sqlite3.connect(next(tmp_path.glob("*.spool")))
    (text,) = database.execute("SELECT payload FROM waiting").fetchone()
    database.close()
    assert text == encode(made)
    assert json.loads(text)["sub1"] == "ä"
