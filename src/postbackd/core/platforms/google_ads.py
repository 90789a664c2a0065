"""The uploads of the Google Ads API: conversions of clicks, and what adjusts them afterwards.

- Single rows are refused inside of HTTP 200; each is judged for itself.
- A changed value is a RESTATEMENT, a conversion taken back a RETRACTION (ConversionAdjustmentUploadService), known by
  the order id of the conversion.  Neither is taken for a wbraid, nor of a conversion older than 54 days; of one that
  is younger than a day Google may say that it is too young, and is then told again when it is not.
- The newest adjustment counts, by its own time; it gets the time at which it is sent.
- Once taken back a conversion stays so: if it is approved again, Google answers that it knows its order id, which
  stands at the attempt.  Where that happens, ``on_reversal = adjust`` (a value of 0) is the better choice.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from postbackd.core.deliveries import Answer, Delivery, Message, Outgoing
from postbackd.core.platforms.base import (
    ACCESS_TOKEN,
    DAY_MS,
    SENDING_MS,
    Values,
    amount,
    as_object,
    conversion_id,
    converted_ms,
    items,
    judge_http,
    part,
    post_json,
    read_json,
    with_reason,
)
from postbackd.core.platforms.google import (
    Google,
    check_google,
    click,
    click_id_kind,
    consent,
    digits,
    validate_only,
)
from postbackd.core.replies import LONGEST_PAUSE_MS, Judged, Outcome

API_VERSION = "v26"
"""Of the Google Ads API; a version works for about a year.  Option ``api_version`` takes another."""

OLDEST_ADJUSTED_MS = 54 * DAY_MS
"""CONVERSION_EXPIRED, in ConversionAdjustmentUploadError."""

_NO_WBRAID = "Google takes no adjustments of conversions that are told by wbraid"
_VERSION = re.compile(r"v[0-9]{1,3}")

_TOLD_BEFORE = frozenset({"ORDER_ID_ALREADY_IN_USE", "CLICK_CONVERSION_ALREADY_EXISTS"})
"""The conversion was counted by an attempt whose answer was lost: the order id is ours alone."""
_RETRACTED = "CONVERSION_ALREADY_RETRACTED"
_TOO_YOUNG = "TOO_RECENT_CONVERSION"
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
    | {"CONVERSION_EXPIRED", "TOO_MANY_ADJUSTMENTS", "INVALID_CONVERSION_ACTION_TYPE", _RETRACTED}
    | {"CANNOT_RESTATE_CONVERSION_ACTION_THAT_ALWAYS_USES_DEFAULT_CONVERSION_VALUE"}
)
"""Errors of ConversionUploadError and ConversionAdjustmentUploadError that will be the same tomorrow.  Others pass:
the click is less than 6 hours old, the conversion is not found yet, another adjustment has the same second."""


class GoogleAds(Google):
    """Options: ``customer_id``, ``conversion_action_id``; ``login_customer_id`` (of the manager account),
    ``click_id_kind`` (gclid), ``consent_covers``, ``validate_only`` (false), ``api_version``.

    Account values: ``DEVELOPER_TOKEN``; ``CLIENT_ID``, ``CLIENT_SECRET`` and ``REFRESH_TOKEN``, of a user who may use
    the scope ``https://www.googleapis.com/auth/adwords``.
    """

    def cannot(self, options: Mapping[str, str]) -> Mapping[Message, str]:
        if click_id_kind(options) != "wbraid":
            return {}
        return {Message.ADJUSTMENT: _NO_WBRAID, Message.RETRACTION: _NO_WBRAID}

    def check_options(self, options: Mapping[str, str], secrets: Collection[str]) -> None:
        # Of the two consents the upload of conversions takes one (google.ads.googleads.common.Consent).
        check_google(options, secrets, ("api_version",), "DEVELOPER_TOKEN", consents=("ad_user_data",))
        if not _VERSION.fullmatch(options.get("api_version", API_VERSION)):
            raise ValueError(f"option api_version is written like {API_VERSION}")

    def check_delivery(self, delivery: Delivery, options: Mapping[str, str], now_ms: int) -> str:
        reason = super().check_delivery(delivery, options, now_ms)
        too_old = now_ms - converted_ms(delivery) > OLDEST_ADJUSTED_MS - SENDING_MS
        if not reason and too_old and delivery.owed.message != Message.CONVERSION:
            reason = "the conversion is older than 54 days, of which Google takes no adjustments"
        return reason

    def make(
        self,
        deliveries: Sequence[Delivery],
        values: Sequence[Values],
        options: Mapping[str, str],
        accounts: Mapping[str, str],
        now_ms: int,
    ) -> Outgoing:
        """Conversions go to one address, what adjusts them to another; a batch holds messages of one kind."""
        customer = digits(options["customer_id"])
        action = f"customers/{customer}/conversionActions/{options['conversion_action_id']}"
        rows: dict[str, Any]
        if deliveries[0].owed.message == Message.CONVERSION:
            method = "uploadClickConversions"
            rows = {"conversions": [_conversion(one, action, options) for one in deliveries]}
        else:
            method = "uploadConversionAdjustments"
            rows = {"conversionAdjustments": [_adjustment(one, action, now_ms) for one in deliveries]}
        headers = [
            ("Authorization", f"Bearer {accounts[ACCESS_TOKEN]}"),
            ("developer-token", accounts["DEVELOPER_TOKEN"]),
        ]
        if options.get("login_customer_id"):
            headers.append(("login-customer-id", digits(options["login_customer_id"])))
        document = {**rows, "partialFailure": True, **validate_only(options)}
        version = options.get("api_version", API_VERSION)
        url = f"https://googleads.googleapis.com/{version}/customers/{customer}:{method}"
        return post_json(url, document, tuple(headers))

    def read(self, answer: Answer, deliveries: Sequence[Delivery], now_ms: int) -> list[Judged]:
        """Each row for itself; an error that names no row is everybody's."""
        judged = judge_http(answer, now_ms)
        document = read_json(answer)
        count = len(deliveries)
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
                rows[at] = _worse(rows[at], _judge_row(error, deliveries[at], now_ms))
        return rows


