"""Meta: the Conversions API.

Written from Meta's public documentation (Conversions API: parameters, fbp and fbc, using the API) and tested against
a stand-in; it was never tried against the service itself.  To be known:

- One event that is older than 7 days makes Meta refuse the whole request, so the age is checked before sending.
- Repeats are recognised by event_id and event_name within 48 hours.  An attempt after that may count twice.
- Meta asks website events for the visitor's user agent and for event_source_url.  postbackd keeps no user agents;
  if Meta refuses events for that, set ``action_source`` to what is true of your conversions.
- Nothing can be taken back or corrected.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from postbackd.core.deliveries import Answer, Delivery, Message, Outgoing
from postbackd.core.platforms.base import (
    ACCESS_TOKEN,
    DAY_MS,
    SENDING_MS,
    FixedToken,
    Values,
    amount,
    check_names,
    clicked_ms,
    conversion_id,
    converted_ms,
    event_name,
    judge_http,
    part,
    post_json,
    read_json,
    source_id,
    untellable,
    with_reason,
)
from postbackd.core.replies import Judged, Outcome

API_VERSION = "v24.0"
"""Of the Graph API; a version works for at least two years.  Option ``api_version`` takes another."""

OLDEST_MS = 7 * DAY_MS

ACTION_SOURCES = (
    "website",
    "app",
    "email",
    "phone_call",
    "chat",
    "physical_store",
    "system_generated",
    "other",
)

_TOO_MANY_CALLS = (4, 17, 32, 613, 80_004)
_TOKEN_INVALID = 190
_VERSION = re.compile(r"v[0-9]{1,3}\.[0-9]{1,2}")


class Meta(FixedToken):
    """Options: ``pixel_id``; ``action_source`` (website), ``event_source_url``, ``test_event_code``, ``api_version``.

    Account value: ``ACCESS_TOKEN``.  The event name is ``{goal}``: map the conversion types to Meta's
    (Purchase, Lead …).
    """

    most = 100
    """Meta takes 1,000; fewer share the fate of one bad event."""
    answer_bytes = 4096

    def cannot(self, options: Mapping[str, str]) -> Mapping[Message, str]:
        return {
            Message.ADJUSTMENT: "the Conversions API cannot change an event that was sent",
            Message.RETRACTION: "the Conversions API cannot take an event back",
        }

    def check_options(self, options: Mapping[str, str], secrets: Collection[str]) -> None:
        allowed = ("action_source", "event_source_url", "test_event_code", "api_version")
        check_names(options, ("pixel_id",), allowed, secrets, ACCESS_TOKEN)
        if not (options["pixel_id"].isascii() and options["pixel_id"].isdigit()):
            raise ValueError("option pixel_id is a number; copy it from the Events Manager")
        if options.get("action_source", ACTION_SOURCES[0]) not in ACTION_SOURCES:
            raise ValueError(f"option action_source is one of {', '.join(ACTION_SOURCES)}")
        if not _VERSION.fullmatch(options.get("api_version", API_VERSION)):
            raise ValueError(f"option api_version is written like {API_VERSION}")

    def check_delivery(self, delivery: Delivery, options: Mapping[str, str], now_ms: int) -> str:
        reason = untellable(self.cannot(options), delivery, "no fbclid was stored with the click")
        if not reason and now_ms - converted_ms(delivery) > OLDEST_MS - SENDING_MS:
            reason = "the conversion is older than 7 days, which the Conversions API refuses"
        return reason

    def make(
        self,
        deliveries: Sequence[Delivery],
        values: Sequence[Values],
        options: Mapping[str, str],
        accounts: Mapping[str, str],
        now_ms: int,
    ) -> Outgoing:
        document: dict[str, Any] = {
            "data": [_event(*pair, options) for pair in zip(deliveries, values, strict=True)],
            # A parameter like the others; the documentation also shows it in the URL, but URLs end up in logs.
            "access_token": accounts[ACCESS_TOKEN],
        }
        if options.get("test_event_code"):
            document["test_event_code"] = options["test_event_code"]
        version = options.get("api_version", API_VERSION)
        return post_json(f"https://graph.facebook.com/{version}/{options['pixel_id']}/events", document)

    def read(self, answer: Answer, deliveries: Sequence[Delivery], now_ms: int) -> list[Judged]:
        """All or nothing: Meta takes every event of a request, or refuses it as a whole."""
        return [_judge(answer, len(deliveries), now_ms)] * len(deliveries)


def _event(delivery: Delivery, values: Values, options: Mapping[str, str]) -> dict[str, Any]:
    event = {
        "event_name": event_name(delivery, values),
        "event_time": converted_ms(delivery) // 1000,
        "event_id": conversion_id(delivery),
        "action_source": options.get("action_source", ACTION_SOURCES[0]),
        "user_data": {"fbc": _fbc(delivery)},
        "custom_data": {"value": amount(delivery), "currency": delivery.owed.currency},
    }
    if options.get("event_source_url"):
        event["event_source_url"] = options["event_source_url"]
    return event


def _fbc(delivery: Delivery) -> str:
    """``fb.1.<time of the click>.<fbclid>``; 1 is what Meta names for servers."""
    fbclid = source_id(delivery)
    return fbclid if fbclid.startswith("fb.") else f"fb.1.{clicked_ms(delivery)}.{fbclid}"


def _judge(answer: Answer, count: int, now_ms: int) -> Judged:
    judged = judge_http(answer, now_ms)
    document = read_json(answer)
    if judged.outcome is Outcome.DELIVERED:
        received = document.get("events_received")
        if received == count:
            return judged
        return with_reason(
            judged, f"HTTP {answer.status}, but Meta says {received!a} of {count} events received"
        )
    error = part(document, "error")
    if not error:
        return judged
    code = error.get("code")
    reason = f"{judged.reason}, error {code}: {error.get('error_user_msg') or error.get('message')}"
    if code == _TOKEN_INVALID:
        reason = f"{reason} (give the target a new {ACCESS_TOKEN})"
    return with_reason(judged, reason, slow_down=code in _TOO_MANY_CALLS)
