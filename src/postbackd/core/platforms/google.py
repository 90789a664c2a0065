"""Google: the Data Manager API, and the click upload of the Google Ads API that came before it.

Written from Google's public reference and its published interface definitions (google.ads.datamanager.v1,
google.ads.googleads), and tested against stand-ins; neither was tried against the service.  To be known:

- The upload has been closed to new users since 2026-06-15.  Both take the same conversions.
- A target is one conversion action; rules choose what is sent to it.
- The stored id is a gclid unless option ``click_id_kind`` says gbraid or wbraid.
- Data Manager refuses a request as a whole when one event in it is malformed, and names the event.  What is wrong
  with a well-formed event it finds out later and tells in its own diagnostics: delivered here means handed over.
- The upload refuses single rows inside of HTTP 200; each is judged for itself.
- Adjustments and retractions are uploads of another kind, which are not made here.
- Consent for visitors of the European Economic Area is not sent; set it for the whole account.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from postbackd.core.deliveries import Answer, Delivery, Message, Outgoing
from postbackd.core.moments import write_moment
from postbackd.core.platforms.base import (
    ACCESS_TOKEN,
    DAY_MS,
    SENDING_MS,
    Token,
    TokenRefused,
    Values,
    amount,
    as_object,
    check_names,
    clicked_ms,
    conversion_id,
    converted_ms,
    items,
    judge_http,
    part,
    post_json,
    read_json,
    source_id,
    untellable,
    with_reason,
)
from postbackd.core.replies import Judged, Outcome

TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
DATA_MANAGER_URL = "https://datamanager.googleapis.com/v1/events:ingest"
ADS_VERSION = "v26"
"""Of the Google Ads API; a version works for about a year.  Option ``api_version`` takes another."""

KINDS = ("gclid", "gbraid", "wbraid")
OLDEST_CLICK_MS = 90 * DAY_MS
"""The longest click-through window that a conversion action can have."""

EVENT_SOURCES = ("WEB", "APP", "IN_STORE", "PHONE", "OTHER")

_OAUTH = ("CLIENT_ID", "CLIENT_SECRET", "REFRESH_TOKEN")
_SHORTEST_TOKEN_S = 60
_ANSWER_BYTES = 262_144
_COMMON_OPTIONS = ("login_customer_id", "click_id_kind", "validate_only")
_VERSION = re.compile(r"v[0-9]{1,3}")
_ROW = re.compile(r"events\[([0-9]{1,5})\]")


class _Google:
    """What both have in common: the account, the click, the token."""

    most = 100
    answer_bytes = _ANSWER_BYTES
    cannot: Mapping[Message, str] = {
        Message.ADJUSTMENT: "Google takes changes as conversion adjustments, an upload that is not made here",
        Message.RETRACTION: "Google takes retractions as conversion adjustments, an upload that is not made here",
    }

    def check_delivery(self, delivery: Delivery, now_ms: int) -> str:
        reason = untellable(self.cannot, delivery, "no gclid, gbraid or wbraid was stored with the click")
        if not reason and now_ms - clicked_ms(delivery) > OLDEST_CLICK_MS - SENDING_MS:
            reason = "the click is older than 90 days, for which Google takes no conversions"
        return reason

    def ask_token(self, accounts: Mapping[str, str]) -> Outgoing | None:
        """An access token lasts an hour; with a refresh token there is always a new one (RFC 6749, section 6)."""
        if not all(accounts.get(name) for name in _OAUTH):
            return None
        form = {name.lower(): accounts[name] for name in _OAUTH} | {"grant_type": "refresh_token"}
        content_type = ("Content-Type", "application/x-www-form-urlencoded")
        return Outgoing("POST", TOKEN_URL, (content_type,), urlencode(form).encode("ascii"))

    def read_token(self, answer: Answer, now_ms: int) -> Token:
        document = read_json(answer)
        token, lasts_s = document.get("access_token"), document.get("expires_in")
        if answer.status == 200 and isinstance(token, str) and token and isinstance(lasts_s, int):
            return Token(token, now_ms + max(lasts_s - _SHORTEST_TOKEN_S, 0) * 1000)
        said = (
            document.get("error_description")
            or document.get("error")
            or answer.error
            or "no token in the answer"
        )
        advice = "check the account values " + ", ".join(_OAUTH)
        raise TokenRefused(f"Google gave no access token (HTTP {answer.status}: {said}); {advice}")


def _check(options: Mapping[str, str], secrets: Collection[str], more: Collection[str], *asked: str) -> None:
    needed = ("customer_id", "conversion_action_id")
    check_names(options, needed, (*_COMMON_OPTIONS, *more), secrets, *asked)
    if ACCESS_TOKEN not in secrets and not all(name in secrets for name in _OAUTH):
        raise ValueError(
            f"account values {', '.join(_OAUTH)} are missing; give them with the target "
            f"(or {ACCESS_TOKEN}, which lasts an hour)"
        )
    for name in (*needed, "login_customer_id"):
        if not _digits(options.get(name, "0")).isdigit():
            raise ValueError(f"option {name} is a number, with or without dashes")
    if options.get("click_id_kind", KINDS[0]) not in KINDS:
        raise ValueError(f"option click_id_kind is one of {', '.join(KINDS)}")
    if options.get("validate_only", "false") not in ("true", "false"):
        raise ValueError("option validate_only is true or false")


def _digits(number: str) -> str:
    """Customer ids are shown as 123-456-7890 and sent without the dashes."""
    return number.replace("-", "") if number.isascii() else ""


def _validate_only(options: Mapping[str, str]) -> dict[str, bool]:
    return {"validateOnly": True} if options.get("validate_only") == "true" else {}


def _click(delivery: Delivery, options: Mapping[str, str]) -> dict[str, str]:
    return {options.get("click_id_kind", KINDS[0]): source_id(delivery)}


class GoogleDataManager(_Google):
    """Options: ``customer_id``, ``conversion_action_id``; ``login_customer_id`` (of the manager account),
    ``click_id_kind`` (gclid), ``event_source`` (WEB), ``validate_only`` (false).

    Account values: ``CLIENT_ID``, ``CLIENT_SECRET`` and ``REFRESH_TOKEN``, of a user who may use the scope
    ``https://www.googleapis.com/auth/datamanager``.
    """

    def check_options(self, options: Mapping[str, str], secrets: Collection[str]) -> None:
        _check(options, secrets, ("event_source",))
        if options.get("event_source", EVENT_SOURCES[0]) not in EVENT_SOURCES:
            raise ValueError(f"option event_source is one of {', '.join(EVENT_SOURCES)}")

    def make(
        self,
        deliveries: Sequence[Delivery],
        values: Sequence[Values],
        options: Mapping[str, str],
        accounts: Mapping[str, str],
        now_ms: int,
    ) -> Outgoing:
        destination: dict[str, Any] = {
            "operatingAccount": _account(options["customer_id"]),
            "productDestinationId": options["conversion_action_id"],
        }
        if options.get("login_customer_id"):
            destination["loginAccount"] = _account(options["login_customer_id"])
        events = [
            {
                "transactionId": conversion_id(delivery),
                "eventTimestamp": write_moment(converted_ms(delivery)),
                "eventSource": options.get("event_source", EVENT_SOURCES[0]),
                "adIdentifiers": _click(delivery, options),
                "conversionValue": amount(delivery),
                "currency": delivery.owed.currency,
            }
            for delivery in deliveries
        ]
        document = {"destinations": [destination], "events": events, **_validate_only(options)}
        return post_json(DATA_MANAGER_URL, document, (("Authorization", f"Bearer {accounts[ACCESS_TOKEN]}"),))

    def read(self, answer: Answer, count: int, now_ms: int) -> list[Judged]:
        """All or nothing; an event that the refusal names gets a reason of its own."""
        judged = judge_http(answer, now_ms)
        error = part(read_json(answer), "error")
        if judged.outcome is Outcome.DELIVERED or not error:
            return [judged] * count
        reason = f"{judged.reason}, {error.get('status')}: {error.get('message')}"
        rows = [with_reason(judged, reason)] * count
        for detail in items(error, "details"):
            for violation in map(as_object, items(detail, "fieldViolations")):
                field, what = violation.get("field"), violation.get("description")
                found = _ROW.search(str(field))
                if found is not None and int(found[1]) < count:
                    rows[int(found[1])] = with_reason(judged, f"{judged.reason}, {field}: {what}")
        return rows


def _account(number: str) -> dict[str, str]:
    return {"accountType": "GOOGLE_ADS", "accountId": _digits(number)}


_TOLD_BEFORE = frozenset({"ORDER_ID_ALREADY_IN_USE", "CLICK_CONVERSION_ALREADY_EXISTS"})
"""The conversion was counted by an attempt whose answer was lost: the order id is ours alone."""
_HOPELESS = frozenset(
    {
        "UNPARSEABLE_GCLID",
        "UNPARSEABLE_GBRAID",
        "UNPARSEABLE_WBRAID",
        "EXPIRED_EVENT",
        "CONVERSION_PRECEDES_EVENT",
    }
    | {"UNAUTHORIZED_CUSTOMER", "INVALID_CUSTOMER_FOR_CLICK", "CONVERSION_NOT_COMPLIANT_WITH_ATT_POLICY"}
    | {"CONVERSION_TRACKING_NOT_ENABLED_AT_IMPRESSION_TIME"}
)
"""Errors of ConversionUploadError that will be the same tomorrow.  Others pass (the click is less than 6 hours old)."""


class GoogleAds(_Google):
    """Options: ``customer_id``, ``conversion_action_id``; ``login_customer_id`` (of the manager account),
    ``click_id_kind`` (gclid), ``validate_only`` (false), ``api_version``.

    Account values: ``DEVELOPER_TOKEN``; ``CLIENT_ID``, ``CLIENT_SECRET`` and ``REFRESH_TOKEN``, of a user who may use
    the scope ``https://www.googleapis.com/auth/adwords``.
    """

    def check_options(self, options: Mapping[str, str], secrets: Collection[str]) -> None:
        _check(options, secrets, ("api_version",), "DEVELOPER_TOKEN")
        if not _VERSION.fullmatch(options.get("api_version", ADS_VERSION)):
            raise ValueError(f"option api_version is written like {ADS_VERSION}")

    def make(
        self,
        deliveries: Sequence[Delivery],
        values: Sequence[Values],
        options: Mapping[str, str],
        accounts: Mapping[str, str],
        now_ms: int,
    ) -> Outgoing:
        customer = _digits(options["customer_id"])
        conversions = [
            {
                **_click(delivery, options),
                "conversionAction": f"customers/{customer}/conversionActions/{options['conversion_action_id']}",
                "conversionDateTime": _write_local(converted_ms(delivery)),
                "conversionValue": amount(delivery),
                "currencyCode": delivery.owed.currency,
                "orderId": conversion_id(delivery),
            }
            for delivery in deliveries
        ]
        headers = [
            ("Authorization", f"Bearer {accounts[ACCESS_TOKEN]}"),
            ("developer-token", accounts["DEVELOPER_TOKEN"]),
        ]
        if options.get("login_customer_id"):
            headers.append(("login-customer-id", _digits(options["login_customer_id"])))
        document = {"conversions": conversions, "partialFailure": True, **_validate_only(options)}
        version = options.get("api_version", ADS_VERSION)
        url = f"https://googleads.googleapis.com/{version}/customers/{customer}:uploadClickConversions"
        return post_json(url, document, tuple(headers))

    def read(self, answer: Answer, count: int, now_ms: int) -> list[Judged]:
        """Each row for itself; an error that names no row is everybody's."""
        judged = judge_http(answer, now_ms)
        document = read_json(answer)
        if judged.outcome is not Outcome.DELIVERED:
            error = part(document, "error")
            reason = (
                f"{judged.reason}, {error.get('status')}: {error.get('message')}" if error else judged.reason
            )
            return [with_reason(judged, reason)] * count
        if not document:
            return [with_reason(judged, f"HTTP {answer.status}, but the answer is not JSON")] * count
        failure = part(document, "partialFailureError")
        rows = [judged] * count
        errors = [error for detail in items(failure, "details") for error in items(detail, "errors")]
        if failure and not errors:
            return [with_reason(judged, f"HTTP {answer.status}, but {failure.get('message')}")] * count
        for error in errors:
            row = _row_of(error)
            for at in range(count) if row is None else [row][: row < count]:
                rows[at] = _worse(rows[at], _judge_row(error))
        return rows


def _write_local(ms: int) -> str:
    """``2026-11-23 12:00:00+00:00``."""
    return datetime.fromtimestamp(ms // 1000, UTC).isoformat(" ", "seconds")


def _row_of(error: Any) -> int | None:
    """The index of the conversion that an error names."""
    for element in items(part(error, "location"), "fieldPathElements"):
        found = as_object(element)
        index = found.get("index")
        # 64-bit integers of this API are written as text.
        if found.get("fieldName") == "conversions" and str(index).isdecimal():
            return int(str(index))
    return None


def _judge_row(error: Any) -> Judged:
    codes = [str(code) for code in part(error, "errorCode").values()]
    word = codes[0] if codes else "error"
    if word in _TOLD_BEFORE:
        return Judged(Outcome.DELIVERED)
    message = as_object(error).get("message")
    return Judged(Outcome.DEAD if word in _HOPELESS else Outcome.FAILED, f"HTTP 200, but {word}: {message}")


def _worse(one: Judged, other: Judged) -> Judged:
    return max(one, other, key=lambda judged: judged.outcome)