def _conversion(delivery: Delivery, action: str, options: Mapping[str, str]) -> dict[str, Any]:
    return {
        **click(delivery, options),
        "conversionAction": action,
        "conversionDateTime": _write_local(converted_ms(delivery)),
        "conversionValue": amount(delivery),
        "currencyCode": delivery.owed.currency,
        "orderId": conversion_id(delivery),
        **consent(delivery, options, "GRANTED"),
    }


def _adjustment(delivery: Delivery, action: str, now_ms: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "conversionAction": action,
        "orderId": conversion_id(delivery),
        # Has to be after the conversion, and times are told by the second.
        "adjustmentDateTime": _write_local(max(now_ms, converted_ms(delivery) + 1000)),
    }
    if delivery.owed.message == Message.RETRACTION:
        return row | {"adjustmentType": "RETRACTION"}
    restated = {"adjustedValue": amount(delivery), "currencyCode": delivery.owed.currency}
    return row | {"adjustmentType": "RESTATEMENT", "restatementValue": restated}


def _write_local(ms: int) -> str:
    """``2026-11-23 12:00:00+00:00``."""
    return datetime.fromtimestamp(ms // 1000, UTC).isoformat(" ", "seconds")


_ROWS = ("conversions", "conversion_adjustments", "conversionAdjustments")


def _row_of(error: Any) -> int | None:
    """The index of the conversion or adjustment that an error names."""
    for element in items(part(error, "location"), "fieldPathElements"):
        found = as_object(element)
        index = found.get("index")
        # 64-bit integers of this API are written as text.
        if found.get("fieldName") in _ROWS and str(index).isdecimal():
            return int(str(index))
    return None


def _judge_row(error: Any, delivery: Delivery, now_ms: int) -> Judged:
    codes = [str(code) for code in part(error, "errorCode").values()]
    word = codes[0] if codes else "error"
    reason = f"HTTP 200, but {word}: {as_object(error).get('message')}"
    if word in _TOLD_BEFORE or (word == _RETRACTED and delivery.owed.message == Message.RETRACTION):
        return Judged(Outcome.DELIVERED, reason)
    if word == _TOO_YOUNG:
        wait_ms = converted_ms(delivery) + DAY_MS - now_ms
        return Judged(Outcome.FAILED, reason, retry_after_ms=max(0, min(wait_ms, LONGEST_PAUSE_MS)))
    return Judged(Outcome.DEAD if word in _HOPELESS else Outcome.FAILED, reason)


def _worse(one: Judged, other: Judged) -> Judged:
    return one if one.outcome > other.outcome else other
