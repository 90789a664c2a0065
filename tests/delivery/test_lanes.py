"""What goes into one request."""

from __future__ import annotations

import json

from msgspec.structs import replace

from postbackd.core.deliveries import Delivery, Message
from postbackd.core.model import How, Target
from postbackd.core.shipping import Names
from postbackd.delivery.lanes import Lane, make_lane
from tests.core.desk import NOW_MS
from tests.core.test_platforms import delivery
from tests.core.test_shipping import CATALOG


def lane_to_google(*waiting: Delivery) -> Lane:
    options = {"customer_id": "1", "conversion_action_id": "2"}
    target = Target(
        id=1,
        name="g",
        how=How(kind="google_ads", options=options),
        secrets={"ACCESS_TOKEN": "", "DEVELOPER_TOKEN": ""},
    )
    lane = make_lane(target, Names(CATALOG), lambda sealed: "value", {})
    lane.waiting.extend(waiting)
    return lane


def test_a_request_holds_messages_of_one_kind_because_platforms_take_corrections_elsewhere() -> None:
    told = [
        Message.CONVERSION,
        Message.CONVERSION,
        Message.ADJUSTMENT,
        Message.RETRACTION,
        Message.CONVERSION,
    ]
    lane = lane_to_google(*(delivery(number, message) for number, message in enumerate(told, 1)))
    batches = []
    while batch := lane.take(NOW_MS):
        batches.append(batch)
    assert [[one.number for one in batch] for batch in batches] == [[1, 2], [3], [4], [5]]
    sent = [lane.make(batch, NOW_MS) for batch in batches]
    assert [one.url.rpartition(":")[2] for one in sent] == [
        "uploadClickConversions",
        "uploadConversionAdjustments",
        "uploadConversionAdjustments",
        "uploadClickConversions",
    ]
    rows = [len(next(iter(json.loads(one.body).values()))) for one in sent]
    assert rows == [2, 1, 1, 1]


def test_one_that_failed_before_goes_alone() -> None:
    failed = replace(delivery(2), attempts=1)
    lane = lane_to_google(delivery(1), failed, delivery(3))
    assert [one.number for one in lane.take(NOW_MS)] == [1]
    assert [one.number for one in lane.take(NOW_MS)] == [2]
