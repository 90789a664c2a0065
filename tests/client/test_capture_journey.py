"""From the click to the counted conversion: a real click id through each framework, back to the real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from postbackd.core.click_id import read_unverified
from postbackd_client import Client
from postbackd_client.capture import Capture
from tests.client import storefronts
from tests.ingest.shop import KEY, Shop


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    storefronts.configure_django(tmp_path_factory.mktemp("django"))
    made = Shop(tmp_path_factory.mktemp("tracker") / "data")
    yield made
    made.close()


@pytest.mark.parametrize("name", list(storefronts.COOKIE_SHOPS))
def test_a_sale_is_counted_for_the_click_that_brought_the_visitor(
    name: str, tracker: Shop, tmp_path: Path
) -> None:
    click_id = tracker.click(source_click_id="journey")
    ask = storefronts.COOKIE_SHOPS[name](Capture("a secret that is long enough"))
    cookies = ask(f"/?click_id={click_id}", {}).cookies()
    checkout = ask("/checkout", {"cookie": f"pbk={cookies['pbk']}"})
    client = Client(f"http://127.0.0.1:{tracker.port}/p/{KEY}", spool=tmp_path)
    client.conversion(checkout.json["click_id"], "sale", "49.90", "EUR", f"A-{name}")
    assert client.close(timeout=10)
    assert client.statistics().sent == {"accepted": 1}
    number = read_unverified(click_id)
    assert number is not None
    assert (
        tracker.rows("SELECT * FROM conversions WHERE click_id = ?", number >> 64)[0]["value_micros"]
        == 49_900_000
    )
