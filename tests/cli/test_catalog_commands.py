"""Networks, sources, offers and campaigns from the command line."""

from __future__ import annotations

import fcntl
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def test_a_network_answers_its_key_and_a_url_with_the_macros_of_its_preset(run: Run) -> None:
    added = run("network", "add", "TUNE", "--preset", "TUNE (HasOffers)", "--json").json
    assert list(added) == ["name", "key", "postback_url"]
    assert re.fullmatch(r"[0-9a-hjkmnp-tv-z]{26}", added["key"])
    start = f"http://127.0.0.1:8080/p/{added['key']}?click_id={{aff_sub}}&value={{payout}}&txid={{transaction_id}}"
    assert added["postback_url"].startswith(start)


def test_without_a_preset_the_url_has_our_names_or_the_mapped_ones(run: Run) -> None:
    plain = run("network", "add", "Plain", "--json").json
    assert plain["postback_url"].endswith("?click_id={click_id}&value={value}&txid={txid}")
    mapped = run("network", "add", "Mapped", "--field", "click_id=aff_sub,sub1", "--json").json
    assert mapped["postback_url"].endswith("?aff_sub={click_id}&value={value}&txid={txid}")


def test_urls_begin_with_the_public_address(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTBACKD_PUBLIC_URL", "https://track.example/")
    assert run("network", "add", "N", "--json").json["postback_url"].startswith("https://track.example/p/")
    shown = run("network", "show", "N", "--public-url", "http://other.example", "--json").json
    assert shown["postback_url"].startswith("http://other.example/p/")


def test_urls_begin_with_the_address_of_the_running_server(run: Run, data: Path) -> None:
    run("network", "add", "N")
    with (data / "postbackd.lock").open("w+") as lock:
        lock.write("http://127.0.0.1:9999\n")
        lock.flush()
        assert run("network", "show", "N", "--json").json["postback_url"].startswith("http://127.0.0.1:8080/")
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run("network", "show", "N", "--json").json["postback_url"].startswith("http://127.0.0.1:9999/")


def test_a_source_keeps_the_words_of_its_preset_for_its_subs(run: Run) -> None:
    run("source", "add", "P", "--preset", "propellerads")
    shown = run("source", "show", "P", "--json").json
    assert shown["parameters"]["sub1"] == ["sub1", "zone_id"]
    assert shown["parameters"]["sub9"] == ["sub9"]


def test_a_campaign_answers_its_slug_and_a_url_with_the_macros_of_the_source(filled: Run) -> None:
    (shown,) = filled("campaign", "list", "--json").json
    assert shown["slug"] == "summer-sale"
    assert shown["offers"] == [{"offer": "Shop", "weight": 3}]
    assert shown["click_url"] == (
        "http://127.0.0.1:8080/c/summer-sale?source_click_id=${SUBID}&cost={cost}"
        "&sub1={zoneid}&sub2={campaignid}&sub3={bannerid}"
    )
    added = filled(
        "campaign", "add", "Summer sale!", "--source", "Propeller", "--offer", "Shop", "--json"
    ).json
    assert list(added) == ["name", "slug", "click_url"]
    assert added["slug"] == "summer-sale-2"


def test_a_slug_is_never_given_twice_not_even_after_removal(filled: Run) -> None:
    filled("campaign", "remove", "summer-sale")
    again = filled(
        "campaign", "add", "Summer Sale", "--source", "Propeller", "--offer", "Shop", "--json"
    ).json
    assert again["slug"] == "summer-sale-2"
    arguments = (
        "campaign",
        "add",
        "Other",
        "--source",
        "Propeller",
        "--offer",
        "Shop",
        "--slug",
        "summer-sale",
    )
    assert "belongs to the removed campaign 'Summer Sale'" in filled(*arguments, code=1).err


@pytest.mark.parametrize("kind", ["network", "source", "offer", "campaign"])
def test_every_kind_is_listed_as_an_array_of_objects_and_as_a_table(filled: Run, kind: str) -> None:
    documents = filled(kind, "list", "--json").json
    assert [type(document) for document in documents] == [dict]
    name = documents[0]["name"]
    assert name in filled(kind, "list").out
    assert filled(kind, "show", name, "--json").json == documents[0]


def test_a_network_is_changed_where_it_is_named_and_nowhere_else(filled: Run) -> None:
    before = filled("network", "show", "TUNE", "--json").json
    after = filled(
        "network", "set", "TUNE", "--currency", "eur", "--dedup", "hold", "--strict", "--type", "Sale",
        "--type", "lead", "--status-word", "confirmed=approved", "--field", "value=amount_eur",
        "--answer", "ok", "--json",
    ).json  # fmt: skip
    assert after == {
        **before,
        "postback_url": before["postback_url"].replace("&value=", "&amount_eur="),
        "currency": "EUR",
        "dedup": "hold",
        "strict": True,
        "types": ["sale", "lead"],
        "statuses": {"confirmed": "approved"},
        "fields": {"value": ["amount_eur"]},
        "answer": "ok",
    }
    undone = filled(
        "network", "set", "TUNE", "--currency", "USD", "--dedup", "ignore", "--lenient", "--any-type",
        "--status-word", "confirmed=", "--field", "value=", "--answer", "json", "--json",
    ).json  # fmt: skip
    assert undone == before


def test_a_new_key_and_a_new_name(filled: Run) -> None:
    before = filled("network", "show", "TUNE", "--json").json
    after = filled("network", "set", "TUNE", "--name", "Tune 2", "--new-key", "--json").json
    assert after["name"] == "Tune 2"
    assert after["key"] != before["key"]


def test_offers_and_campaigns_and_sources_are_changed(filled: Run) -> None:
    changed = filled("offer", "set", "Shop", "--window-max", "12h", "--window-min", "10s", "--json").json
    assert (changed["window_min"], changed["window_max"]) == ("10s", "12h")
    filled("offer", "add", "B:2", "--network", "TUNE", "--url", "https://b.example/")
    changed = filled("campaign", "set", "Summer Sale", "--offer", "B:2", "--offer", "Shop:7", "--json").json
    assert changed["offers"] == [{"offer": "B:2", "weight": 1}, {"offer": "Shop", "weight": 7}]
    assert filled("source", "set", "Propeller", "--preset", "popads", "--json").json["preset"] == "popads"
    assert filled("source", "set", "Propeller", "--preset", "none", "--json").json["preset"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("network", "add", "X", "--currency", "EURO"), 2, "'EURO' is no ISO 4217 code"),
        (("network", "add", "X", "--preset", "nothing"), 2, "there is no network preset 'nothing'"),
        (("network", "add", "X", "--preset", "propellerads"), 2, "there is no network preset"),
        (("network", "add", "X", "--field", "colour=c"), 2, "'colour' is no field; known are click_id"),
        (("network", "add", "X", "--field", "value"), 2, "write it as FIELD=NAME. Run"),
        (("network", "add", "X", "--field", "value=a", "--field", "type=A"), 2, "given to both"),
        (("network", "add", "X", "--status-word", "yes=good"), 2, "reversed, not 'good'. Run"),
        (("network", "add", " "), 2, "name"),
        (("network", "add", "TUNE"), 1, "of this name exists already"),
        (("network", "remove", "TUNE"), 1, "is still used by offer 'Shop'"),
        (("source", "remove", "Propeller"), 1, "is still used by campaign 'Summer Sale'"),
        (("network", "show", "Nope"), 1, "there is no network 'Nope' (there are: 'TUNE')"),
        (
            ("offer", "add", "X", "--network", "TUNE", "--url", "https://x.example/?a={clickid}"),
            2,
            "{clickid}",
        ),
        (("offer", "add", "X", "--network", "TUNE", "--url", "javascript:alert(1)"), 2, "https://"),
        (("offer", "add", "X", "--network", "Nope", "--url", "https://x.example/"), 1, "no network 'Nope'"),
        (("offer", "set", "Shop", "--window-min", "40d"), 2, "window must end after it begins"),
        (("campaign", "add", "X", "--source", "Nope", "--offer", "Shop"), 1, "there is no source 'Nope'"),
        (("campaign", "add", "X", "--source", "Propeller", "--offer", "Shop:0"), 2, "whole number from 1"),
        (
            ("campaign", "add", "X", "--source", "Propeller", "--offer", "Shop:-1"),
            2,
            "the weight '-1' is not",
        ),
        (("campaign", "set", "Summer Sale", "--offer", "Shop:a"), 2, "the weight 'a' is not"),
        (("campaign", "add", "X", "--source", "Propeller", "--offer", "Shop", "--slug", "A B"), 2, "slug"),
        (("campaign", "set", "Summer Sale", "--offer", "Shop", "--offer", "Shop:2"), 2, "named twice"),
    ],
)
def test_what_cannot_be_stored_is_refused_in_one_line(
    filled: Run, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    ran = filled(*arguments, code=code)
    assert sentence in ran.err
    assert ran.err.count("\n") == 1


def test_everything_is_removed_from_the_leaves_to_the_roots(filled: Run) -> None:
    for kind, name in (
        ("campaign", "Summer Sale"),
        ("offer", "Shop"),
        ("source", "Propeller"),
        ("network", "TUNE"),
    ):
        assert filled(kind, "remove", name, "--json").json == {"removed": name}
        assert filled(kind, "list", "--json").json == []


def test_signing_keys_are_listed_without_secrets_and_rotated(filled: Run) -> None:
    assert [key["state"] for key in filled("keys", "list", "--json").json] == ["signs"]
    rotated = filled("keys", "rotate", "--json").json
    assert [key["state"] for key in rotated] == ["signs", "signs next"]
    assert all(set(key) == {"id", "signs_from", "state"} for key in rotated)
    assert "about to take over" in filled("keys", "rotate", code=1).err
