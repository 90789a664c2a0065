"""The language-neutral cases in ``spec/vectors``: every one of them holds here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from postbackd.core.click_id import KeyRing, read_stamp, stamp_ms, write_stamp
from postbackd.core.diagnosis import Reason, diagnose_click_id
from postbackd.core.macros import MacroError, compile_url, looks_like_macro
from postbackd.core.model import Channel, Dedup, Network, Postback, Request, SigningKey
from postbackd.core.money import CURRENCIES, read_micros, write_micros
from postbackd.core.params import POSTBACK_NAMES, BodyMalformed, FieldMap, Received, read_json_body
from postbackd.core.privacy import Masker, truncate_ip
from postbackd.core.rules import Conversion, judge, repeat
from postbackd.core.statuses import Status, read_status, settle
from postbackd.core.terms import NetworkRules

_FOLDER = Path(__file__).parents[2] / "spec" / "vectors"
_FILES = {
    name: json.loads((_FOLDER / f"{name}.json").read_text("utf-8"))
    for name in ("click_id", "dedup", "macros", "money", "parameters", "privacy", "statuses")
}

Case = dict[str, Any]


def cases(file: str, section: str) -> pytest.MarkDecorator:
    """Parametrize with the cases of one section; the test's id shows the input."""
    found = _FILES[file][section]
    ids = [f"{n}:{ascii(next(iter(case.values())))[:40]}" for n, case in enumerate(found)]
    return pytest.mark.parametrize("case", found, ids=ids)


@pytest.fixture(scope="module")
def keys() -> KeyRing:
    return KeyRing(
        SigningKey(
            id=key["id"], secret=bytes.fromhex(key["secret_hex"]), active_from_ms=key["active_from_ms"]
        )
        for key in _FILES["click_id"]["keys"]
    )


@pytest.fixture(scope="module")
def masker() -> Masker:
    return Masker(bytes.fromhex(_FILES["privacy"]["key_hex"]))


def as_int(text: str | None) -> int | None:
    return None if text is None else int(text)


@cases("click_id", "write")
def test_a_click_id_is_written_the_same_everywhere(case: Case, keys: KeyRing) -> None:
    assert keys.write(int(case["stamp"]), case["campaign"]) == case["text"]
    assert keys.verify(case["text"]) == (int(case["stamp"]), case["campaign"])


@cases("click_id", "verify")
def test_a_click_id_verifies_only_when_it_was_issued(case: Case, keys: KeyRing) -> None:
    expected = None if case["stamp"] is None else (int(case["stamp"]), case["campaign"])
    assert keys.verify(case["text"]) == expected


@cases("click_id", "stamps")
def test_a_stamp_is_written_as_13_characters_and_says_its_time(case: Case) -> None:
    stamp = int(case["stamp"])
    assert write_stamp(stamp) == case["text"]
    assert read_stamp(case["text"]) == stamp
    assert stamp_ms(stamp) == case["ms"]


@cases("click_id", "diagnose")
def test_a_click_id_that_does_not_verify_is_explained(case: Case, keys: KeyRing) -> None:
    finding = diagnose_click_id(case["text"], keys, _FILES["click_id"]["now_ms"])
    assert (finding.reason.word, finding.repaired) == (case["reason"], case["repaired"])
    assert (finding.stamp, finding.campaign) == (as_int(case["stamp"]), case["campaign"])


@cases("money", "read")
def test_money_is_read_without_guessing(case: Case) -> None:
    assert read_micros(case["text"], case["currency"]) == as_int(case["micros"])


@cases("money", "write")
def test_money_is_written_in_one_way(case: Case) -> None:
    assert write_micros(int(case["micros"])) == case["text"]


@cases("money", "currencies")
def test_a_currency_is_an_upper_case_iso_4217_code(case: Case) -> None:
    assert (case["code"] in CURRENCIES) is case["known"]


@cases("statuses", "read")
def test_a_status_word_means_one_status_or_none(case: Case) -> None:
    status = read_status(case["text"], case["own_words"])
    assert (None if status is None else status.word) == case["status"]


@cases("statuses", "settle")
def test_messages_settle_on_the_final_status(case: Case) -> None:
    (word, time_ms), *later = case["messages"]
    state = (Status[word.upper()], time_ms)
    for word, time_ms in later:
        state = settle(*state, Status[word.upper()], time_ms)
    assert [state[0].word, state[1]] == case["final"]


