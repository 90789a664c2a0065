"""The log, the live log and the doctor of uncounted postbacks, over the real API of a real store."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from postbackd.core.click_id import write_stamp
from postbackd.core.model import Network, Postback
from postbackd.reports.live import RATE
from tests.admin.site import Site
from tests.store.contract import KINDS, World


class Both:
    """A site, and the world that writes to its database."""

    def __init__(self, directory: Path) -> None:
        self.world = World(KINDS[0], directory)
        self.world.now_ms = time.time_ns() // 1_000_000
        tune = self.world.save(Network(id=0, name="TUNE", key="key-tune", preset="tune"))
        self.world.networks["tune"] = tune
        self.world.reload()
        self.click = self.world.click()
        self.site = Site(directory)

    def send(self, text: str, query: str = "", network: str = "tune") -> Postback:
        postback = self.world.make(text, query, network)
        self.world.settle(postback)
        return postback

    def get(self, path: str, status: int = 200) -> Any:
        answer = self.site.get(f"/api/v1{path}")
        assert answer.status == status, answer.body
        return answer.json


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    made = Both(tmp_path_factory.mktemp("live") / "data")
    with made.site:
        yield made
    made.world.close()


class Events:
    """Reads server-sent events."""

    def __init__(self, both: Both, query: str = "", last: str | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", both.site.port, timeout=20)
        headers = {"Accept-Encoding": "gzip"} | ({} if last is None else {"Last-Event-ID": last})
        self._connection.request("GET", f"/api/v1/log/live{query}", headers=headers)
        self.response = self._connection.getresponse()
        assert self.response.status == 200
        assert self.response.getheader("content-type") == "text/event-stream; charset=utf-8"
        assert self.response.getheader("content-encoding") is None
        assert self.response.readline().startswith(b"retry:")
        self.response.readline()

    def next(self) -> tuple[str, str, dict[str, Any]]:
        """``(word, id, document)``."""
        fields: dict[str, str] = {}
        while True:
            line = self.response.readline().decode().rstrip("\n")
            if not line and "event" in fields:
                return fields["event"], fields.get("id", ""), json.loads(fields["data"])
            name, _, text = line.partition(": ")
            if name:
                fields[name] = text

    def until(self, word: str) -> list[tuple[str, str, dict[str, Any]]]:
        told = [self.next()]
        while told[-1][0] != word:
            told.append(self.next())
        return told

    def close(self) -> None:
        self._connection.close()


def id_of(postback: Postback) -> str:
    return write_stamp(postback.request.request_id)


def test_the_log_is_read_in_pages_by_filters_and_one_row_by_its_request(both: Both) -> None:
    sent = [both.send(f"{{page{n}}}", network="hold") for n in range(5)]
    first = both.get("/log?network=hold&limit=3&verdict=unmatched&reason=macro_literal")
    rest = both.get(f"/log?network=hold&limit=3&cursor={first['next']}")
    assert [row["request"] for row in first["items"] + rest["items"]] == [id_of(p) for p in reversed(sent)]
    assert rest["next"] is None
    assert both.get(f"/log/{id_of(sent[0])}")["click_id"] == "{page0}"
    (row,) = both.get(f"/log?click={quote('{page1}')}")["items"]
    assert row["request"] == id_of(sent[1])
    known = both.world.id_of(both.click)
    counted = both.send(known, "txid=log")
    assert both.get(f"/log?click={known.upper()}&campaign=c")["items"][0]["request"] == id_of(counted)
    assert both.get(f"/why/{known}")["kind"] == "click id"
    assert both.get("/why/nonsense")["found"] is False


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/log?network=Nobody", 400, "there is no network 'Nobody'"),
        ("/log?verdict=good", 400, "write one of accepted"),
        ("/log?reason=none", 400, "write one of click_id_missing"),
        ("/log?cursor=zz", 400, "cursor"),
        ("/log/0000000000000", 404, "its row may be purged"),
        ("/log/live?rate=0", 400, "rate"),
        ("/log/live?kind=cats", 400, "kind"),
        ("/log/live?after=no", 400, "no id of a row"),
        ("/log/live?kind=deliveries&network=TUNE", 400, "by outcome alone"),
        ("/log/live?outcome=failed", 400, "kind=deliveries"),
        ("/unmatched?network=Nobody", 400, "there is no network"),
        ("/unmatched/repairable?reason=signature_invalid", 400, "not about the sender"),
        ("/unmatched/repairable?after=no", 400, "next"),
        ("/why/%20", 400, "the id is empty"),
    ],
)
def test_wrong_input_is_named(both: Both, path: str, status: int, words: str) -> None:
    assert words in both.get(path, status)["detail"]


def test_the_live_log_tells_each_row_and_goes_on_where_it_was_left(both: Both) -> None:
    following = Events(both, "?network=TUNE&reason=macro_literal")
    other = both.send(both.world.id_of(both.click), "txid=live")
    first = both.send("{one}")
    word, id_, document = following.next()
    assert (word, id_) == ("postback", id_of(first))
    assert document["click_id"] == "{one}"
    assert document == {**both.get(f"/log/{id_}")}
    following.close()
    missed = [both.send("{two}"), both.send("{three}")]
    again = Events(both, "?network=TUNE&reason=macro_literal", last=id_)
    told = [entry for entry in again.until("resumed") if entry[0] != "rate"]
    assert [id_ for _, id_, _ in told[:-1]] == [id_of(postback) for postback in missed]
    assert told[-1][2] == {"shown": 2, "matched": 2, "complete": True}
    again.close()
    assert id_of(other) != id_


def test_above_the_rate_the_live_log_says_how_many_there_were(both: Both) -> None:
    following = Events(both, "?network=add")
    postbacks = [both.world.make("{x}", f"txid=s{n}", "add") for n in range(RATE * 4)]
    both.world.settle(*postbacks)
    told = following.until("rate")
    matched, shown = told[-1][2]["matched"], told[-1][2]["shown"]
    assert (matched, shown) == (RATE * 4, RATE)
    assert len([entry for entry in told if entry[0] == "postback"]) == RATE
    following.close()


def test_the_doctor_shows_repairs_and_makes_them_once(both: Both) -> None:
    ids = [both.world.id_of(both.world.click()) for _ in range(3)]
    for id_ in ids:
        both.send(f"{id_}__x", "txid=d")
    (group,) = [g for g in both.get("/unmatched?network=TUNE")["groups"] if g["reason"] == "click_id_altered"]
    assert (group["hop"], group["count"], group["kinds"]) == ("network", 3, {"surrounded": 3})
    assert "click_id={aff_sub}" in group["steps"][0]["url"]
    preview = both.get("/unmatched/repairable?network=TUNE&reason=click_id_altered&most=2")
    assert (preview["done"], preview["count"], preview["looked_at"]) == (False, 2, 2)
    assert preview["found"][0]["click_id"] == ids[0]
    rest = both.get(f"/unmatched/repairable?network=TUNE&reason=click_id_altered&after={preview['next']}")
    assert (rest["count"], rest["next"]) == (1, None)
    asked = {"network": "TUNE", "reason": "click_id_altered"}
    made = [both.site.ask("POST", "/api/v1/unmatched/repair", asked).json for _ in range(2)]
    assert [one["count"] for one in made] == [3, 0]
    refused = both.site.ask("POST", "/api/v1/unmatched/repair", asked, {"Scopes": "read"})
    assert refused.status == 403
    assert both.get("/lost-ids")["found"] == []
