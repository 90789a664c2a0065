"""TikTok: the Events API, version 1.3.

Written from TikTok's public help pages, request examples of its integrators and the field's notes, and tested against
a stand-in; the reference itself stands behind a log-in, and nothing was tried against the service.  To be known:

- Errors come inside of HTTP 200, as a code that is not 0.  They are errors of the whole request: no form of answer
  that names single events could be confirmed.
- Repeats are recognised by event and event_id within 48 hours.
- An age limit is not documented publicly; set the target's freshness (7 days is what others use).
- Nothing can be taken back or corrected.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from postbackd.core.deliveries import Answer, Delivery, Message, Outgoing
from postbackd.core.platforms.base import (
    ACCESS_TOKEN,
    FixedToken,
    Values,
    amount,
    check_names,
    conversion_id,
    converted_ms,
    event_name,
    judge_http,
    post_json,
    read_json,
    source_id,
    untellable,
    with_reason,
)
from postbackd.core.replies import Judged, Outcome

URL = "https://business-api.tiktok.com/open_api/v1.3/event/track/"

_TOO_MANY_CALLS = (40_100, 42_900)
_TOKEN_INVALID = (40_104, 40_105)


class TikTok(FixedToken):
    """Options: ``pixel_code``; ``page_url``, ``test_event_code``.  Account value: ``ACCESS_TOKEN``.

    The event is ``{goal}``: map the conversion types to TikTok's (CompletePayment, SubmitForm …).
    """

    most = 50
    answer_bytes = 4096

    def cannot(self, options: Mapping[str, str]) -> Mapping[Message, str]:
        return {
            Message.ADJUSTMENT: "the Events API cannot change an event that was sent",
            Message.RETRACTION: "the Events API cannot take an event back",
        }

    def check_options(self, options: Mapping[str, str], secrets: Collection[str]) -> None:
        check_names(options, ("pixel_code",), ("page_url", "test_event_code"), secrets, ACCESS_TOKEN)

    def check_delivery(self, delivery: Delivery, options: Mapping[str, str], now_ms: int) -> str:
        return untellable(self.cannot(options), delivery, "no ttclid was stored with the click")

    def make(
        self,
        deliveries: Sequence[Delivery],
        values: Sequence[Values],
        options: Mapping[str, str],
        accounts: Mapping[str, str],
        now_ms: int,
    ) -> Outgoing:
        document: dict[str, Any] = {
            "event_source": "web",
            "event_source_id": options["pixel_code"],
            "data": [_event(*pair, options) for pair in zip(deliveries, values, strict=True)],
        }
        if options.get("test_event_code"):
            document["test_event_code"] = options["test_event_code"]
        return post_json(URL, document, (("Access-Token", accounts[ACCESS_TOKEN]),))

    def read(self, answer: Answer, deliveries: Sequence[Delivery], now_ms: int) -> list[Judged]:
        """One judgement for all: the code is that of the request."""
        return [_judge(answer, now_ms)] * len(deliveries)


def _event(delivery: Delivery, values: Values, options: Mapping[str, str]) -> dict[str, Any]:
    event: dict[str, Any] = {
        "event": event_name(delivery, values),
        "event_time": converted_ms(delivery) // 1000,
        "event_id": conversion_id(delivery),
        "user": {"ttclid": source_id(delivery)},
        "properties": {"value": amount(delivery), "currency": delivery.owed.currency},
    }
    if options.get("page_url"):
        event["page"] = {"url": options["page_url"]}
    return event


def _judge(answer: Answer, now_ms: int) -> Judged:
    judged = judge_http(answer, now_ms)
    document = read_json(answer)
    code = document.get("code")
    if judged.outcome is Outcome.DELIVERED and code == 0:
        return judged
    if code is None:
        what = judged.reason or f"HTTP {answer.status}, but no code in the answer"
        return with_reason(judged, what)
    reason = f"HTTP {answer.status}, code {code}: {document.get('message')}"
    if code in _TOKEN_INVALID:
        reason = f"{reason} (give the target a new {ACCESS_TOKEN})"
    return with_reason(judged, reason, slow_down=code in _TOO_MANY_CALLS)
