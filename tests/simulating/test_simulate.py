"""``postbackd simulate`` against a real server: what it says is what is true, and what is not is found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any

import pytest

from postbackd.core.click_id import first_stamp_at
from postbackd.market.cast import NETWORKS
from postbackd.market.misconfigurations import MISCONFIGURATIONS
from postbackd.simulating.ledger import Ledger
from postbackd.simulating.truth_file import read_truth
from tests.simulating.market import Market, command, open_market
from tests.trust.server import free_port

SEED, CLICKS = "3", "700"


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    admin = f"127.0.0.1:{free_port()}"
    opened = open_market(tmp_path_factory.mktemp("market"), env={"POSTBACKD_ADMIN_LISTEN": admin})
    with opened.server:
        yield opened


@pytest.fixture(scope="module")
def truth(market: Market) -> Path:
    return market.play("--clicks", CLICKS, "--seed", SEED, "--sweep")


def wrong(found: Any) -> set[str]:
    return {line["what"] for line in found["lines"] if not line["ok"]}


def test_a_server_that_is_right_differs_from_the_truth_in_nothing(market: Market, truth: Path) -> None:
    found = market.check(truth)
    assert found["differences"] == 0
    said = {(line["what"], line["where"]): line["said"] for line in found["lines"]}
    ledger = Ledger(read_truth(truth))
    assert len(ledger.sales) > 35
    assert said["conversions one by one", "all"] == str(ledger.all.conversions.low)
    assert int(said["clicks", "all"]) == ledger.visits["counted"] > 600
    for role in NETWORKS:
        assert int(said["postbacks", f"{role.name} (simulated)"]) > 0


def test_the_api_says_the_same(market: Market, truth: Path) -> None:
    token = market.home / "token"
    made = command("token", "add", "check", "--data", str(market.data), "--json").json
    token.write_text(f"{made['token']}\n")
    admin = f"http://{market.server.env['POSTBACKD_ADMIN_LISTEN']}"
    arguments = ["simulate", "check", str(truth), "--api", admin, "--token-file", str(token), "--json"]
    assert command(*arguments).json["differences"] == 0


def test_the_summary_says_what_s2s_saves_and_the_sweep_begins_where_no_pixel_is_blocked(truth: Path) -> None:
    summary = json.loads(truth.with_name(f"{truth.name}.summary.json").read_text())
    sold, s2s, pixel = summary["savings"]
    assert sold["sales"] == summary["sales"] > s2s["sales"] > pixel["sales"] > 0
    rates = [point["blockers"] for point in summary["sweep"]]
    by_pixel = [point["savings"][2]["sales"] for point in summary["sweep"]]
    assert rates == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert by_pixel == sorted(by_pixel, reverse=True)
    assert by_pixel[0] > by_pixel[-1]
    assert {point["savings"][1]["sales"] for point in summary["sweep"]} == {s2s["sales"]}


def test_a_conversion_that_is_gone_is_found_and_named(market: Market) -> None:
    truth = market.play("--clicks", "300", "--seed", "5")
    assert market.check(truth)["differences"] == 0
    with market.database() as database:
        database.execute(
            "DELETE FROM conversions WHERE conversion_id = (SELECT max(conversion_id) FROM conversions)"
        )
    found = market.check(truth, differences=True)
    assert {"missing conversions", "conversions"} <= wrong(found)
    assert next(line["said"] for line in found["lines"] if line["what"] == "missing conversions") == "1"


def test_a_conversion_that_is_counted_twice_is_found_and_named(market: Market) -> None:
    truth = market.play("--clicks", "300", "--seed", "6")
    with market.database() as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(conversions)")]
        values = ["transaction_id || '-again'" if name == "transaction_id" else name for name in columns]
        database.execute(
            f"INSERT INTO conversions ({', '.join(columns)}) SELECT {', '.join(values)} FROM conversions "
            "WHERE conversion_id = (SELECT max(conversion_id) FROM conversions)"
        )
    found = market.check(truth, differences=True)
    assert {"conversions counted more than once", "conversions"} <= wrong(found)


def test_a_deletion_and_a_double_that_cancel_out_are_both_found(market: Market) -> None:
    """All figures agree; every conversion by itself does not."""
    truth = market.play("--clicks", "300", "--seed", "8")
    alike = "campaign, status, value_micros, currency, channels"
    with market.database() as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(conversions)")]
        ((gone, doubled),) = database.execute(
            f"SELECT min(conversion_id), max(conversion_id) FROM conversions WHERE conversion_id > ? GROUP BY {alike} "
            "HAVING count(*) > 1 LIMIT 1",
            (first_stamp_at(Ledger(read_truth(truth)).began.at_ms),),
        )
        database.execute("DELETE FROM conversions WHERE conversion_id = ?", (gone,))
        values = ["transaction_id || '-again'" if name == "transaction_id" else name for name in columns]
        database.execute(
            f"INSERT INTO conversions SELECT {', '.join(values)} FROM conversions WHERE conversion_id = ?",
            (doubled,),
        )
    found = wrong(market.check(truth, differences=True))
    assert found == {"missing conversions", "conversions counted more than once"}


def test_a_conversion_with_another_value_is_found(market: Market) -> None:
    truth = market.play("--clicks", "300", "--seed", "10")
    with market.database() as database:
        database.execute(
            "UPDATE conversions SET value_micros = value_micros + 10000 "
            "WHERE conversion_id = (SELECT max(conversion_id) FROM conversions)"
        )
    assert "conversions with another status, value or channel" in wrong(market.check(truth, differences=True))


PLANTED = (
    (
        "macro_literal", "id_missing", "id_empty", "truncates_ids", "alters_ids", "foreign_ids", "double_encodes",
        "wrong_field",
    ),
    (
        "changes_case", "test_word", "value_macro", "value_words", "unknown_currency", "unknown_type",
        "too_many_parameters", "unknown_status",
    ),
    ("unreadable_time", "html_escaped", "sends_doubles", "deaf_to_answers", "silent"),
)  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED, ids=["ids", "values", "habits"])
def test_every_planted_fault_is_named_under_its_reason(market: Market, planted: tuple[str, ...]) -> None:
    options = []
    for name, role in zip(planted, NETWORKS, strict=False):
        options += ["--fault", f"{name}@{role.name}"]
    if "silent" in planted:
        options += ["--fault", "session_timeout@castlesiege.example"]
    truth = market.play("--clicks", CLICKS, "--seed", SEED, *options)
    found = market.check(truth)
    assert found["differences"] == 0
    named = {fault["fault"]: fault for fault in found["faults"]}
    for name in planted:
        one = MISCONFIGURATIONS[name]
        assert named[name]["expected"] == (one.reason or "-")
        assert named[name]["named"] == named[name]["postbacks"]
        assert (named[name]["postbacks"] == 0) == (name == "silent")
        assert named[name]["otherwise"] == ""
        assert named[name]["shown_by"] == ("-" if not one.reason else "doctor" if one.verdict else "report")


def test_every_fault_that_can_be_planted_is_planted_here() -> None:
    assert {*MISCONFIGURATIONS} == {name for names in PLANTED for name in names} | {"session_timeout"}


def test_a_fault_that_the_server_names_otherwise_is_reported(market: Market) -> None:
    """The control of the table above: the truth is made to expect another reason than the right one."""
    truth = market.play("--clicks", CLICKS, "--seed", SEED, "--fault", "id_empty@Cobalt Leads")
    forged = market.new_truth()
    says = '"says":{"verdict":"unmatched","reason":"%s"'
    forged.write_text(truth.read_text().replace(says % "click_id_empty", says % "click_purged"))
    found = market.check(forged, differences=True)
    fault = found["faults"][0]
    assert (fault["named"], fault["ok"]) == (0, False)
    assert fault["otherwise"].startswith("click_id_empty")
    assert "reason click_id_empty" in wrong(found)


def test_a_click_that_is_not_stored_is_found(market: Market) -> None:
    truth = market.play("--clicks", "100", "--seed", "9")
    with market.database() as database:
        database.execute(
            "DELETE FROM clicks WHERE click_id = (SELECT max(click_id) FROM clicks WHERE kind = 0)"
        )
    assert wrong(market.check(truth, differences=True)) == {"clicks"}


# --- what is refused -----------------------------------------------------------------------------------------------


def test_a_server_elsewhere_is_not_touched_unless_it_is_vouched_for(market: Market) -> None:
    catalog = ["--catalog", str(market.catalog), "--truth", str(market.home / "never")]
    for url in ("http://track.example", "http://192.0.2.1:8080", "https://127.0.0.1.example"):
        assert "is not this machine" in command("simulate", "run", url, *catalog, code=2).err
    other = ["--yes-this-server-is-mine", "http://track.example:8080"]
    assert (
        "is not this machine"
        in command("simulate", "run", "http://track.example", *catalog, *other, code=2).err
    )
    mine = ["--yes-this-server-is-mine", "http://nobody.invalid/"]
    assert (
        "no server answers"
        in command("simulate", "run", "http://nobody.invalid", *catalog, *mine, code=1).err
    )
    assert not (market.home / "never").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--fault", "nonsense@Bluepeak"], "--list-faults"),
        (["--fault", "macro_literal"], "NAME@PLACE"),
        (["--fault", "macro_literal@nobody"], "name one network"),
        (["--fault", "session_timeout@Bluepeak"], "name one landing page"),
        (["--fault", "silent@Bluepeak+soon"], "no duration"),
        (["--fault", "silent@Bluepeak", "--fault", "id_empty@blue"], "one fault a place"),
        (["--duration", "5s"], "between 1m and 30d"),
        (["--clicks", "1"], "not in the range"),
        (["--rate", "99999"], "not in the range"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_with_what_to_write(
    market: Market, options: list[str], says: str
) -> None:
    truth = market.new_truth()
    assert says in command("simulate", "run", *market.options(truth), *options, code=2).err
    assert not truth.exists()


def test_a_server_without_this_catalog_is_left_at_the_first_answer(market: Market) -> None:
    other = market.home / "other.toml"
    other.write_text(market.catalog.read_text().replace('key = "', 'key = "x'))
    truth = market.new_truth()
    arguments = [market.url, "--catalog", str(other), "--truth", str(truth), "--clicks", "400"]
    assert "postbackd apply" in command("simulate", "run", *arguments, code=1).err
    assert truth.exists()  # its campaigns were known there: something may be stored
    other.write_text('[[network]]\nname = "Shop"\n')
    assert "simulate catalog > market.toml" in command("simulate", "run", *arguments, code=1).err


def test_where_nothing_was_known_no_truth_is_left_in_the_way_of_the_next_run(market: Market) -> None:
    class Stranger(StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline():
                while self.rfile.readline().strip():
                    pass  # the other lines of the head
                status = b"200 OK" if b"/readyz" in line else b"404 Not Found"
                self.wfile.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")

    truth = market.new_truth()
    with ThreadingTCPServer(("127.0.0.1", 0), Stranger) as stranger:
        Thread(target=stranger.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{stranger.server_address[1]}"
        arguments = [url, "--catalog", str(market.catalog), "--truth", str(truth)]
        assert "does not know" in command("simulate", "run", *arguments, code=1).err
        stranger.shutdown()
    assert not truth.exists()


def test_a_truth_is_never_written_over_and_only_a_truth_is_read(market: Market, truth: Path) -> None:
    before = truth.read_bytes()
    assert "another --truth" in command("simulate", "run", *market.options(truth), code=1).err
    assert truth.read_bytes() == before
    assert "line 1" in command("simulate", "check", str(market.catalog), code=1).err
    broken = market.new_truth()
    broken.write_bytes(before.replace(b'"line":"sale"', b'"line":"sail"', 1))
    assert "sail" in command("simulate", "check", str(broken), code=1).err
    lines = before.splitlines(keepends=True)
    broken.write_bytes(b"".join(line for line in lines if b'"line":"click"' not in line))
    assert "lost a line" in command("simulate", "check", str(broken), code=1).err
    broken.write_bytes(b"")
    assert "'began'" in command("simulate", "check", str(broken), code=1).err


def test_only_what_is_all_simulated_is_removed(tmp_path: Path) -> None:
    market = open_market(tmp_path)
    remove = ["simulate", "remove", "--data", str(market.data)]
    assert "run it again with --yes" in command(*remove).out
    (market.data / "letters.txt").write_text("mine")
    assert "letters.txt" in command(*remove, "--yes", code=1).err
    (market.data / "letters.txt").unlink()
    command("network", "add", "Real", "--data", str(market.data))
    assert "'Real'" in command(*remove, "--yes", code=1).err
    assert (market.data / "postbackd.db").exists()
    command("network", "remove", "Real", "--data", str(market.data))
    assert "'Real'" in command(*remove, "--yes", code=1).err  # its postbacks may be there
    (tmp_path / "other").mkdir()
    other = open_market(tmp_path / "other")
    command("simulate", "remove", "--data", str(other.data), "--yes")
    assert not other.data.exists()


def test_nothing_is_removed_below_a_server(market: Market) -> None:
    assert "stop it first" in command("simulate", "remove", "--data", str(market.data), "--yes", code=1).err
