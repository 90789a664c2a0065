"""Limits of requests a second: what a batch of postbacks costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postbackd.core.rate import RateLimit
from postbackd.ingest.client import Entrance
from tests.ingest.shop import KEY, Shop
from tests.ingest.wire import Answer


@pytest.fixture(params=["per_key", "per_prefix"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    limits: dict[str, Any] = {request.param: RateLimit(100)}
    made = Shop(tmp_path / "data", entrance=Entrance(**limits))
    yield made
    made.close()


def send(shop: Shop, count: int, first: int = 0) -> Answer:
    sales = [{"click_id": "mine", "txid": f"B-{first + number}"} for number in range(count)]
    return shop.ask("POST", f"/p/{KEY}", json.dumps(sales).encode(), {"Content-Type": "application/json"})


def test_a_batch_costs_what_its_postbacks_would_have_cost_alone(shop: Shop) -> None:
    answer = send(shop, 1000)  # more than a bucket holds: it is taken all the same, and paid for afterwards
    assert answer.status == 200
    assert len(json.loads(answer.body)) == 1000
    refused = send(shop, 1000)
    assert refused.status == 429
    assert (
        5 <= int(refused.headers["retry-after"]) <= 7
    )  # 1,000 at 100 a second, less the four seconds of a burst
    assert shop.get(f"/p/{KEY}?click_id=mine&txid=one").status == 429
    assert shop.count("postbacks") == 1000


def test_a_batch_that_is_too_large_is_refused_and_costs_one(shop: Shop) -> None:
    assert send(shop, 10_001).status == 413
    assert shop.get(f"/p/{KEY}?click_id=mine&txid=one").status == 200
