"""What the front door does with everybody: refusals, personal data, a store that is away, a catalog that changes."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from time import monotonic
from urllib.parse import quote, urlencode

import apsw
import pytest
from msgspec.structs import replace

from postbackd.core.model import Campaign, Network, Offer, WeightedOffer
from postbackd.ingest import front_door
from tests.ingest.conftest import PATIENT_S
from tests.ingest.shop import FILE_NAME, KEY, Shop, wait_until
from tests.ingest.wire import read_answers

# --- uniform refusals ---------------------------------------------------------------------------------------


def test_everything_that_does_not_exist_gets_the_same_answer(shop: Shop) -> None:
    paths = ["/p/unknown", "/p/", f"/p/{KEY}x", f"/p/{KEY[:-1]}", f"/p/{KEY.lower()}", f"/p/{KEY}/other"]
    paths += ["/p/unknown/pixel.gif", "/c/unknown", "/c/", "/", "/x"]
    answers = [shop.get(path) for path in paths] + [shop.post("/p/unknown", "{")]
    assert len({(a.status, a.body, tuple(sorted(a.headers.items()))) for a in answers}) == 1
    assert answers[0].status == 404


def test_a_method_that_is_none_of_ours_is_refused_without_a_row(shop: Shop) -> None:
    before = shop.count("postbacks")
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
        answer = shop.ask(method, f"/p/{KEY}?click_id=x")
        assert answer.status == 405
        assert "POST" in answer.headers["allow"]
    head = shop.ask("HEAD", f"/p/{KEY}?click_id=x")
    assert (head.status, head.body) == (405, b"")
    assert shop.get("/healthz").status == 200
    assert shop.count("postbacks") == before


def test_refusals_are_counted_by_kind(shop: Shop) -> None:
    def refused() -> int:
        return sum(row["count"] for row in shop.rows("SELECT count FROM refusals WHERE kind = 'not_found'"))

    before = wait_until(lambda: refused() or 1, "a count")
    for _ in range(7):
        shop.get("/p/nobody")
    wait_until(lambda: refused() >= before + 7 - 1, "the count of refusals")


# --- personal data and secrets ------------------------------------------------------------------------------


PERSONAL = [
    "marker.person@shop.example",
    "+44 20 7946 0958",
    "4111 1111 1111 1111",
    "198.51.100.177",
    "2001:db8:7:8::99",
]


def raw_bytes(shop: Shop) -> bytes:
    """Every byte that the database holds on disk."""
    return b"".join(path.read_bytes() for path in shop.directory.iterdir() if path.is_file())


def test_personal_data_sent_in_any_field_of_any_request_never_reaches_the_disk(shop: Shop) -> None:
    postback_fields = ["click_id", "type", "value", "currency", "txid", "status", "time", "email", "s2"]
    click_fields = ["cost", "country", *(f"sub{n}" for n in range(1, 11)), "ip", "email"]
    for text in PERSONAL:
        for wrapped in (text, f"id {text} end", quote(text)):
            click_id = shop.click(**dict.fromkeys(click_fields, wrapped), **_opaque(wrapped))
            shop.post(
                "/c/c1", json.dumps({"click_id": f"own {wrapped}", "sub1": wrapped, "sub2": {"e": wrapped}})
            )
            for field in postback_fields:
                fields = {"click_id": click_id, field: wrapped}
                shop.get(f"/p/{KEY}?{urlencode(fields)}")
                shop.get(f"/p/{KEY}/pixel.gif?{urlencode(fields)}")
                shop.post(f"/p/{KEY}", json.dumps([fields, {field: {"nested": [wrapped]}}]))
                shop.post(f"/p/{KEY}", json.dumps({**fields, wrapped: click_id}))
            shop.get(f"/p/{KEY}?{urlencode({'cid': 'x', wrapped: click_id})}")
            shop.get(
                f"/c/c1?{urlencode({wrapped: wrapped})}",
                User_Agent=text,
                Referer=f"https://x/?e={quote(text)}",
            )
    stored = raw_bytes(shop).lower()
    assert b"hashed:" in stored
    for text in PERSONAL:
        for form in (text, quote(text), text.replace(" ", ""), text.replace(" ", "+")):
            assert form.lower().encode() not in stored
    assert b"marker" not in stored


def _opaque(text: str) -> dict[str, str]:
    """The source's own click id must come back to it as it was: digits alone are never taken for a card number."""
    return {} if "4111" in text else {"source_click_id": text}


def test_addresses_of_visitors_are_truncated(shop: Shop) -> None:
    shop.click()
    prefixes = {row["ip_prefix"] for row in shop.rows("SELECT DISTINCT ip_prefix FROM clicks")}
    assert prefixes == {"127.0.0.0/24"}


def test_the_endpoint_key_and_unmapped_parameters_are_in_no_row_of_the_log(shop: Shop) -> None:
    shop.get(f"/p/{KEY}?click_id={shop.click()}&token=s3cr3t-unmapped&key={KEY}")
    shop.get(f"/p/{KEY}x?token=s3cr3t-unmapped")
    for table in ("postbacks", "clicks", "conversions", "waiting", "refusals"):
        for row in shop.rows(f"SELECT * FROM {table}"):
            assert KEY not in str(row)
            assert "s3cr3t" not in str(row)


def test_of_unmapped_parameters_the_names_are_noted_and_never_a_value(shop: Shop) -> None:
    for number in range(2):
        shop.get(f"/p/{KEY}?click_id={shop.click()}&aff%5Fsub5=s3cr3t{number}&john%40shop.example=1&s3cr3t")

    def noted() -> list[str]:
        return [row["name"] for row in shop.rows("SELECT name FROM unmapped_names")]

    wait_until(lambda: "aff_sub5" in noted(), "the name")
    assert not [name for name in noted() if "@" in name or "s3cr3t" in name]


