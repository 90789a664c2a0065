"""Platforms: the requests that are made, against stand-ins written from the platforms' public documentation.

A stand-in takes the request and gives the answer that the documentation says.  None was compared with the service.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbackd.core.click_id import write_stamp
from postbackd.core.deliveries import Answer, Delivery, Facts, Message, Outgoing, Owed
from postbackd.core.model import How
from postbackd.core.outgoing import delivery_values
from postbackd.core.platforms import PLATFORMS
from postbackd.core.platforms.base import DAY_MS, TokenRefused
from postbackd.core.replies import Judged, Outcome
from tests.core.desk import NOW_MS, stamp_at

META, TIKTOK = PLATFORMS["meta"], PLATFORMS["tiktok"]
DATA_MANAGER, ADS = PLATFORMS["google_data_manager"], PLATFORMS["google_ads"]

OPTIONS = {
    "meta": {"pixel_id": "123"},
    "tiktok": {"pixel_code": "C123"},
    "google_data_manager": {"customer_id": "123-456-7890", "conversion_action_id": "55"},
    "google_ads": {"customer_id": "123-456-7890", "conversion_action_id": "55"},
}
OAUTH = {"CLIENT_ID": "id", "CLIENT_SECRET": "se cret", "REFRESH_TOKEN": "1//r"}
SECRETS = {"ACCESS_TOKEN": "tok", "DEVELOPER_TOKEN": "dev", **OAUTH}
CLICKED_MS = NOW_MS - 600_000


def delivery(
    number: int = 1, message: Message = Message.CONVERSION, *, source_id: str | None = "Click-Id", **of: int
) -> Delivery:
    at_ms = of.get("at_ms", NOW_MS - 1000)
    owed = Owed(
        event=number,
        request_id=stamp_at(at_ms, number),
        click_id=stamp_at(of.get("clicked_ms", CLICKED_MS)),
        type="sale",
        transaction_id="",
        conversion_id=stamp_at(at_ms, number),
        campaign=1,
        offer=1,
        rule=1,
        target=1,
        message=message,
        status=2,
        value_micros=12_500_000,
        currency="USD",
        facts=Facts(source_click_id=source_id),
        created_ms=at_ms,
        due_ms=at_ms,
        expires_ms=0,
    )
    return Delivery(number=number, owed=owed, attempts=0, told=False, outdated=False)


def make(kind: str, *deliveries: Delivery, **options: str) -> Outgoing:
    how = How(types={"sale": "Purchase"})
    values = [delivery_values(one, how, {}) for one in deliveries]
    return PLATFORMS[kind].make(deliveries, values, OPTIONS[kind] | options, SECRETS, NOW_MS)


def document(sent: Outgoing) -> Any:
    assert dict(sent.headers)["Content-Type"] == "application/json"
    return json.loads(sent.body)


def answered(status: int, body: Any, **headers: str) -> Answer:
    return Answer(status=status, body=json.dumps(body).encode(), headers=headers)


def some(count: int) -> list[Delivery]:
    return [delivery(number) for number in range(1, count + 1)]


def outcomes(rows: list[Judged]) -> list[Outcome]:
    return [row.outcome for row in rows]


# --- all of them ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PLATFORMS)
def test_a_click_without_an_identifier_is_never_sent(kind: str) -> None:
    platform = PLATFORMS[kind]
    assert platform.check_delivery(delivery(), {}, NOW_MS) == ""
    assert "was stored with the click" in platform.check_delivery(delivery(source_id=None), {}, NOW_MS)
    assert "was stored with the click" in platform.check_delivery(delivery(source_id=""), {}, NOW_MS)


@pytest.mark.parametrize("kind", PLATFORMS)
@pytest.mark.parametrize("message", [Message.ADJUSTMENT, Message.RETRACTION])
def test_what_a_platform_cannot_take_has_a_reason(kind: str, message: Message) -> None:
    platform = PLATFORMS[kind]
    said = platform.check_delivery(delivery(message=message), OPTIONS[kind], NOW_MS)
    assert said == platform.cannot(OPTIONS[kind]).get(message, "")
    assert Message.CONVERSION not in platform.cannot(OPTIONS[kind])


@pytest.mark.parametrize("kind", PLATFORMS)
def test_the_usual_options_are_enough(kind: str) -> None:
    PLATFORMS[kind].check_options(OPTIONS[kind], SECRETS)


@pytest.mark.parametrize("kind", PLATFORMS)
@pytest.mark.parametrize(
    ("status", "slow_down"), [(0, False), (302, False), (401, False), (429, True), (500, False), (502, True)]
)
def test_a_request_that_fails_fails_for_every_row(kind: str, status: int, slow_down: bool) -> None:
    rows = PLATFORMS[kind].read(Answer(status=status, body=b"<html>"), some(3), NOW_MS)
    assert outcomes(rows) == [Outcome.FAILED] * 3
    assert rows[0].slow_down is slow_down
    assert rows[0].reason


@pytest.mark.parametrize("kind", PLATFORMS)
def test_retry_after_is_read(kind: str) -> None:
    answer = answered(503, {"error": {"message": "later"}, "code": 1}, **{"retry-after": "7"})
    assert {row.retry_after_ms for row in PLATFORMS[kind].read(answer, some(2), NOW_MS)} == {7000}


MEMBERS = (
    *(
        "error",
        "code",
        "message",
        "details",
        "fieldViolations",
        "field",
        "partialFailureError",
        "errors",
        "location",
    ),
    *(
        "fieldPathElements",
        "fieldName",
        "index",
        "errorCode",
        "events_received",
        "access_token",
        "expires_in",
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(MEMBERS), inner),
    max_leaves=12,
)


@pytest.mark.parametrize("kind", PLATFORMS)
@given(status=st.sampled_from([200, 400, 500]), body=JSON | st.binary().map(str))
def test_any_answer_has_one_row_a_delivery(kind: str, status: int, body: Any) -> None:
    rows = PLATFORMS[kind].read(answered(status, body), some(2), NOW_MS)
    assert len(rows) == 2
    assert all(bool(row.reason) is (row.outcome is not Outcome.DELIVERED) for row in rows)


@pytest.mark.parametrize("kind", PLATFORMS)
@given(st.text(min_size=1))
def test_no_identifier_breaks_a_request(kind: str, text: str) -> None:
    one = delivery(source_id=text)
    platform = PLATFORMS[kind]
    sent = platform.make([one], [{"goal": text}], OPTIONS[kind], dict.fromkeys(SECRETS, text), NOW_MS)
    assert json.loads(sent.body)
    assert all(" " <= letter <= "~" for pair in sent.headers for part in pair for letter in part)


# --- Meta -----------------------------------------------------------------------------------------------------


def meta_stand_in(sent: Outgoing, now_ms: int) -> Answer:
    """One event over 7 days old, or without its parts, and the whole request is refused."""
    given_events = document(sent)
    if given_events["access_token"] != "tok":
        error = {"message": "Invalid OAuth access token.", "type": "OAuthException", "code": 190}
        return answered(401, {"error": error})
    for event in given_events["data"]:
        if now_ms // 1000 - event["event_time"] > 7 * 86_400:
            error = {
                "message": "Invalid parameter",
                "code": 100,
                "error_user_msg": "event_time is over 7 days old",
            }
            return answered(400, {"error": error})
        assert {"event_name", "event_id", "action_source", "user_data"} <= set(event)
    return answered(200, {"events_received": len(given_events["data"]), "messages": [], "fbtrace_id": "x"})


def test_meta_gets_the_event_with_its_id_and_its_click() -> None:
    one = delivery()
    sent = make("meta", one)
    assert sent.url == "https://graph.facebook.com/v24.0/123/events"
    assert b'"value":12.50' in sent.body
    assert document(sent) == {
        "data": [
            {
                "event_name": "Purchase",
                "event_time": NOW_MS // 1000 - 1,
                "event_id": write_stamp(one.owed.conversion_id),
                "action_source": "website",
                "user_data": {"fbc": f"fb.1.{CLICKED_MS}.Click-Id"},
                "custom_data": {"value": 12.5, "currency": "USD"},
            }
        ],
        "access_token": "tok",
    }


def test_meta_gets_what_the_options_say() -> None:
    options = {"test_event_code": "TEST1", "event_source_url": "https://s.example/", "action_source": "other"}
    sent = make("meta", delivery(source_id="fb.1.1.x"), api_version="v25.0", **options)
    said = document(sent)
    assert "/v25.0/" in sent.url
    assert said["test_event_code"] == "TEST1"
    assert said["data"][0]["event_source_url"] == "https://s.example/"
    assert said["data"][0]["action_source"] == "other"
    assert said["data"][0]["user_data"] == {"fbc": "fb.1.1.x"}


def test_meta_never_gets_an_event_that_is_nearly_seven_days_old() -> None:
    assert "older than 7 days" in META.check_delivery(delivery(at_ms=NOW_MS - 7 * DAY_MS + 1000), {}, NOW_MS)
    fresh = delivery(at_ms=NOW_MS - 7 * DAY_MS + 60_000)
    assert META.check_delivery(fresh, {}, NOW_MS) == ""
    assert outcomes(META.read(meta_stand_in(make("meta", fresh), NOW_MS), some(1), NOW_MS)) == [
        Outcome.DELIVERED
    ]


def test_meta_refuses_all_for_one_old_event() -> None:
    sent = make("meta", delivery(1), delivery(2, at_ms=NOW_MS - 8 * DAY_MS))
    rows = META.read(meta_stand_in(sent, NOW_MS), some(2), NOW_MS)
    assert rows == [Judged(Outcome.FAILED, "HTTP 400, error 100: event_time is over 7 days old")] * 2


def test_meta_says_when_the_token_is_no_longer_good() -> None:
    sent = META.make([delivery()], [{}], OPTIONS["meta"], {"ACCESS_TOKEN": "old"}, NOW_MS)
    (row,) = META.read(meta_stand_in(sent, NOW_MS), some(1), NOW_MS)
    assert row.reason.endswith("Invalid OAuth access token. (give the target a new ACCESS_TOKEN)")


@pytest.mark.parametrize(("code", "slow_down"), [(17, True), (613, True), (100, False), (None, False)])
def test_meta_is_served_slower_when_it_counts_too_many_calls(code: int | None, slow_down: bool) -> None:
    (row,) = META.read(answered(400, {"error": {"code": code, "message": "m"}}), some(1), NOW_MS)
    assert row.slow_down is slow_down


@pytest.mark.parametrize("body", [{}, {"events_received": 1}, [], {"events_received": "2"}])
def test_meta_took_less_than_was_sent(body: Any) -> None:
    rows = META.read(answered(200, body), some(2), NOW_MS)
    assert outcomes(rows) == [Outcome.FAILED] * 2
    assert "of 2 events received" in rows[0].reason


# --- TikTok ---------------------------------------------------------------------------------------------------


def tiktok_stand_in(sent: Outgoing) -> Answer:
    """Everything is HTTP 200; the code tells."""
    headers = dict(sent.headers)
    if headers["Access-Token"] != "tok":
        return answered(
            200, {"code": 40105, "message": "Access token is incorrect or has been revoked.", "data": {}}
        )
    if any(not event["user"]["ttclid"] for event in document(sent)["data"]):
        return answered(200, {"code": 40002, "message": "user: missing", "data": {}})
    return answered(200, {"code": 0, "message": "OK", "request_id": "r", "data": {}})


def test_tiktok_gets_the_event_with_its_id_and_its_click() -> None:
    one = delivery()
    sent = make("tiktok", one)
    assert sent.url == "https://business-api.tiktok.com/open_api/v1.3/event/track/"
    assert document(sent) == {
        "event_source": "web",
        "event_source_id": "C123",
        "data": [
            {
                "event": "Purchase",
                "event_time": NOW_MS // 1000 - 1,
                "event_id": write_stamp(one.owed.conversion_id),
                "user": {"ttclid": "Click-Id"},
                "properties": {"value": 12.5, "currency": "USD"},
            }
        ],
    }
    assert outcomes(TIKTOK.read(tiktok_stand_in(sent), some(1), NOW_MS)) == [Outcome.DELIVERED]


def test_tiktok_gets_what_the_options_say() -> None:
    said = document(make("tiktok", delivery(), test_event_code="TEST1", page_url="https://s.example/"))
    assert said["test_event_code"] == "TEST1"
    assert said["data"][0]["page"] == {"url": "https://s.example/"}


def test_tiktok_errors_inside_of_200_are_failures() -> None:
    rows = TIKTOK.read(
        tiktok_stand_in(make("tiktok", delivery(1), delivery(2, source_id=None))), some(2), NOW_MS
    )
    assert rows == [Judged(Outcome.FAILED, "HTTP 200, code 40002: user: missing")] * 2
    sent = TIKTOK.make([delivery()], [{}], OPTIONS["tiktok"], {"ACCESS_TOKEN": "old"}, NOW_MS)
    (row,) = TIKTOK.read(tiktok_stand_in(sent), some(1), NOW_MS)
    assert row.reason.endswith("(give the target a new ACCESS_TOKEN)")


def test_tiktok_is_served_slower_when_it_counts_too_many_calls() -> None:
    (row,) = TIKTOK.read(answered(200, {"code": 40100, "message": "Too many requests"}), some(1), NOW_MS)
    assert row == Judged(Outcome.FAILED, "HTTP 200, code 40100: Too many requests", slow_down=True)


def test_tiktok_without_a_code_is_a_failure() -> None:
    assert TIKTOK.read(answered(200, []), some(1), NOW_MS)[0].reason == "HTTP 200, but no code in the answer"


# --- Google: Data Manager -------------------------------------------------------------------------------------


def data_manager_stand_in(sent: Outgoing) -> Answer:
    """One malformed event, and the whole request is refused; the fields at fault are named."""
    violations = [
        {"field": f"events[{n}].ad_identifiers.gclid", "description": "malformed", "reason": "INVALID"}
        for n, event in enumerate(document(sent)["events"])
        if " " in event["adIdentifiers"].get("gclid", "")
    ]
    if not violations:
        return answered(200, {"requestId": "r1"})
    details = [
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "INVALID_ARGUMENT"},
        {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations},
    ]
    error = {"code": 400, "message": "There was a problem.", "status": "INVALID_ARGUMENT", "details": details}
    return answered(400, {"error": error})


def test_data_manager_gets_the_event_for_its_conversion_action() -> None:
    one = delivery()
    sent = make("google_data_manager", one)
    assert sent.url == "https://datamanager.googleapis.com/v1/events:ingest"
    assert dict(sent.headers)["Authorization"] == "Bearer tok"
    assert document(sent) == {
        "destinations": [
            {
                "operatingAccount": {"accountType": "GOOGLE_ADS", "accountId": "1234567890"},
                "productDestinationId": "55",
            }
        ],
        "events": [
            {
                "transactionId": write_stamp(one.owed.conversion_id),
                "eventTimestamp": "2025-06-15T15:06:39.000Z",
                "eventSource": "WEB",
                "adIdentifiers": {"gclid": "Click-Id"},
                "conversionValue": 12.5,
                "currency": "USD",
            }
        ],
    }
    assert outcomes(DATA_MANAGER.read(data_manager_stand_in(sent), some(1), NOW_MS)) == [Outcome.DELIVERED]


def test_data_manager_gets_what_the_options_say() -> None:
    options = {
        "login_customer_id": "1-2",
        "click_id_kind": "wbraid",
        "event_source": "APP",
        "validate_only": "true",
    }
    said = document(make("google_data_manager", delivery(), **options))
    assert said["destinations"][0]["loginAccount"] == {"accountType": "GOOGLE_ADS", "accountId": "12"}
    assert said["events"][0]["adIdentifiers"] == {"wbraid": "Click-Id"}
    assert said["events"][0]["eventSource"] == "APP"
    assert said["validateOnly"] is True


def test_data_manager_names_the_event_at_fault() -> None:
    sent = make("google_data_manager", delivery(1), delivery(2, source_id="a b"), delivery(3))
    rows = DATA_MANAGER.read(data_manager_stand_in(sent), some(3), NOW_MS)
    assert outcomes(rows) == [Outcome.FAILED] * 3
    assert rows[1].reason == "HTTP 400, events[1].ad_identifiers.gclid: malformed"
    assert rows[0].reason == rows[2].reason == "HTTP 400, INVALID_ARGUMENT: There was a problem."


def test_data_manager_may_name_events_that_were_not_sent() -> None:
    details = [{"fieldViolations": [{"field": "events[7].x"}, {"field": "destinations[0]"}, "odd"]}, "odd"]
    rows = DATA_MANAGER.read(answered(400, {"error": {"details": details}}), some(2), NOW_MS)
    assert outcomes(rows) == [Outcome.FAILED] * 2


@pytest.mark.parametrize("platform", [DATA_MANAGER, ADS])
def test_google_never_gets_a_click_that_is_nearly_90_days_old(platform: Any) -> None:
    old = delivery(clicked_ms=NOW_MS - 90 * DAY_MS + 1000)
    assert "older than 90 days" in platform.check_delivery(old, {}, NOW_MS)
    assert platform.check_delivery(delivery(clicked_ms=NOW_MS - 89 * DAY_MS), {}, NOW_MS) == ""


# --- Google: tokens -------------------------------------------------------------------------------------------


def test_google_gives_access_tokens_for_a_refresh_token() -> None:
    asked = ADS.ask_token(SECRETS)
    assert asked is not None
    assert asked.url == "https://oauth2.googleapis.com/token"
    assert dict(parse_qsl(asked.body.decode())) == {
        "client_id": "id",
        "client_secret": "se cret",
        "refresh_token": "1//r",
        "grant_type": "refresh_token",
    }
    token = ADS.read_token(answered(200, {"access_token": "ya29.x", "expires_in": 3599}), NOW_MS)
    assert (token.text, token.expires_ms) == ("ya29.x", NOW_MS + 3_539_000)
    assert ADS.read_token(answered(200, {"access_token": "x", "expires_in": 5}), NOW_MS).expires_ms == NOW_MS


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (
            answered(400, {"error": "invalid_grant", "error_description": "Token has been revoked."}),
            "revoked",
        ),
        (answered(400, {"error": "invalid_client"}), "invalid_client"),
        (answered(200, {"access_token": 1}), "no token in the answer"),
        (answered(500, {"access_token": "x", "expires_in": 5}), "HTTP 500"),
        (Answer(error="connect: refused"), "connect: refused"),
    ],
)
def test_google_says_why_it_gives_no_token(answer: Answer, what: str) -> None:
    with pytest.raises(TokenRefused, match=what) as refusal:
        DATA_MANAGER.read_token(answer, NOW_MS)
    assert "check the account values CLIENT_ID" in str(refusal.value)


@pytest.mark.parametrize("kind", PLATFORMS)
def test_a_token_that_was_given_is_not_asked_for(kind: str) -> None:
    assert PLATFORMS[kind].ask_token({"ACCESS_TOKEN": "tok"}) is None


def test_meta_has_no_tokens_to_ask_for() -> None:
    assert META.ask_token(SECRETS) is None
    with pytest.raises(TokenRefused):
        META.read_token(Answer(status=200), NOW_MS)


# --- Google: the click upload ---------------------------------------------------------------------------------


def row_error(row: Any, word: str, message: str = "m") -> dict[str, Any]:
    path = [{"fieldName": "conversions", "index": row}, {"fieldName": "gclid"}]
    return {
        "errorCode": {"conversionUploadError": word},
        "message": message,
        "location": {"fieldPathElements": path},
    }


def ads_answer(*errors: dict[str, Any]) -> Answer:
    failure = {"code": 3, "message": "Multiple errors", "details": [{"@type": "x", "errors": list(errors)}]}
    return answered(200, {"partialFailureError": failure, "results": [{}], "jobId": "1"})


def test_the_upload_gets_the_conversion_with_its_order_id() -> None:
    one = delivery()
    sent = make("google_ads", one)
    assert sent.url == "https://googleads.googleapis.com/v26/customers/1234567890:uploadClickConversions"
    assert dict(sent.headers)["developer-token"] == "dev"
    assert "login-customer-id" not in dict(sent.headers)
    assert document(sent) == {
        "conversions": [
            {
                "gclid": "Click-Id",
                "conversionAction": "customers/1234567890/conversionActions/55",
                "conversionDateTime": "2025-06-15 15:06:39+00:00",
                "conversionValue": 12.5,
                "currencyCode": "USD",
                "orderId": write_stamp(one.owed.conversion_id),
            }
        ],
        "partialFailure": True,
    }


def test_the_upload_gets_what_the_options_say() -> None:
    options = {
        "login_customer_id": "1-2",
        "click_id_kind": "gbraid",
        "validate_only": "true",
        "api_version": "v25",
    }
    sent = make("google_ads", delivery(), **options)
    assert "/v25/" in sent.url
    assert dict(sent.headers)["login-customer-id"] == "12"
    assert document(sent)["conversions"][0]["gbraid"] == "Click-Id"
    assert document(sent)["validateOnly"] is True


def test_rows_of_an_upload_are_judged_one_by_one() -> None:
    answer = ads_answer(
        row_error(1, "EXPIRED_EVENT", "too old"),
        row_error("2", "TOO_RECENT_EVENT", "wait"),
        row_error(3, "ORDER_ID_ALREADY_IN_USE"),
        row_error(9, "EXPIRED_EVENT"),
    )
    assert ADS.read(answer, some(4), NOW_MS) == [
        Judged(Outcome.DELIVERED),
        Judged(Outcome.DEAD, "HTTP 200, but EXPIRED_EVENT: too old"),
        Judged(Outcome.FAILED, "HTTP 200, but TOO_RECENT_EVENT: wait"),
        Judged(Outcome.DELIVERED, "HTTP 200, but ORDER_ID_ALREADY_IN_USE: m"),
    ]


def test_of_two_errors_in_a_row_the_worse_counts() -> None:
    rows = ADS.read(
        ads_answer(row_error(0, "EXPIRED_EVENT"), row_error(0, "EVENT_NOT_FOUND")), some(1), NOW_MS
    )
    assert outcomes(rows) == [Outcome.DEAD]


@pytest.mark.parametrize(
    "error",
    [row_error("x", "W"), {"message": "m"}, {"errorCode": {}, "location": {"fieldPathElements": ["odd"]}}],
)
def test_an_error_that_names_no_row_is_everybodys(error: dict[str, Any]) -> None:
    assert outcomes(ADS.read(ads_answer(error), some(2), NOW_MS)) == [Outcome.FAILED] * 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (answered(200, {"partialFailureError": {"message": "odd"}}), "HTTP 200, but odd"),
        (Answer(status=200, body=b'{"partialFailureError": {"mess'), "HTTP 200, but the answer is not JSON"),
        (
            answered(403, {"error": {"status": "PERMISSION_DENIED", "message": "no"}}),
            "HTTP 403, PERMISSION_DENIED: no",
        ),
    ],
)
def test_an_upload_that_fails_as_a_whole_says_why(answer: Answer, reason: str) -> None:
    assert ADS.read(answer, some(2), NOW_MS) == [Judged(Outcome.FAILED, reason)] * 2


def test_an_upload_without_errors_is_delivered() -> None:
    assert (
        outcomes(ADS.read(answered(200, {"results": [{"gclid": "x"}], "jobId": "1"}), some(2), NOW_MS))
        == [Outcome.DELIVERED] * 2
    )


# --- options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "change", "what"),
    [
        ("meta", {"pixel_id": ""}, "option pixel_id is missing"),
        ("meta", {"pixel": "1"}, "unknown option pixel; known are pixel_id, action_source"),
        ("meta", {"pixel_id": "x/../y"}, "pixel_id is a number"),
        ("meta", {"action_source": "moon"}, "action_source is one of website"),
        ("meta", {"api_version": "24"}, "written like v24.0"),
        ("tiktok", {"pixel_code": ""}, "option pixel_code is missing"),
        (
            "google_data_manager",
            {"customer_id": "", "conversion_action_id": ""},
            "customer_id, conversion_action_id",
        ),
        ("google_data_manager", {"customer_id": "12a"}, "customer_id is a number"),
        ("google_data_manager", {"conversion_action_id": "\u0661"}, "conversion_action_id is a number"),
        ("google_data_manager", {"login_customer_id": "x"}, "login_customer_id is a number"),
        ("google_data_manager", {"click_id_kind": "fbclid"}, "one of gclid, gbraid, wbraid"),
        ("google_data_manager", {"validate_only": "yes"}, "true or false"),
        ("google_data_manager", {"event_source": "MOON"}, "one of WEB"),
        ("google_ads", {"event_source": "WEB"}, "unknown option event_source"),
        ("google_ads", {"api_version": "26"}, "written like v26"),
    ],
)
def test_a_wrong_option_is_named(kind: str, change: dict[str, str], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        PLATFORMS[kind].check_options(OPTIONS[kind] | change, SECRETS)


@pytest.mark.parametrize(
    ("kind", "secrets", "what"),
    [
        ("meta", (), "account value ACCESS_TOKEN is missing"),
        ("tiktok", ("TOKEN",), "account value ACCESS_TOKEN is missing"),
        ("google_data_manager", ("CLIENT_ID",), "CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN are missing"),
        ("google_ads", ("ACCESS_TOKEN",), "account value DEVELOPER_TOKEN is missing"),
    ],
)
def test_a_missing_account_value_is_named(kind: str, secrets: tuple[str, ...], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        PLATFORMS[kind].check_options(OPTIONS[kind], secrets)


def test_either_kind_of_google_credentials_will_do() -> None:
    DATA_MANAGER.check_options(OPTIONS["google_data_manager"], ["ACCESS_TOKEN"])
    DATA_MANAGER.check_options(OPTIONS["google_data_manager"], list(OAUTH))
