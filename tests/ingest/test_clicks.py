"""Clicks over a real socket: redirects, macros, marks, weights, and clicks that servers register."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from msgspec.structs import replace

from postbackd.core.model import Campaign, Offer, Source, WeightedOffer
from postbackd.store.base import StoreUnavailable
from postbackd.store.sqlite import SqliteStore
from tests.ingest.shop import KEY, Shop

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


def add_campaign(shop: Shop, slug: str, *urls: str, fields: dict[str, tuple[str, ...]] | None = None) -> None:
    """A campaign whose offers lead to the URLs, with weights 1, 2, 3 …"""
    source = shop.save(Source(id=0, name=f"source-{slug}", fields=fields or {}))
    offers = [
        shop.save(Offer(id=0, name=f"{slug}-{n}", network=shop.network.id, url=url))
        for n, url in enumerate(urls)
    ]
    weighted = tuple(WeightedOffer(offer.id, n + 1) for n, offer in enumerate(offers))
    shop.publish(Campaign(id=0, name=f"campaign {slug}", slug=slug, source=source.id, offers=weighted))


def stored(shop: Shop, source_click_id: str) -> list[dict[str, object]]:
    return shop.rows("SELECT * FROM clicks WHERE source_click_id = ?", source_click_id)


def test_a_visitor_is_sent_on_and_the_click_is_stored_first(shop: Shop) -> None:
    query = {
        "source_click_id": "S-1",
        "cost": "0.0015",
        "country": "de",
        "sub1": "a",
        "sub10": "j",
        "other": "x",
    }
    answer = shop.get(f"/c/c1?{urlencode(query)}")
    assert answer.status == 302
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["location"].startswith("https://shop.example/?sub1=")
    (row,) = stored(shop, "S-1")
    assert (row["cost_micros"], row["country"], row["kind"]) == (1500, "DE", 0)
    assert (row["sub1"], row["sub2"], row["sub10"]) == ("a", None, "j")


def test_macros_are_filled_percent_encoded_and_nothing_can_break_out_of_its_value(shop: Shop) -> None:
    url = (
        "https://shop.example/{campaign}/?c={click_id}&s={source_click_id}&a={sub1}&b={sub2}&n={network}&o={offer}"
        "&src={source}&cc={country}&x={{theirs}}"
    )
    add_campaign(shop, "macros", url)
    hostile = "a&b=c#d?e/f \r\nSet-Cookie: x=1\x00é\N{GRINNING FACE}"
    query = urlencode({"source_click_id": hostile, "sub1": hostile, "country": "FR"})
    answer = shop.get(f"/c/macros?{query}")
    location = answer.headers["location"]
    assert "set-cookie" not in answer.headers
    assert location.isascii()
    assert location.isprintable()
    parts = urlsplit(location)
    assert parts.path == "/campaign%20macros/"
    values = parse_qs(parts.query, keep_blank_values=True)
    cleaned = "a&b=c#d?e/f %0D%0ASet-Cookie: x=1%00é\N{GRINNING FACE}"
    assert (values["s"], values["a"], values["b"]) == ([cleaned], [cleaned], [""])
    assert (values["n"], values["o"], values["src"], values["cc"]) == (
        ["net"], ["macros-0"], ["source-macros"], ["FR"],
    )  # fmt: skip
    assert values["x"] == ["{{theirs}}"]
    assert shop.postback(click_id=values["c"][0], txid="m")["verdict"] == "accepted"


def test_the_destination_comes_from_the_campaign_and_never_from_the_request(shop: Shop) -> None:
    for query in ("url=https://evil.example/", "redirect=//evil.example", "sub1=https://evil.example/"):
        location = shop.get(f"/c/c1?{query}").headers["location"]
        assert urlsplit(location).netloc == "shop.example"


def test_head_and_prefetch_are_answered_alike_marked_and_not_counted(shop: Shop) -> None:
    asked = [
        ("GET", {"Sec-Purpose": "prefetch"}, 2), ("GET", {"Purpose": "prefetch"}, 2), ("HEAD", {}, 1), ("GET", {}, 0),
    ]  # fmt: skip
    for number, (method, headers, kind) in enumerate(asked):
        answer = shop.ask(method, f"/c/c1?source_click_id=H-{number}", headers=headers)
        assert (answer.status, answer.body) == (302, b"")
        (row,) = stored(shop, f"H-{number}")
        assert row["kind"] == kind
        click_id = answer.headers["location"].rpartition("=")[2]
        assert shop.postback(click_id=click_id, txid="h")["verdict"] == "accepted"
    counted = shop.rows("SELECT count(*) AS n FROM clicks WHERE kind = 0 AND source_click_id LIKE 'H-%'")
    assert counted == [{"n": 1}]


def test_a_source_maps_its_own_names(shop: Shop) -> None:
    add_campaign(
        shop,
        "mapped",
        "https://shop.example/?k={sub1}",
        fields={"sub1": ("kw",), "source_click_id": ("gclid",)},
    )
    answer = shop.get("/c/mapped?kw=shoes&gclid=G-77&sub1=ignored")
    assert answer.headers["location"] == "https://shop.example/?k=shoes"
    (row,) = stored(shop, "G-77")
    assert row["sub1"] == "shoes"


def test_offers_share_the_visitors_by_weight(shop: Shop) -> None:
    add_campaign(shop, "weights", "https://one.example/", "https://two.example/", "https://three.example/")
    seen = {"one.example": 0, "two.example": 0, "three.example": 0}
    for _ in range(300):
        seen[urlsplit(shop.get("/c/weights").headers["location"]).netloc] += 1
    assert seen["one.example"] < seen["two.example"] < seen["three.example"]
    assert min(seen.values()) > 20


@pytest.mark.parametrize("cost", ["abc", "-1", "1e5", "{cost}", "", "9" * 30])
def test_a_cost_that_cannot_be_read_is_left_out_and_the_visitor_goes_on(shop: Shop, cost: str) -> None:
    assert shop.get(f"/c/c1?{urlencode({'cost': cost, 'source_click_id': f'cost {cost}'})}").status == 302
    (row,) = stored(shop, f"cost {cost}"[:255])
    assert row["cost_micros"] is None


def test_long_values_are_cut_and_the_visitor_goes_on(shop: Shop) -> None:
    assert shop.get(f"/c/c1?source_click_id={'x' * 3000}&sub1={'y' * 3000}&country={'z' * 500}").status == 302
    (row,) = stored(shop, "x" * 255)
    assert (row["sub1"], row["country"]) == ("y" * 255, None)


def test_a_slug_may_end_with_a_slash(shop: Shop) -> None:
    assert shop.get("/c/c1/?sub1=a").status == 302


def test_other_methods_are_refused(shop: Shop) -> None:
    assert shop.ask("DELETE", "/c/c1").status == 405


# --- clicks that servers register ---------------------------------------------------------------------------


def refusal(shop: Shop, path: str, body: bytes | str, content_type: str = JSON) -> str:
    """Why a click is refused; it must not have been stored."""
    before = shop.count("clicks")
    answer = shop.post(path, body, content_type)
    assert (answer.status, shop.count("clicks")) == (400, before)
    error: str = json.loads(answer.body)["error"]
    return error


def register(shop: Shop, **fields: object) -> dict[str, str]:
    answer = shop.post("/c/c1", json.dumps(fields))
    assert answer.status == 201
    document: dict[str, str] = json.loads(answer.body)
    return document


def test_a_server_registers_a_click_and_gets_its_id_and_destination(shop: Shop) -> None:
    document = register(shop, source_click_id="SRV-1", cost=0.5, country="US", sub1="a")
    assert document["url"] == f"https://shop.example/?sub1={document['click_id']}"
    (row,) = stored(shop, "SRV-1")
    assert (row["cost_micros"], row["country"], row["sub1"]) == (500_000, "US", "a")


def test_a_click_with_an_own_id_is_registered_once_however_often_it_is_sent(shop: Shop) -> None:
    documents = [register(shop, click_id="own-1", source_click_id=f"own-{n}") for n in range(3)]
    assert len({document["click_id"] for document in documents}) == 1
    assert len(shop.rows("SELECT * FROM clicks WHERE own_id = 'own-1'")) == 1
    by_own = shop.postback(click_id="own-1", txid="1")
    by_ours = shop.postback(click_id=documents[0]["click_id"], txid="1")
    assert (by_own["verdict"], by_ours["verdict"]) == ("accepted", "duplicate")


def test_a_postback_for_an_own_id_is_matched_when_the_click_is_registered(shop: Shop) -> None:
    early = shop.postback(click_id="own-late", txid="1")
    assert early["verdict"] == "unmatched"
    register(shop, click_id="own-late")
    later = shop.postback(click_id="own-late", txid="1")
    assert (later["verdict"], later["conversion"]) == ("duplicate", early["request"])


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"5", b"[{}]", b'{"click_id": "%s"}' % (b"x" * 129), b'{"click_id": "{clickid}"}', b"\xff",
     b'{"click_id": ' + b"9" * 5000 + b"}", b'{"click_id": ' + b"[" * 50_000],
    ids=lambda body: ascii(body[:20]),
)  # fmt: skip
def test_a_registration_that_cannot_be_read_is_told_so(shop: Shop, body: bytes) -> None:
    before = shop.count("clicks")
    answer = shop.post("/c/c1", body)
    assert answer.status == 400
    assert "error" in json.loads(answer.body)
    assert shop.count("clicks") == before
    assert shop.get("/healthz").status == 200


@pytest.mark.parametrize("own_id", [77, -5, 12345678901234567890123, "1.5", "日本語", " padded ", "x" * 128])
def test_an_own_id_is_a_json_string_or_a_whole_number(shop: Shop, own_id: object) -> None:
    first, second = register(shop, click_id=own_id), register(shop, click_id=own_id)
    assert first["click_id"] == second["click_id"]
    assert shop.postback(click_id=str(own_id).strip(), txid="1")["verdict"] == "accepted"


@pytest.mark.parametrize("own_id", [1.5, 1e30, True, False, ["a1"], [], {"a": 1}, {}, "x" * 129])
def test_an_own_id_of_another_json_type_or_too_long_is_refused(shop: Shop, own_id: object) -> None:
    assert refusal(shop, "/c/c1", json.dumps({"click_id": own_id})).startswith(
        "click_id must be text of 1 to 128 characters"
    )


@pytest.mark.parametrize(
    ("own_id", "reason"),
    [("null", "click_id_empty"), ("undefined", "click_id_empty"), (0, "click_id_empty"), ("-", "click_id_empty"),
     ("test", "test_event"), ("TestClick1", "test_event"), ("{clickid}", "macro_literal"),
     ("a-{clickid}", "macro_literal"), ("YOUR_CLICK_ID", "macro_literal")],
)  # fmt: skip
def test_an_own_id_that_no_postback_could_match_is_refused_with_the_reason(
    shop: Shop, own_id: object, reason: str
) -> None:
    assert f"({reason})" in refusal(shop, "/c/c1", json.dumps({"click_id": own_id}))
    assert f"({reason})" in refusal(shop, "/c/c1", urlencode({"click_id": own_id}), FORM)
    assert shop.postback(click_id=str(own_id), txid="1")["reason"] == reason


@pytest.mark.parametrize(
    ("path", "body", "content_type", "own_id"),
    [
        ("/c/c1", "click_id=form-1", FORM, "form-1"),
        ("/c/c1", "sub1=a&click_id=form-2\r\n", FORM, "form-2"),
        ("/c/c1", "CLICK%5FID=a+form%20id", FORM, "a form id"),
        ("/c/c1?click_id=query-1", "{}", JSON, "query-1"),
        ("/c/c1?click_id=query-2", '{"click_id": null}', JSON, "query-2"),
        ("/c/c1?click_id=query-3", "", FORM, "query-3"),
        ("/c/c1?click_id=query-4", "", JSON, "query-4"),
        ("/c/c1?click_id=query-5", "sub1=a&click_id=", FORM, "query-5"),
        ("/c/c1?click_id=query-6", "click_id=form-6", FORM, "form-6"),
        ("/c/c1?click_id=query-7", '{"click_id": "json-7"}', JSON, "json-7"),
        ("/c/c1", '\ufeff{"click_id": "json-8"}', FORM, "json-8"),
        ("/c/c1?click_id=%E6%97%A5", "", FORM, "日"),
    ],
)
def test_an_own_id_is_read_from_the_json_body_then_the_form_then_the_query(
    shop: Shop, path: str, body: str, content_type: str, own_id: str
) -> None:
    before = shop.count("own_ids")
    answer = shop.post(path, body.encode(), content_type)
    assert (answer.status, shop.count("own_ids")) == (201, before + 1)
    assert shop.postback(click_id=own_id, txid="1")["verdict"] == "accepted"


def test_the_click_id_in_the_query_of_a_visit_is_no_own_id(shop: Shop) -> None:
    assert shop.get("/c/c1?click_id=visit").status == 302
    assert shop.rows("SELECT * FROM own_ids WHERE own_id = 'visit'") == []


@pytest.mark.parametrize(
    ("path", "body", "content_type", "own_id"),
    [
        ("/c/c1", b"click_id=a%FFb", FORM, "a\xffb"),
        ("/c/c1", b"click_id=a\xffb", FORM, "a\xffb"),
        ("/c/c1", b"click_id=a%00b", FORM, "a%00b"),
        ("/c/c1?click_id=a%0Ab", b"", FORM, "a%0Ab"),
        ("/c/c1", b'{"click_id": "a\\u0007"}', JSON, "a%07"),
    ],
)
def test_an_own_id_of_any_bytes_reads_as_it_will_in_a_postback(
    shop: Shop, path: str, body: bytes, content_type: str, own_id: str
) -> None:
    assert shop.post(path, body, content_type).status == 201
    assert shop.rows("SELECT own_id FROM own_ids WHERE own_id = ?", own_id) != []


@pytest.mark.parametrize(
    "body",
    [b"{", b'{"a": 1', b'{"a": 1}x', b"[]", b"5", b"[{}]", b"\xff", b'{"click_id": "\xff"}', b'{"a": "\\ud800"}',
     b'{"a": ' + b"9" * 5000 + b"}", b'{"a": ' + b"[" * 50_000],
    ids=lambda body: ascii(body[:20]),
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_refused_in_our_own_words(shop: Shop, body: bytes) -> None:
    assert refusal(shop, "/c/c1", body) == (
        'the body is not a JSON object; send one object in UTF-8, such as {"sub1":"a"}, '
        "or a form with Content-Type: application/x-www-form-urlencoded"
    )


def test_an_empty_own_id_is_none(shop: Shop) -> None:
    first, second = register(shop, click_id=""), register(shop, click_id=None)
    assert first["click_id"] != second["click_id"]


def test_an_own_id_of_another_campaigns_click_is_refused_and_nothing_is_stored(shop: Shop) -> None:
    add_campaign(shop, "second", "https://second.example/?c={click_id}")
    register(shop, click_id="own-both")
    assert refusal(shop, "/c/second", '{"click_id": "own-both"}') == "click_id belongs to another campaign"
    assert shop.postback(click_id="own-both", txid="1")["verdict"] == "accepted"


def test_a_click_that_is_registered_again_answers_where_it_led_the_first_time(shop: Shop) -> None:
    urls = [
        f"https://{name}.example/?c={{click_id}}&s={{sub1}}&i={{source_click_id}}&l={{country}}"
        for name in "ab"
    ]
    add_campaign(shop, "again", *urls)
    fields = {"click_id": "own-again", "sub1": "one", "source_click_id": "S", "country": "de"}
    first = json.loads(shop.post("/c/again", json.dumps(fields)).body)
    assert first["url"].endswith(f"c={first['click_id']}&s=one&i=S&l=DE")
    for _ in range(10):  # the offer too is the first one's, though each request draws one
        again = shop.post("/c/again", '{"click_id": "own-again", "sub1": "two"}')
        assert (again.status, json.loads(again.body)) == (201, first)
    by_ours = shop.post("/c/again", json.dumps({"click_id": first["click_id"], "sub1": "three"}))
    assert (by_ours.status, json.loads(by_ours.body)) == (201, first)


def test_a_click_registered_again_after_its_offer_left_the_campaign_is_answered_still(shop: Shop) -> None:
    add_campaign(shop, "moved", "https://old.example/?c={click_id}")
    first = json.loads(shop.post("/c/moved", '{"click_id": "own-moved"}').body)
    new = shop.save(Offer(id=0, name="new", network=shop.network.id, url="https://new.example/?c={click_id}"))
    (campaign,) = shop.rows("SELECT id, source FROM campaigns WHERE slug = 'moved'")
    offers = (WeightedOffer(new.id),)
    shop.publish(
        Campaign(id=campaign["id"], name="moved", slug="moved", source=campaign["source"], offers=offers)
    )
    again = json.loads(shop.post("/c/moved", '{"click_id": "own-moved"}').body)
    assert first["url"] == f"https://old.example/?c={first['click_id']}"
    assert again == {**first, "url": f"https://new.example/?c={first['click_id']}"}


@pytest.mark.parametrize("lost", ["unavailable", "purged"])
def test_a_click_registered_again_that_cannot_be_looked_up_is_to_be_sent_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    async def query(_store: SqliteStore, _name: str, **_parameters: object) -> list[dict[str, object]]:
        if lost == "unavailable":
            raise StoreUnavailable(lost)
        return []

    first = register(shop, click_id="own-lost")
    with monkeypatch.context() as patched:
        patched.setattr(SqliteStore, "query", query)
        answer = shop.post("/c/c1", '{"click_id": "own-lost"}')
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert register(shop, click_id="own-lost") == first


def test_an_id_of_ours_in_quotes_is_that_click_as_it_is_for_a_postback(shop: Shop) -> None:
    click_id = shop.click(source_click_id="QUOTED")
    assert register(shop, click_id=f'"{click_id}"')["click_id"] == click_id
    assert len(stored(shop, "QUOTED")) == 1


def test_an_id_of_ours_that_comes_back_is_the_same_click(shop: Shop) -> None:
    click_id = shop.click(source_click_id="BACK-1")
    assert register(shop, click_id=click_id)["click_id"] == click_id
    assert len(stored(shop, "BACK-1")) == 1


def test_an_id_of_another_campaign_is_refused(shop: Shop) -> None:
    add_campaign(shop, "other", "https://other.example/?c={click_id}")
    theirs = shop.get("/c/other").headers["location"].rpartition("=")[2]
    answer = shop.post("/c/c1", json.dumps({"click_id": theirs}))
    assert answer.status == 400
    assert "another campaign" in json.loads(answer.body)["error"]


def test_an_own_id_that_is_personal_data_is_matched_by_its_hash(shop: Shop) -> None:
    register(shop, click_id="bob.brown@shop.example")
    assert shop.postback(click_id="bob.brown@shop.example", txid="1")["verdict"] == "accepted"
    assert shop.rows("SELECT * FROM clicks WHERE own_id LIKE '%bob%'") == []


def test_a_form_registers_a_click_too(shop: Shop) -> None:
    answer = shop.post("/c/c1", "source_click_id=FORM-1&sub2=b", "application/x-www-form-urlencoded")
    assert answer.status == 201
    (row,) = stored(shop, "FORM-1")
    assert row["sub2"] == "b"


def test_a_removed_offers_clicks_still_convert(shop: Shop) -> None:
    add_campaign(shop, "gone", "https://gone.example/?c={click_id}")
    click_id = shop.get("/c/gone").headers["location"].rpartition("=")[2]
    shop.publish(replace(shop.offer, window_max_s=shop.offer.window_max_s))
    assert shop.get(f"/p/{KEY}?click_id={click_id}&txid=g").headers["postbackd-verdict"] == "accepted"
