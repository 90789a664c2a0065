"""Google's Data Manager API.

- A request is refused as a whole when one event in it is malformed, and the event is named.  What is wrong with a
  well-formed event Google finds out later and tells in its own diagnostics: delivered here means handed over.
- A changed value is the same event once more: Google knows it by its transaction id and conversion action, and puts
  the new value and currency in the place of the old (guide "Conversion adjustments").
- Nothing can be taken back (guide "Upgrade from the Google Ads API"); a value of 0 is the most that can be said.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from postbackd.core.deliveries import Answer, Delivery, Message, Outgoing
from postbackd.core.moments import write_moment
from postbackd.core.platforms.base import (
    ACCESS_TOKEN,
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
from postbackd.core.platforms.google import Google, check_google, click, consent, digits, validate_only
from postbackd.core.replies import Judged, Outcome

URL = "https://datamanager.googleapis.com/v1/events:ingest"
EVENT_SOURCES = ("WEB", "APP", "IN_STORE", "PHONE", "OTHER")

_ROW = re.compile(r"events\[([0-9]{1,5})\]")


class GoogleDataManager(Google):
    """Options: ``customer_id``, ``conversion_action_id``; ``login_customer_id`` (of the manager account),
    ``click_id_kind`` (gclid), ``event_source`` (WEB), ``consent_covers``, ``validate_only`` (false).

    Account values: ``CLIENT_ID``, ``CLIENT_SECRET`` and ``REFRESH_TOKEN``, of a user who may use the scope
    ``https://www.googleapis.com/auth/datamanager``.
    """

    def cannot(self, options: Mapping[str, str]) -> Mapping[Message, str]:
        return {
            Message.RETRACTION: "the Data Manager API cannot take a conversion back; "
            "write adjust to have its value restated as 0 (Google goes on counting it)"
        }

    def check_options(self, options: Mapping[str, str], secrets: Collection[str]) -> None:
        check_google(options, secrets, ("event_source",))
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
        """A conversion and its adjustment look alike: Google infers which it is."""
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
                "adIdentifiers": click(delivery, options),
                "conversionValue": amount(delivery),
                "currency": delivery.owed.currency,
                **consent(delivery, options, "CONSENT_GRANTED"),
            }
            for delivery in deliveries
        ]
        document = {"destinations": [destination], "events": events, **validate_only(options)}
        return post_json(URL, document, (("Authorization", f"Bearer {accounts[ACCESS_TOKEN]}"),))

    def read(self, answer: Answer, deliveries: Sequence[Delivery], now_ms: int) -> list[Judged]:
        """All or nothing; an event that the refusal names gets a reason of its own."""
        judged = judge_http(answer, now_ms)
        error = part(read_json(answer), "error")
        if judged.outcome is Outcome.DELIVERED or not error:
            return [judged] * len(deliveries)
        reason = f"{judged.reason}, {error.get('status')}: {error.get('message')}"
        rows = [with_reason(judged, reason)] * len(deliveries)
        for detail in items(error, "details"):
            for violation in map(as_object, items(detail, "fieldViolations")):
                field, what = violation.get("field"), violation.get("description")
                found = _ROW.search(str(field))
                if found is not None and int(found[1]) < len(rows):
                    rows[int(found[1])] = with_reason(judged, f"{judged.reason}, {field}: {what}")
        return rows


def _account(number: str) -> dict[str, str]:
    return {"accountType": "GOOGLE_ADS", "accountId": digits(number)}
