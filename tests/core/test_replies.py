"""What an answer says about a delivery."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbackd.core.deliveries import Answer
from postbackd.core.model import How
from postbackd.core.replies import (
    BODY_BYTES,
    LONGEST_PAUSE_MS,
    Judged,
    Outcome,
    PatternError,
    check_patterns,
    excerpt,
    judge_answer,
    read_retry_after,
)

NOW_MS = 1_750_000_000_000
PLAIN = How()


def answered(status: int, body: bytes = b"", how: How = PLAIN, **headers: str) -> Judged:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return judge_answer(Answer(status=status, body=body, headers=named), how, NOW_MS)


def http_date(ms: int) -> str:
    return format_datetime(datetime.fromtimestamp(ms // 1000, UTC), usegmt=True)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_a_success(status: int) -> None:
    assert answered(status) == Judged(Outcome.DELIVERED)


@pytest.mark.parametrize("status", [100, 400, 401, 404, 408, 500, 501, 503, 599])
def test_everything_else_is_a_failure(status: int) -> None:
    assert answered(status) == Judged(Outcome.FAILED, f"HTTP {status}")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_a_failure_and_says_so(status: int) -> None:
    assert (
        answered(status, location="https://other.example/").reason
        == f"HTTP {status}: redirects are not followed"
    )


@pytest.mark.parametrize(
    ("error", "reason"), [("connect: timed out", "connect: timed out"), ("", "no answer")]
)
def test_no_answer_is_a_failure_with_its_reason(error: str, reason: str) -> None:
    assert judge_answer(Answer(error=error), PLAIN, NOW_MS) == Judged(Outcome.FAILED, reason)


def test_gone_pauses_the_target_and_keeps_the_delivery() -> None:
    assert answered(410) == Judged(Outcome.FAILED, "HTTP 410", pause_target=True)


@pytest.mark.parametrize("status", [429, 502, 504])
def test_an_overloaded_target_is_served_slower(status: int) -> None:
    assert answered(status).slow_down


def test_unavailable_means_slower_only_with_a_time_to_come_back() -> None:
    assert not answered(503).slow_down
    assert not answered(503, retry_after="soon").slow_down
    assert answered(503, retry_after="60") == Judged(
        Outcome.FAILED, "HTTP 503", slow_down=True, retry_after_ms=60_000
    )
    assert not answered(500, retry_after="60").slow_down


def test_a_success_asks_for_no_pause() -> None:
    assert answered(200, retry_after="60").retry_after_ms == 0


def test_a_target_can_say_which_statuses_are_final() -> None:
    how = How(final=(400, 410))
    assert answered(400, how=how) == Judged(Outcome.DEAD, "HTTP 400")
    assert answered(404, how=how).outcome is Outcome.FAILED
    assert answered(410, how=how) == Judged(Outcome.DEAD, "HTTP 410", pause_target=True)
    assert answered(200, how=How(final=(200,))).outcome is Outcome.DELIVERED


# --- bodies ---------------------------------------------------------------------------------------------------


def test_200_with_an_error_in_the_body_is_a_failure() -> None:
    how = How(failure=(r'"status"\s*:\s*"error"', "^ERR"))
    assert answered(200, b'{"status": "ok"}', how).outcome is Outcome.DELIVERED
    failed = answered(200, b'{"status" : "error"}', how)
    assert failed.outcome is Outcome.FAILED
    assert failed.reason.startswith("HTTP 200, but the answer fits the failure pattern")
    assert '"status"' in failed.reason
    assert answered(200, b"ERR 7", how).outcome is Outcome.FAILED


def test_a_success_pattern_must_be_found() -> None:
    how = How(success=("^1:0", "OK"))
    assert answered(200, b"1:0", how).outcome is Outcome.DELIVERED
    assert answered(204, b"it is OK", how).outcome is Outcome.DELIVERED
    assert answered(200, b"", how) == Judged(
        Outcome.FAILED, "HTTP 200, but the answer fits no success pattern"
    )
    assert answered(500, b"OK", how).reason == "HTTP 500"


def test_a_failure_pattern_wins_over_a_success_pattern() -> None:
    assert answered(200, b"OK error", How(success=("OK",), failure=("error",))).outcome is Outcome.FAILED


def test_200_with_an_error_can_be_final() -> None:
    assert answered(200, b"bad click", How(failure=("bad click",), final=(200,))).outcome is Outcome.DEAD


def test_only_the_beginning_of_a_body_is_looked_at() -> None:
    assert answered(200, b"x" * BODY_BYTES + b"error", How(failure=("error",))).outcome is Outcome.DELIVERED


@given(st.integers(0, 999), st.binary(max_size=200), st.dictionaries(st.just("retry-after"), st.text()))
def test_any_answer_is_judged(status: int, body: bytes, headers: dict[str, str]) -> None:
    how = How(success=("a",), failure=("b",), final=(404,))
    judged = judge_answer(Answer(status=status, body=body, headers=headers), how, NOW_MS)
    assert 0 <= judged.retry_after_ms <= LONGEST_PAUSE_MS
    assert bool(judged.reason) is (judged.outcome is not Outcome.DELIVERED)


# --- Retry-After ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wait_ms"),
    [
        ("120", 120_000),
        (" 5 ", 5000),
        ("0", 0),
        ("86401", LONGEST_PAUSE_MS),
        ("9" * 5000, LONGEST_PAUSE_MS),
        (http_date(NOW_MS + 90_000), 90_000),
        (http_date(NOW_MS + 400 * LONGEST_PAUSE_MS), LONGEST_PAUSE_MS),
        (http_date(NOW_MS - 90_000), 0),
        ("Sunday, 15-Jun-25 15:08:10 GMT", 90_000),
        ("", 0),
        ("-5", 0),
        ("1.5", 0),
        ("soon", 0),
        ("\u0661\u0662", 0),
        ("Sun, 99 Jun 2025 99:99:99 GMT", 0),
        ("GMT", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, wait_ms: int) -> None:
    assert read_retry_after(text, NOW_MS) == wait_ms


@given(st.text() | st.text().map(lambda text: text + "GMT"))
def test_any_retry_after_is_read(text: str) -> None:
    assert 0 <= read_retry_after(text, NOW_MS) <= LONGEST_PAUSE_MS


# --- patterns -------------------------------------------------------------------------------------------------

USUAL = [
    "^OK",
    r'"status"\s*:\s*"error"',
    r'"code"\s*:\s*[1-9]\d*',
    r"(?i)error",
    r"(?:error|failed)\b",
    r'"result":\{"ok":(?:true)?',
    r"[(]x*[]^)]+",
    r"a{2,5}b?",
    r"error.*click",
    r"(?P<code>\d+) (?=failed)(?<!not )failed",
    r"\(a+\)+",
    r"(?i:ok)|done",
]


@pytest.mark.parametrize("pattern", USUAL)
def test_a_usual_pattern_may_be_used_and_is_fast_on_hostile_answers(pattern: str) -> None:
    check_patterns((pattern,))
    how = How(failure=(pattern,))
    hostile = ["a", '"', " ", "error", '"status"', '"code" ', "9", "x(", "error click", "\\"]
    started = process_time()
    for part in hostile:
        answered(200, (part * BODY_BYTES).encode()[:BODY_BYTES], how)
    assert process_time() - started < 2


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        ("", "is empty"),
        ("a" * 201, "more than 200"),
        ("(", "is no regular expression"),
        ("a{99999999999}", "is no regular expression"),
        ("[a||b]", "is no regular expression: Possible set union"),
        (r"(a)\1", "refers to a group"),
        (r"(?P<a>x)(?P=a)", "refers to a group"),
        (r"(?#note)a", "refers to a group"),
        ("(a+)+", "repeats a group that repeats"),
        ("(?P<a>a+)+b", "repeats a group that repeats"),
        ("(?:a|aa)*b", "repeats a group that repeats"),
        ("((a?)){2,}", "repeats a group that repeats"),
        ("(?i:x(a*)y)*", "repeats a group that repeats"),
        ("a.*b.+c", "more than one .*"),
        ("a*b*c*d*e*", "more than 4"),
    ],
)
def test_a_pattern_that_could_take_for_ever_is_refused(pattern: str, what: str) -> None:
    with pytest.raises(PatternError, match=re.escape(what)):
        check_patterns((pattern,))


def test_there_are_not_too_many_patterns() -> None:
    with pytest.raises(PatternError, match="20 are the most"):
        check_patterns(("a",) * 21)


@given(st.text(alphabet="ab()|*+?{}[]\\^$.,:1<>=!-", max_size=20))
def test_any_pattern_is_checked(pattern: str) -> None:
    try:
        check_patterns((pattern,))
    except PatternError:
        return
    re.compile(pattern)


# --- excerpts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"", ""),
        (b"  OK\r\n\tdone ", "OK done"),
        (b"a\x00b\x1b[31m", "a b [31m"),
        ("\u20ac\u202ex".encode(), "\u20ac x"),
        (b"\xff", "\ufffd"),
        (b"x" * 300, "x" * 200),
    ],
)
def test_an_excerpt_is_one_printable_line(body: bytes, shown: str) -> None:
    assert excerpt(body.decode("utf-8", "replace")) == shown


@given(st.binary(max_size=500))
def test_any_body_has_an_excerpt(body: bytes) -> None:
    assert excerpt(body.decode("utf-8", "replace")).isprintable()
