"""The cookie: what a visitor can do with it, and what it says to browsers and caches."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbackd_client.capture import AD_CLICK_IDS, Capture, cookies, shapes, tokens
from postbackd_client.capture.cookies import SetCookie
from postbackd_client.capture.tokens import Entry
from postbackd_client.capture.visit import Visit

SECRET = b"a secret that is long enough"
OLD_SECRET = b"the secret of the year before"
OURS = "0cmfxxv01zzzzg001a1e618bfz"
OTHER = "0e72zm0000400g0001jtja4h6m"
NOW = 1_795_000_060
DAY = 86_400


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now + 0.5


def made(**settings: Any) -> Capture:
    return Capture(**{"secret": SECRET, "clock": Clock(), **settings})


def visit(capture: Capture, query: str = "", cookie: str | None = None, gpc: str | None = None) -> Visit:
    return Visit(capture, None, query=query, cookie=cookie, gpc=gpc)


def cookie_of(capture: Capture, query: str, cookie: str | None = None) -> str:
    """What a browser sends back after a landing."""
    kept = visit(capture, query, cookie).set_cookie
    assert kept is not None
    return f"{kept.name}={kept.value}"


def entries() -> st.SearchStrategy[Entry]:
    value = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)
    return st.builds(Entry, value, st.integers(0, 10**12))


# --- the text -------------------------------------------------------------------------------------------------


@given(st.dictionaries(st.sampled_from(["click_id", *AD_CLICK_IDS]), entries()))
def test_what_is_written_is_read_again_and_needs_no_quotes_in_a_cookie(record: dict[str, Entry]) -> None:
    text = tokens.write(record)
    assert tokens.read(text) == record
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:%._~-")


def test_the_usual_cookie_takes_less_than_a_hundred_bytes() -> None:
    assert len(cookie_of(made(), f"click_id={OURS}")) < 100


def test_a_cookie_is_never_larger_than_a_browser_keeps_and_the_click_id_stays() -> None:
    query = "&".join(f"{name}={'x' * 500}" for name in AD_CLICK_IDS)
    header = cookie_of(made(also=AD_CLICK_IDS), f"{query}&click_id={OURS}")
    assert 3_000 < len(header) < 4_096
    assert visit(made(also=AD_CLICK_IDS), cookie=header).click_id() == OURS


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200), st.none(), st.integers()))
def test_no_kept_text_makes_reading_fail(text: object) -> None:
    capture = made()
    assert capture.decode(text, NOW) == {}
    for entry in tokens.read(text).values():
        assert isinstance(entry.value, str)


# --- forgery --------------------------------------------------------------------------------------------------


class Credulous(tokens.Signer):
    """The control: believes what it is told."""

    def verify(self, text: str) -> str | None:
        return text.rpartition(":")[0]


def credulous() -> Capture:
    capture = made()
    object.__setattr__(capture, "signer", Credulous([SECRET], capture.cookie))
    return capture


_POSITIONS = st.integers(0, 10_000)


@given(
    position=_POSITIONS,
    character=st.characters(min_codepoint=33, max_codepoint=126, blacklist_characters=';"'),
)
def test_a_cookie_with_any_character_changed_says_nothing(position: int, character: str) -> None:
    genuine = cookie_of(made(), f"click_id={OURS}").partition("=")[2]
    position %= len(genuine)
    forged = genuine[:position] + character + genuine[position + 1 :]
    if forged != genuine:
        assert visit(made(), cookie=f"pbk={forged}").click_id() is None


@given(
    st.text(st.sampled_from("0123456789abcdefghjkmnpqrstvwxyz"), min_size=26, max_size=26),
    st.integers(0, 3_600),
)
def test_nobody_without_the_secret_writes_a_cookie_and_the_control_believes_them(
    click_id: str, age: int
) -> None:
    body = tokens.write({"click_id": Entry(click_id, NOW - age)})
    genuine = cookie_of(made(), f"click_id={OURS}").rpartition(":")[2]
    foreign = tokens.Signer([b"a secret of somebody else"], "pbk").sign(body)
    for forged in (f"{body}:{genuine}", f"{body}:", body, foreign, f"{body}:{'A' * 43}"):
        assert visit(made(), cookie=f"pbk={forged}").click_id() is None
    if shapes.refusal(click_id) is None:
        assert visit(credulous(), cookie=f"pbk={foreign}").click_id() == click_id


def test_a_genuine_cookie_under_another_name_says_nothing() -> None:
    value = cookie_of(made(cookie="other"), f"click_id={OURS}").partition("=")[2]
    assert visit(made(cookie="other"), cookie=f"other={value}").click_id() == OURS
    assert visit(made(), cookie=f"pbk={value}").click_id() is None


def test_a_cookie_of_an_older_secret_is_believed_as_long_as_the_secret_is_named() -> None:
    header = cookie_of(made(secret=OLD_SECRET), f"click_id={OURS}")
    assert visit(made(secret=[SECRET, OLD_SECRET]), cookie=header).click_id() == OURS
    assert visit(made(secret=[SECRET]), cookie=header).click_id() is None
    newest = cookie_of(made(secret=[SECRET, OLD_SECRET]), f"click_id={OURS}")
    assert visit(made(secret=SECRET), cookie=newest).click_id() == OURS


def test_a_text_and_bytes_are_the_same_secret() -> None:
    header = cookie_of(made(secret=SECRET.decode()), f"click_id={OURS}")
    assert visit(made(), cookie=header).click_id() == OURS


def test_a_cookie_that_another_host_of_the_domain_put_beside_ours_does_not_hide_it() -> None:
    header = cookie_of(made(), f"click_id={OURS}")
    assert visit(made(), cookie=f"pbk=junk; pbk=1:click_id:x:1:y; {header}; a=b").click_id() == OURS


# --- age ------------------------------------------------------------------------------------------------------


def test_a_cookie_that_a_browser_kept_too_long_is_not_believed() -> None:
    clock = Clock()
    capture = made(clock=clock, life=timedelta(days=30))
    header = cookie_of(capture, f"click_id={OURS}")
    clock.now += 30 * DAY - 1
    assert visit(capture, cookie=header).click_id() == OURS
    clock.now += 1
    assert visit(capture, cookie=header).click_id() is None


def test_coming_back_through_the_same_link_prolongs_nothing() -> None:
    clock = Clock()
    capture = made(clock=clock, life=timedelta(days=30))
    header = cookie_of(capture, f"click_id={OURS}")
    clock.now += 20 * DAY
    again = visit(capture, f"click_id={OURS}", header)
    assert (again.click_id(), again.set_cookie) == (OURS, None)


def test_an_id_that_comes_later_does_not_make_the_earlier_one_younger() -> None:
    clock = Clock()
    capture = made(clock=clock, life=timedelta(days=30), also=("gclid",))
    header = cookie_of(capture, f"click_id={OURS}")
    clock.now += 20 * DAY
    second = visit(capture, "gclid=G", header).set_cookie
    assert second is not None
    assert second.max_age_s == 30 * DAY
    clock.now += 15 * DAY
    captured = visit(capture, cookie=f"pbk={second.value}").captured()
    assert captured is not None
    assert (captured.click_id, captured.captured_at, captured.others) == (None, None, {"gclid": "G"})


def test_a_time_in_the_future_is_not_believed() -> None:
    ahead = Clock()
    ahead.now += 2 * 3_600
    header = cookie_of(made(clock=ahead), f"click_id={OURS}")
    assert visit(made(), cookie=header).click_id() is None


def test_after_an_expired_first_click_the_next_one_counts() -> None:
    clock = Clock()
    capture = made(clock=clock, keep="first", life=timedelta(days=30))
    header = cookie_of(capture, f"click_id={OURS}")
    assert visit(capture, f"click_id={OTHER}", header).click_id() == OURS
    clock.now += 31 * DAY
    assert visit(capture, f"click_id={OTHER}", header).click_id() == OTHER


# --- consent --------------------------------------------------------------------------------------------------


def test_a_withdrawn_consent_deletes_the_cookie_and_a_failing_one_leaves_it() -> None:
    header = cookie_of(made(), f"click_id={OURS}")
    for settings, gpc in (({"consent": lambda _: False}, None), ({}, "1")):
        withdrawn = visit(made(**settings), f"click_id={OTHER}", header, gpc)
        assert withdrawn.click_id() is None
        assert withdrawn.set_cookie == SetCookie("pbk", "", 0, None, secure=True)

    def failing(_request: object) -> bool:
        raise ValueError("no such cookie")

    unsure = visit(made(consent=failing), f"click_id={OTHER}", header)
    assert (unsure.click_id(), unsure.set_cookie) == (None, None)


def test_without_consent_and_without_a_cookie_nothing_is_sent() -> None:
    refused = visit(made(consent=lambda _: False), f"click_id={OURS}")
    assert (refused.click_id(), refused.set_cookie) == (None, None)


def test_a_refused_value_is_logged_once_by_its_reason_and_never_by_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO", "postbackd_client.capture"):
        visit(made(), "&".join(["click_id={secret}"] * 50))
    assert [record.getMessage() for record in caplog.records] == [
        "the parameter click_id of a landing page is no click id: macro_literal"
    ]


# --- HTTP -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "; Max-Age=7776000; Path=/; HttpOnly; SameSite=Lax; Secure"),
        ({"secure": False}, "; Max-Age=7776000; Path=/; HttpOnly; SameSite=Lax"),
        (
            {"domain": "shop.example", "life": timedelta(hours=1)},
            "; Max-Age=3600; Path=/; HttpOnly; SameSite=Lax; Domain=shop.example; Secure",
        ),
        ({"cookie": "__Host-pbk"}, "; Max-Age=7776000; Path=/; HttpOnly; SameSite=Lax; Secure"),
    ],
)
def test_the_cookie_has_the_attributes_that_keep_it_safe(settings: Any, expected: str) -> None:
    capture = made(**settings)
    kept = visit(capture, f"click_id={OURS}").set_cookie
    assert kept is not None
    assert kept.header() == f"{capture.cookie}={kept.value}{expected}"


@given(st.text(max_size=300))
def test_no_cookie_header_makes_it_fail(header: str) -> None:
    assert visit(made(), cookie=header).click_id() is None
    assert visit(made(), f"click_id={OURS}", f"pbk={header}").click_id() == OURS


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "private"),
        ("", "private"),
        ("public, max-age=600", "max-age=600, private"),
        ("s-maxage=60, stale-while-revalidate=5", "stale-while-revalidate=5, private"),
        ("no-store", "no-store"),
        ("private, max-age=5", "private, max-age=5"),
        ("PRIVATE", "PRIVATE"),
        ('private="Set-Cookie, X", max-age=5', "max-age=5, private"),
        ("no-cache", "no-cache, private"),
    ],
)
def test_an_answer_with_the_cookie_is_kept_out_of_shared_caches(before: str | None, after: str) -> None:
    assert cookies.private(before) == after


def test_headers_that_speak_to_caches_past_cache_control_are_taken_out() -> None:
    headers = [
        ("Content-Type", "text/html"),
        ("CDN-Cache-Control", "max-age=60"),
        ("Cloudflare-CDN-Cache-Control", "max-age=60"),
        ("Surrogate-Control", "max-age=60"),
        ("X-Accel-Expires", "60"),
        ("cache-control", "public"),
        ("Cache-Control", "max-age=60"),
        ("Set-Cookie", "basket=1"),
    ]
    cookie = SetCookie("pbk", "v", 60, None, secure=True)
    assert cookies.shielded(headers, cookie) == [
        ("Content-Type", "text/html"),
        ("Set-Cookie", "basket=1"),
        ("Cache-Control", "max-age=60, private"),
        ("Set-Cookie", cookie.header()),
    ]
