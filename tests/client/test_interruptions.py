"""A report that comes at the worst moment: in a signal handler, in a destructor, while threads cannot be started."""

from __future__ import annotations

import signal
import sys
import threading
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from postbackd_client import Client, Conversion, Outcome
from postbackd_client.bell import Bell
from tests.client.test_client import DEADLINE_S, client_of
from tests.client.tracker import Reply, Tracker


def test_a_signal_handler_may_report_in_the_middle_of_a_report(tracker: Tracker, tmp_path: Path) -> None:
    """At every line of the client once: no lock that is held there may be waited for."""
    with client_of(tracker.url("/t?c={click_id}"), tmp_path) as client:
        client.conversion("first")
        places: set[tuple[str, int]] = set()

        def report_too(frame: FrameType, event: str, _argument: Any) -> Any:
            place = (frame.f_code.co_filename, frame.f_lineno)
            if event == "line" and place not in places and "postbackd_client" in place[0]:
                places.add(place)
                signal.raise_signal(signal.SIGUSR1)
            return report_too

        before = signal.signal(signal.SIGUSR1, lambda *_: client.conversion("nested"))
        watching = threading.Thread(target=lambda: None)
        watching.start()
        try:
            sys.settrace(report_too)
            client.conversion("outer")
        finally:
            sys.settrace(None)
            signal.signal(signal.SIGUSR1, before)
        assert len(places) > 20
        assert client.statistics().reported == 2 + len(places)
        assert client.flush(DEADLINE_S)
    assert len(tracker.asked) == 2 + len(places)


def test_a_bell_is_heard_once_however_often_it_was_rung() -> None:
    bell = Bell()
    for _ in range(3):
        bell.ring()
    bell.wait(DEADLINE_S)
    assert bell._rings.empty()
    bell.wait(0)


def test_threads_that_cannot_be_started_are_started_once_when_they_can(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, allowed, started = threading.Thread.start, [1], []

    def refuse(thread: threading.Thread) -> None:
        if "postbackd" in thread.name:
            if not allowed[0]:
                raise RuntimeError("can't start new thread")
            allowed[0] -= 1
            started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with client_of("http://127.0.0.1:9/p/KEY", tmp_path) as client:
        for _ in range(5):
            client.conversion("a")
        assert len(started) == 1
        allowed[0] = 1_000
        for _ in range(5):
            client.conversion("a")
        assert sorted(name for name in started if "resolver" not in name) == [
            "postbackd-client-keeper",
            "postbackd-client-sender",
        ]
        assert client.statistics().waiting == 10


@pytest.mark.parametrize(
    "fields",
    [
        {"click_id": "a\udcff"},
        {"click_id": "a", "extra": {"\ud800": "x"}},
        {"click_id": "a", "extra": {"n" * 1_000: "x"}},
        {"click_id": "a", "extra": {5: "x"}},
        {"click_id": "a", "value": Decimal("1E+999999999")},
        {"click_id": "a", "transaction_id": 0},
    ],
)
def test_what_no_tracker_could_read_is_counted_and_neither_raised_nor_kept(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    with client_of("http://127.0.0.1:9/p/KEY", tmp_path) as client:
        client.conversion(**fields)
        client.conversion("good", extra={"name": "ünïcödé \U0001f600"}, value=Decimal("1E+3"))
        found = client.statistics()
    assert (found.unusable, found.waiting) == (1, 1)


def test_a_hook_that_ends_its_thread_ends_not_the_sending(tracker: Tracker, tmp_path: Path) -> None:
    def leave(_conversion: Conversion, _outcome: Outcome) -> None:
        sys.exit("enough")

    tracker.script.append(Reply(404))
    with client_of(tracker.url("/t?c={click_id}"), tmp_path, on_rejected=leave) as client:
        client.conversion("a")
        client.conversion("b")
        assert client.flush(DEADLINE_S)
    assert len(tracker.asked) == 2


def test_a_hook_may_report_and_close_the_client(tracker: Tracker, tmp_path: Path) -> None:
    closed = threading.Event()
    made: Client | None = None

    def end(_conversion: Conversion, _outcome: Outcome) -> None:
        assert made is not None
        made.conversion("from-the-hook")
        made.close(0)
        closed.set()

    tracker.script.append(Reply(404))
    made = Client(tracker.url("/t?c={click_id}"), spool=tmp_path, on_rejected=end)
    made.conversion("a")
    assert closed.wait(DEADLINE_S)
    with client_of(tracker.url("/t?c={click_id}"), tmp_path) as following:
        assert following.drain(DEADLINE_S)
    assert [one.target for one in tracker.asked if "hook" in one.target] == ["/t?c=from-the-hook"]