@cases("macros", "fill")
def test_an_offer_url_is_filled(case: Case) -> None:
    assert compile_url(case["url"]).fill(case["values"]) == case["filled"]


@cases("macros", "refuse")
def test_an_unusable_offer_url_is_refused_with_a_reason(case: Case) -> None:
    with pytest.raises(MacroError) as refusal:
        compile_url(case["url"])
    assert case["message"] in str(refusal.value)


@cases("macros", "unfilled")
def test_an_unfilled_macro_is_told_from_a_value(case: Case) -> None:
    assert looks_like_macro(case["text"]) is case["macro"]


@cases("privacy", "cases")
def test_personal_values_are_masked_and_others_are_not(case: Case, masker: Masker) -> None:
    assert (masker.mask(case["text"]) != case["text"]) is case["mask"]
    assert (masker.mask_opaque(case["text"]) != case["text"]) is case["mask_opaque"]


@cases("privacy", "hashes")
def test_a_masked_value_is_the_keyed_hash_of_its_normal_form(case: Case, masker: Masker) -> None:
    assert masker.mask(case["text"]) == case["masked"]


@cases("privacy", "truncate")
def test_an_address_is_truncated_to_its_network(case: Case) -> None:
    assert truncate_ip(case["address"]) == case["network"]


def check_fields(received: Received, case: Case) -> None:
    pairs = zip(POSTBACK_NAMES, received.values, strict=True)
    assert {field: text for field, text in pairs if text is not None} == case["fields"]
    assert received.parameters == case["parameters"]


@cases("parameters", "query")
def test_a_query_string_means_the_same_fields_everywhere(case: Case) -> None:
    check_fields(FieldMap(POSTBACK_NAMES, case["own"]).read_query(case["query"]), case)


@cases("parameters", "form")
def test_a_form_means_the_same_fields_everywhere(case: Case) -> None:
    check_fields(FieldMap(POSTBACK_NAMES).read_form(case["query"], case["form"]), case)


@cases("parameters", "json")
def test_a_json_body_means_the_same_fields_everywhere(case: Case) -> None:
    body = read_json_body(case["body"].encode("utf-8"))
    check_fields(FieldMap(POSTBACK_NAMES).read_json(case["query"], body), case)


@cases("parameters", "malformed_json")
def test_a_body_that_is_no_json_is_refused_everywhere(case: Case) -> None:
    with pytest.raises(BodyMalformed):
        read_json_body(case["body"].encode("utf-8"))


def judged(query: str, masker: Masker, channel: Channel = Channel.S2S) -> Postback:
    """A postback of the file ``dedup.json``."""
    file = _FILES["dedup"]
    keys = KeyRing([SigningKey(id=1, secret=bytes.fromhex(file["signing_key_hex"]), active_from_ms=0)])
    rules = NetworkRules(Network(id=1, name="net", key="key"))
    request = Request(1, 1, channel, len(query), file["now_ms"])
    return judge(rules.field_map.read_query(query), rules, keys, masker, request)


@cases("dedup", "keys")
def test_what_is_counted_once_has_the_same_key_everywhere(case: Case, masker: Masker) -> None:
    said = judged(case["query"], masker)
    assert (said.verdict, said.click.own_id) == (0, case["own_id"])
    assert said.click.click_id == as_int(case["click"])
    assert (said.terms.type, said.transaction_id) == (case["type"], case["transaction_id"])


@cases("dedup", "repeats")
def test_a_repeat_does_the_same_everywhere(case: Case, masker: Masker) -> None:
    click_id = next(iter(_FILES["dedup"]["keys"]))["query"]
    said = judged(f"{click_id}&{case['query']}", masker, Channel[case["channel"].upper()])
    decided = repeat(stored(case["current"]), said, Dedup[case["mode"].upper()])
    assert decided.verdict.word == case["verdict"]
    assert (Reason(decided.reason).word if decided.reason else "") == case["reason"]
    assert decided.conversion == stored(case["after"])


def stored(state: Case) -> Conversion:
    return Conversion(
        1,
        Status[state["status"].upper()],
        int(state["value"]),
        state["currency"],
        state["channels"],
        state["time_ms"],
    )