# --- the store away -----------------------------------------------------------------------------------------


def test_a_store_that_cannot_be_written_answers_503_and_goes_on_when_it_can(shop: Shop) -> None:
    click_id = shop.click()
    greedy = apsw.Connection(str(shop.directory / FILE_NAME))
    greedy.execute("BEGIN IMMEDIATE")
    postback = f"/p/{KEY}?click_id={click_id}&txid=U"
    answers = [shop.get(postback), shop.get(postback), shop.get("/c/c1"), shop.get("/readyz")]
    assert [answer.status for answer in answers] == [503] * 4
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
    assert shop.get("/healthz").status == 200
    greedy.execute("ROLLBACK")
    greedy.close()
    wait_until(lambda: shop.get("/readyz").status == 200, "recovery")
    verdict = shop.postback(click_id=click_id, txid="U")["verdict"]
    assert verdict in ("accepted", "duplicate")
    assert shop.postback(click_id=click_id, txid="U")["verdict"] == "duplicate"
    rows = shop.rows("SELECT count(*) AS n FROM conversions WHERE transaction_id = 'U'")
    assert rows == [{"n": 1}]


def test_a_batch_that_the_store_could_not_take_whole_is_503_and_can_be_sent_again(shop: Shop) -> None:
    click_id = shop.click()
    items = json.dumps([{"click_id": click_id, "txid": f"V{n}"} for n in range(3000)])
    greedy = apsw.Connection(str(shop.directory / FILE_NAME))
    greedy.execute("BEGIN IMMEDIATE")
    answer = shop.post(f"/p/{KEY}", items)
    register = shop.post("/c/c1", "{}")
    assert (answer.status, register.status) == (503, 503)
    greedy.execute("ROLLBACK")
    greedy.close()
    wait_until(lambda: shop.get("/readyz").status == 200, "recovery")
    documents = json.loads(shop.post(f"/p/{KEY}", items).body)
    assert {d["verdict"] for d in documents} == {"accepted"}


def test_a_full_queue_answers_503_at_once_and_the_rest_is_counted(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data", queue_limit=3)
    click_id = shop.click()
    requests = b"".join(
        f"GET /p/{KEY}?click_id={click_id}&txid={n} HTTP/1.1\r\nHost: h\r\n\r\n".encode() for n in range(20)
    )
    with socket.create_connection(("127.0.0.1", shop.port), timeout=20) as client:
        client.sendall(requests)
        client.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: client.recv(65_536), b""))
    statuses = [answer.status for answer in read_answers(received)]
    assert len(statuses) == 20
    assert set(statuses) == {200, 503}
    assert shop.count("conversions") == statuses.count(200)
    shop.close()


def test_a_click_that_comes_while_the_store_is_away_is_503_and_not_a_redirect(shop: Shop) -> None:
    greedy = apsw.Connection(str(shop.directory / FILE_NAME))
    greedy.execute("BEGIN IMMEDIATE")
    answer = shop.get("/c/c1")
    assert (answer.status, "location" in answer.headers) == (503, False)
    greedy.execute("ROLLBACK")
    greedy.close()
    wait_until(lambda: shop.get("/readyz").status == 200, "recovery")


# --- the catalog --------------------------------------------------------------------------------------------


def test_a_change_of_the_catalog_is_seen_within_a_second(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_door, "_TICK_S", PATIENT_S)

    def seconds(name: str) -> float:
        shop.save(Network(id=0, name=name, key=f"key-of-{name}"))
        began = monotonic()
        wait_until(lambda: shop.get(f"/p/key-of-{name}?click_id=x").status == 200, "the new network")
        return monotonic() - began

    # Others run on this machine, too: the quickest counts.
    assert min(seconds(name) for name in ("fresh", "fresher", "freshest")) < 1.0


def test_a_changed_mapping_is_used(shop: Shop) -> None:
    shop.publish(replace(shop.network, fields={"value": ("reward",)}))
    document = shop.postback(click_id=shop.click(), reward="abc")
    assert document["reason"] == "value_invalid"
    shop.publish(shop.network)
    assert shop.postback(click_id=shop.click(), reward="abc")["verdict"] == "accepted"


def test_a_catalog_that_cannot_be_used_leaves_the_old_one_in_place(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    broken = shop.save(
        Offer(id=0, name="broken", network=shop.network.id, url="https://shop.example/{nonsense}")
    )
    campaign = shop.save(
        Campaign(id=0, name="b", slug="b", source=shop.source.id, offers=(WeightedOffer(broken.id),))
    )
    wait_until(lambda: "the new catalog cannot be used" in caplog.text, "a line in the log")
    assert shop.get("/c/c1").status == 302
    assert shop.get("/c/b").status == 404
    shop.publish(replace(broken, url="https://shop.example/"))
    assert shop.get(f"/c/{campaign.slug}").status == 302


def test_an_absolute_target_and_a_slash_at_the_end_lead_to_the_same_place(shop: Shop) -> None:
    click_id = shop.click()
    base = f"http://127.0.0.1:{shop.port}"
    for path in (f"{base}/p/{KEY}?click_id={click_id}&txid=abs", f"/p/{KEY}/?click_id={click_id}&txid=abs"):
        assert shop.get(path).status == 200
    assert shop.get("ftp://x/p/y").status == 404
