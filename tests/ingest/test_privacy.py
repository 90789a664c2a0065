"""Visitors who do not consent, and personal data in clicks and postbacks, through the real front door."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from postbackd.core.consent import Consent
from postbackd.core.model import CONSENT_BIT, NO_CONSENT_BIT
from tests.ingest.shop import KEY, Shop, wait_until

QUERY = "source_click_id=src-1&sub1=placement&sub2=keyword&country=DE&cost=0.5"


@pytest.fixture
def honouring(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path, consent=Consent(True, "consent", frozenset({"DE"})))
    yield shop
    shop.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    shop.close()


def last_click(shop: Shop) -> dict[str, Any]:
    return shop.rows("SELECT * FROM clicks ORDER BY click_id DESC LIMIT 1")[0]


@pytest.mark.parametrize("header", ["Sec-GPC", "DNT"])
def test_a_click_whose_browser_refuses_is_kept_short_sent_on_and_converts(
    honouring: Shop, header: str
) -> None:
    answer = honouring.ask("GET", f"/c/c1?{QUERY}&consent=1", headers={header: "1"})
    assert answer.status == 302
    row = last_click(honouring)
    assert (row["sub1"], row["sub2"], row["ip_prefix"]) == (None, None, None)
    assert (row["source_click_id"], row["country"], row["kind"]) == ("src-1", "DE", NO_CONSENT_BIT)
    click_id = answer.headers["location"].partition("sub1=")[2][:26]
    assert honouring.postback(click_id=click_id, txid="T")["verdict"] == "accepted"
    counted = honouring.rows("SELECT count(*) AS n FROM clicks WHERE kind & 15 = 0")
    assert counted == [{"n": 1}]


def test_the_next_request_of_the_same_connection_is_judged_by_its_own_headers(honouring: Shop) -> None:
    for headers, kept in (
        ({}, "placement"),
        ({"Sec-GPC": "1"}, None),
        ({}, "placement"),
        ({"Sec-GPC": "0"}, "placement"),
    ):
        for _ in range(3):
            honouring.ask("GET", f"/c/c1?{QUERY}&consent=yes", headers=headers)
            assert last_click(honouring)["sub1"] == kept


def test_a_click_without_consent_is_kept_short_and_one_from_elsewhere_is_not(honouring: Shop) -> None:
    honouring.get(f"/c/c1?{QUERY}&consent=no")
    assert last_click(honouring)["sub1"] is None
    honouring.get(f"/c/c1?{QUERY}")
    assert last_click(honouring)["sub1"] is None
    honouring.get(f"/c/c1?{QUERY.replace('DE', 'US')}&consent=no")
    assert last_click(honouring)["sub1"] == "placement"


def test_a_click_that_a_server_registers_is_kept_short_too(honouring: Shop) -> None:
    body = '{"click_id":"own-1","sub1":"placement","country":"DE","consent":"0"}'
    assert honouring.post("/c/c1", body).status == 201
    row = last_click(honouring)
    assert (row["own_id"], row["sub1"], row["kind"]) == ("own-1", None, NO_CONSENT_BIT)


def test_a_clear_yes_is_kept_with_the_click_and_silence_is_not_one(honouring: Shop) -> None:
    honouring.get(f"/c/c1?{QUERY}&consent=granted")
    row = last_click(honouring)
    assert (row["sub1"], row["kind"]) == ("placement", CONSENT_BIT)
    honouring.get(f"/c/c1?{QUERY.replace('DE', 'US')}")  # not asked there
    assert last_click(honouring)["kind"] == 0
    counted = honouring.rows("SELECT count(*) AS n FROM clicks WHERE kind & 15 = 0")
    assert counted == [{"n": 2}]


def test_nothing_is_honoured_where_it_is_not_switched_on(shop: Shop) -> None:
    shop.ask("GET", f"/c/c1?{QUERY}", headers={"Sec-GPC": "1", "DNT": "1"})
    row = last_click(shop)
    assert (row["sub1"], row["kind"]) == ("placement", 0)


def finds(shop: Shop) -> dict[tuple[int, str, str], int]:
    rows = shop.rows("SELECT network, field, kind, sum(count) AS n FROM finds GROUP BY 1, 2, 3")
    return {(row["network"], row["field"], row["kind"]): row["n"] for row in rows}


def test_personal_data_is_counted_by_network_field_and_kind_and_never_stored(shop: Shop) -> None:
    click = shop.click(sub3="jane.doe@mail.example", source_click_id="amFuZS5kb2VAbWFpbC5leGFtcGxl")
    shop.postback(click_id=click, txid="jane.doe%40mail.example")
    shop.post(
        f"/p/{KEY}", f'[{{"click_id":"{click}","txid":"4111111111111111","status":"+44 20 7946 0958"}}]'
    )
    wanted = {
        (0, "sub3", "e-mail"): 1, (0, "source_click_id", "e-mail"): 1, (1, "transaction_id", "e-mail"): 1,
        (1, "transaction_id", "card"): 1, (1, "status", "phone"): 1,
    }  # fmt: skip
    wait_until(lambda: finds(shop) == wanted, "the counts")
    for table in ("clicks", "postbacks", "conversions"):
        assert "jane" not in str(shop.rows(f"SELECT * FROM {table}"))


def test_a_network_that_refuses_personal_data_says_why(shop: Shop) -> None:
    shop.publish(replace(shop.network, personal_data="refuse"))
    click = shop.click()
    said = shop.postback(click_id=click, txid="jane.doe@mail.example")
    assert (said["verdict"], said["reason"]) == ("rejected", "personal_data")
    assert shop.count("conversions") == 0
    assert shop.postback(click_id=click, txid="A-1")["verdict"] == "accepted"
