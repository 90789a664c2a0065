"""What answers mean, those of postbackd and those of others; when something is tried again."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from postbackd_client.answers import POSTBACKD, SILENT, Outcome, read_answer, read_batch, read_retry_after
from postbackd_client.presets import PRESETS
from postbackd_client.schedule import Schedule
from postbackd_client.statistics import Statistics, Tally, judge, write_prometheus

NOW_S = 1_750_000_000.0


def read(status: int, body: bytes = b"", **headers: str) -> Outcome:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return read_answer(status, named, body, NOW_S, SILENT)


@pytest.mark.parametrize("word", ["accepted", "duplicate", "updated", "held", "unmatched", "rejected"])
def test_a_verdict_is_read_from_the_headers_or_from_the_body(word: str) -> None:
    document = {"verdict": word, "reason": "macro_literal", "request": "0sa", "cause": "…"}
    told = read(200, b"OK", postbackd_verdict=word, postbackd_reason="macro_literal", x_request_id="0sa")
    assert told == read(200, json.dumps(document).encode())
    assert (told.kind, told.verdict, told.reason, told.request_id) == (word, word, "macro_literal", "0sa")
    assert told.settled


def test_queued_is_a_promise_to_count() -> None:
    assert read(200, b'{"verdict":"queued"}').kind == "accepted"


def test_a_strict_network_rejects_with_422() -> None:
    assert read(422, b'{"verdict":"rejected","reason":"value_invalid"}').kind == "rejected"
    assert read(422, b"<html>").kind == "refused"


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206])
def test_a_success_of_another_tracker_is_delivered(status: int) -> None:
    assert read(status, b"whatever").kind == "delivered"
    assert read(status, b"{]").kind == "delivered"


@pytest.mark.parametrize("body", [b"", b"<html>We are back soon", b"{}", b'{"ok":true}'])
def test_a_success_without_a_verdict_is_not_postbackds_and_is_tried_again(body: bytes) -> None:
    outcome = read_answer(200, {}, body, NOW_S, POSTBACKD)
    assert (outcome.kind, outcome.settled) == ("retry", False)
    assert "in front of postbackd" in outcome.reason
    assert read_answer(200, {"postbackd-verdict": "accepted"}, body, NOW_S, POSTBACKD).kind == "accepted"


@pytest.mark.parametrize("status", [301, 302, 307, 408, 425, 429, 500, 502, 503, 504, 599, 100])
def test_what_may_pass_is_tried_again(status: int) -> None:
    outcome = read(status, b"", retry_after="7")
    assert (outcome.kind, outcome.settled, outcome.counted, outcome.retry_after_s) == (
        "retry",
        False,
        False,
        7.0,
    )


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413, 414, 451])
def test_what_will_not_pass_is_refused(status: int) -> None:
    outcome = read(status)
    assert (outcome.kind, outcome.settled, outcome.counted) == ("refused", True, False)
    assert str(status) in outcome.reason


def test_a_redirect_says_what_to_do() -> None:
    assert "set the URL that it leads to" in read(301).reason


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 3 ", 3.0),
        ("999999999", 3_600.0),
        ("Sun, 15 Jun 2025 15:07:00 GMT", 20.0),
        ("Sun, 15 Jun 2025 15:00:00 GMT", 0.0),
        ("Sun, 15 Jun 2036 15:00:00 GMT", 3_600.0),
        ("", None),
        ("-5", None),
        ("soon, please", None),
        ("1.5", None),
        ("9" * 4096, None),
        ("Sun, 99 Jun 2025 15:00:00 GMT", None),
        ("\xff", None),
        ("Sun, 15 Jun " + "9" * 30 + " 15:00:00 GMT", None),
        ("Sun, 15 Jun 2025 " + "9" * 30 + ":00:00 GMT", None),
        ("Sun, 15 Jun 2025 15:00:00 +" + "9" * 30, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_never_more_than_an_hour(
    text: str, seconds: float | None
) -> None:
    assert read_retry_after(text, NOW_S) == seconds


def test_tune_refuses_with_200_and_a_repeat_is_no_refusal() -> None:
    def told(body: bytes) -> Outcome:
        return read_answer(200, {}, body, NOW_S, PRESETS["tune"].meaning)

    assert told(b"success=true;").kind == "delivered"
    refused = told(b"success=false; err_msg=Invalid Trans. ID #1027c887059b47b.;")
    assert (refused.kind, refused.reason) == ("refused", "Invalid Trans. ID #1027c887059b47b.")
    assert told(b"success=false; err_msg=Duplicate conversion;").kind == "duplicate"


@pytest.mark.parametrize(
    "body", [b"", b"OK", b"{}", b"[]", b'[{"verdict":"accepted"}]', b'[{"verdict":"accepted"},7]', b"[[],[]]"]
)
def test_an_answer_that_does_not_fit_a_batch_says_nothing(body: bytes) -> None:
    assert read_batch(200, body, 2) is None


def test_a_batch_has_a_verdict_for_each() -> None:
    outcomes = read_batch(200, b'[{"verdict":"accepted"},{"verdict":"unmatched","reason":"click_purged"}]', 2)
    assert outcomes is not None
    assert [(one.kind, one.reason) for one in outcomes] == [("accepted", ""), ("unmatched", "click_purged")]


def test_words_of_an_answer_are_short_and_on_one_line() -> None:
    assert read(
        200, b"", postbackd_verdict="rejected", postbackd_reason="a\r\nb" + "x" * 999
    ).reason == "ab" + ("x" * 196)


# --- schedules -----------------------------------------------------------------------------------------------


def test_waits_double_up_to_the_longest_and_chance_shortens_them() -> None:
    schedule = Schedule(first_s=1, longest_s=100)
    assert [schedule.postpone_s(times, 0) for times in (1, 2, 3, 7, 8, 9, 10_000)] == [
        1,
        2,
        4,
        64,
        100,
        100,
        100,
    ]
    assert schedule.postpone_s(1, 1) == 0.5
    assert Schedule().postpone_s(99, 0) == 3600


def test_a_tracker_is_asked_once_a_minute_at_least() -> None:
    assert Schedule().pause_s(99, 0) == 60


def test_nothing_is_given_up_within_days() -> None:
    assert not Schedule().is_over(timedelta(days=6.9).total_seconds())
    assert Schedule().is_over(timedelta(days=7.1).total_seconds())


# --- figures -------------------------------------------------------------------------------------------------


def figures(**changed: object) -> Statistics:
    from dataclasses import replace

    return replace(Tally().summary(), **changed)  # type: ignore[arg-type]


def test_health_says_what_is_wrong_and_what_to_do() -> None:
    assert judge(figures(), "", "", "/spool").ok
    old = judge(figures(waiting=3, oldest_age_s=4000.0), "connection refused", "", "/spool")
    assert not old.ok
    assert "connection refused" in old.problems[0]
    assert not judge(figures(), "", "disk full", "/spool").ok
    dead = judge(figures(dead=2), "", "", "/spool")
    assert dead.ok
    assert "postbackd-client dead" in dead.problems[0]


def test_every_figure_of_prometheus_has_a_type_and_a_number() -> None:
    tally = Tally()
    for number in range(100):
        tally.time_request(number / 100)
    text = write_prometheus(tally.summary())
    values = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name = line.split()[2]
        else:
            assert line.startswith(name)
            values[line.rpartition(" ")[0]] = float(line.rpartition(" ")[2])
    assert values['postbackd_client_request_seconds{quantile="0.99"}'] == 0.99
    assert values["postbackd_client_request_seconds_count"] == 100
    assert values["postbackd_client_waiting"] == 0
