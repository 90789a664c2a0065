"""Which parameter means what: names, order, empties, doubles, and whatever bytes a sender can send."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbackd.core.params import (
    CLICK_NAMES,
    MAX_LENGTHS,
    MAX_PARAMETERS,
    POSTBACK_NAMES,
    BodyMalformed,
    FieldMap,
    Received,
    clean,
    decode,
    decode_form,
    read_json_body,
)

DEFAULTS = FieldMap(POSTBACK_NAMES)


def named(received: Received, fields: FieldMap = DEFAULTS) -> dict[str, str]:
    """The fields that were found."""
    pairs = zip(fields.names, received.values, strict=True)
    return {field: value for field, value in pairs if value is not None}


def from_query(query: str, fields: FieldMap = DEFAULTS) -> dict[str, str]:
    return named(fields.read_query(query), fields)


def from_json(body: bytes | str, query: str = "", fields: FieldMap = DEFAULTS) -> dict[str, str]:
    return named(fields.read_json(query, read_json_body(body.encode() if isinstance(body, str) else body)))


# --- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "name"), [(field, name) for field, names in POSTBACK_NAMES.items() for name in names]
)
def test_every_default_name_is_accepted_in_any_case_in_query_and_json(field: str, name: str) -> None:
    for spelling in (name, name.upper(), name.capitalize()):
        assert from_query(f"{spelling}=x") == {field: "x"}
        assert from_json(json.dumps({spelling: "x"})) == {field: "x"}


@pytest.mark.parametrize("names", POSTBACK_NAMES.values(), ids=POSTBACK_NAMES)
def test_of_several_names_the_first_in_the_list_wins_wherever_it_stands(names: tuple[str, ...]) -> None:
    pairs = [f"{name}=v{rank}" for rank, name in enumerate(names)]
    (found,) = from_query("&".join(pairs)).values()
    (reversed_found,) = from_query("&".join(reversed(pairs))).values()
    assert found == reversed_found == "v0"


def test_an_empty_value_loses_to_any_value_of_another_name() -> None:
    assert from_query("click_id=&s2=X") == {"click_id": "X"}
    assert from_query("s2=X&click_id=") == {"click_id": "X"}
    assert from_json('{"click_id": "", "s2": "X"}') == {"click_id": "X"}


def test_an_empty_value_alone_is_empty_and_not_missing() -> None:
    assert from_query("click_id=") == {"click_id": ""}
    assert from_query("click_id") == {"click_id": ""}
    assert from_query("value=1") == {"value": "1"}
    assert from_json('{"click_id": ""}') == {"click_id": ""}
    assert from_json('{"click_id": null}') == {}


def test_of_a_doubled_name_the_first_value_wins_unless_it_is_empty() -> None:
    assert from_query("txid=A&txid=B") == {"transaction_id": "A"}
    assert from_query("txid=&txid=B") == {"transaction_id": "B"}


def test_a_doubled_key_of_a_json_object_is_the_last_one_as_json_readers_do() -> None:
    assert from_json('{"txid": "A", "txid": "B"}') == {"transaction_id": "B"}


def test_names_of_our_own_replace_the_defaults_of_their_field_only() -> None:
    fields = FieldMap(POSTBACK_NAMES, {"value": ["Reward"]})
    assert from_query("Reward=5&payout=9&cid=X", fields) == {"value": "5", "click_id": "X"}
    assert from_query("reward=5", fields) == {"value": "5"}


def test_a_name_of_our_own_is_taken_away_from_the_field_that_has_it_by_default() -> None:
    fields = FieldMap(POSTBACK_NAMES, {"transaction_id": ["cid"]})
    assert from_query("cid=T&clickid=C", fields) == {"transaction_id": "T", "click_id": "C"}
    assert "cid" not in fields.names["click_id"]


def test_an_unknown_field_in_a_mapping_is_refused_by_name() -> None:
    with pytest.raises(KeyError, match="price"):
        FieldMap(POSTBACK_NAMES, {"price": ["p"]})


def test_a_percent_encoded_name_is_a_name() -> None:
    assert from_query("click%5Fid=X") == {"click_id": "X"}
    assert from_query("CLICK%5fID=X") == {"click_id": "X"}
    assert from_query("click+id=X") == {}


def test_a_source_maps_its_ten_sub_ids() -> None:
    fields = FieldMap(CLICK_NAMES, {"source_click_id": ["gclid"], "sub10": ["kw"]})
    assert from_query("gclid=G&sub1=a&kw=z&sub10=no", fields) == {
        "source_click_id": "G",
        "sub1": "a",
        "sub10": "z",
    }


# --- forms, queries and JSON together -----------------------------------------------------------------------


def test_a_form_wins_over_the_query_and_the_query_fills_what_the_form_leaves_out() -> None:
    assert named(DEFAULTS.read_form("cid=Q&value=1", "cid=F")) == {"click_id": "F", "value": "1"}
    assert named(DEFAULTS.read_form("", "cid=F")) == {"click_id": "F"}


def test_a_json_object_wins_over_the_query_and_the_query_fills_what_is_missing_or_empty() -> None:
    assert from_json('{"cid": "J"}', "cid=Q&value=1") == {"click_id": "J", "value": "1"}
    assert from_json('{"cid": ""}', "cid=Q") == {"click_id": "Q"}
    assert from_json('{"cid": null}', "cid=") == {"click_id": ""}


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("12.50", "12.50"),
        ("0.1", "0.1"),
        ("1e999", "1e999"),
        ("-3", "-3"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("1" + "0" * 70, "1" + "0" * 70),
        ("true", "true"),
        ("false", "false"),
        ("[1,2]", "nested [1,2]"),
        ('{"a": 1}', 'nested {"a":1}'),
        ("[true]", "nested [true]"),
        ('["é\\u0001\\""]', r'nested ["é\u0001\""]'),
        ("9" * 5000, "9" * 5000),
        ("-" + "9" * 5000, "-" + "9" * 5000),
    ],
)
def test_a_json_value_becomes_the_text_that_a_query_would_carry(written: str, text: str) -> None:
    assert from_json(f'{{"value": {written}}}') == {"value": text}


def test_deep_json_inside_one_field_does_not_break_the_others() -> None:
    assert from_json(f'{{"txid": "T", "value": {"[" * 50}{"]" * 50}}}') == {
        "transaction_id": "T",
        "value": f"nested {'[' * 50}{']' * 50}",
    }


def test_a_value_nested_too_deeply_is_a_text_longer_than_any_field() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    (text,) = named(DEFAULTS.read_json("", {"value": deep})).values()
    assert text.startswith("nested [[[")
    assert len(text) > max(MAX_LENGTHS.values())


@pytest.mark.parametrize("depth", [2_000, 100_000])
def test_a_deep_value_does_not_spoil_the_other_members_of_its_object(depth: int) -> None:
    deep = '[{"x":' * depth + "1" + "}]" * depth
    body = f'{{"txid": "T", "extra": {deep}, "a": {{"n": {"9" * 5000}}}, "value": 5, "txid": "U"}}'
    assert from_json(body) == {"transaction_id": "U", "value": "5"}
    (text,) = from_json(f'{{"value": {deep}}}').values()
    assert len(text) > max(MAX_LENGTHS.values())


@pytest.mark.parametrize(
    "member",
    [
        '"b": nonsense',
        '"b"',
        "",
        '"b": 5 ' + "9" * 5000,
        '"b": ' + "9" * 5000 + "x",
        '"\\ud800": ' + "9" * 5000,
        '"b": ' + "[" * 2000 + "}" * 2000,
        '"b": ' + "[" * 2000,
        '"b": "' + "[" * 2000,
    ],
    ids=lambda member: ascii(member[:20]),
)
def test_an_object_with_a_value_that_is_too_much_must_be_well_formed_all_the_same(member: str) -> None:
    for body in (f'{{"a": {"9" * 5000}, {member}}}', f'{{{member}, "a": {"[" * 2000}{"]" * 2000}}}'):
        with pytest.raises(BodyMalformed):
            read_json_body(body.encode())


ODD_ITEMS = {
    "a lone surrogate": b'{"txid": "\\ud800"}',
    "a byte that is not UTF-8": b'{"txid": "\xff"}',
    "no JSON": b'{"txid": NaN}',
    "a list of deep lists": b"[" * 100_000 + b"]" * 100_000,
    "a string with brackets, commas and quotes": b'{"txid": "\\"],[{\\\\", "b": "\xff"}',
}


@pytest.mark.parametrize("odd", ODD_ITEMS.values(), ids=ODD_ITEMS)
def test_one_odd_item_of_an_array_leaves_its_neighbours_as_they_are(odd: bytes) -> None:
    body = b' [{"txid": "a,]\\"}"}, %b ,\n{"txid": "B", "x": [1, {}]}, 5 ]\n' % odd
    assert read_json_body(body) == [{"txid": 'a,]"}'}, None, {"txid": "B", "x": [1, {}]}, 5]


@pytest.mark.parametrize("large", ["9" * 5000, "[" * 2000 + "]" * 2000])
def test_an_item_with_a_value_that_is_too_much_keeps_its_other_members(large: str) -> None:
    first, second = read_json_body(f'[{{"txid": "A", "extra": {large}}}, {{"txid": "B"}}]'.encode())
    assert named(DEFAULTS.read_json("", first)) == {"transaction_id": "A"}
    assert second == {"txid": "B"}


@pytest.mark.parametrize(
    "body",
    [
        b'[{"a": 1}, {"a": NaN}',
        b'[{"a": 1}, {"a": NaN}]]',
        b'[{"a": 1}, {"a": NaN}] x',
        b'[{"a": 1}, {"a": NaN]}',
        b'[{"a": 1}, {"a": "NaN}]',
        b'[{"a": 1}, , {"a": 2}]',
        b'[{"a": 1},]',
        b"[nonsense, NaN]",
        b"[" * 100_000 + b"]" * 99_999,
        b'["' + b'\\"' * 100_000,
    ],
    ids=lambda body: ascii(body[:30]),
)
def test_what_only_starts_like_an_array_is_malformed_as_a_whole(body: bytes) -> None:
    with pytest.raises(BodyMalformed):
        read_json_body(body)


@given(st.lists(st.dictionaries(st.text(), st.text() | st.lists(st.text()))), st.data())
def test_any_items_are_told_apart_as_the_decoder_tells_them(items: list[object], data: st.DataObject) -> None:
    written = [json.dumps(item, ensure_ascii=data.draw(st.booleans())).encode() for item in items]
    place = data.draw(st.integers(0, len(items)))
    written.insert(place, b'{"odd": "\\ud800"}')
    written.append(b"{}")
    assert read_json_body(b"[" + b", ".join(written) + b"]") == [*items[:place], None, *items[place:], {}]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": "\\ud800"}',
        b'{"a": "\xff\xfe"}',
        b"\xef\xbb\xbf{}",
        b"{} {}",
    ],
    ids=lambda body: ascii(body[:20]),
)
def test_a_body_that_is_not_json_is_malformed_and_nothing_else(body: bytes) -> None:
    with pytest.raises(BodyMalformed):
        read_json_body(body)


@given(st.binary(max_size=60))
def test_no_bytes_make_the_reading_of_json_raise_anything_else(body: bytes) -> None:
    try:
        read_json_body(body)
    except BodyMalformed as malformed:
        said = str(malformed)
    else:
        said = ""
    assert len(said) <= 200


# --- text ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ("a+b", "a b"),
        ("a%2Bb", "a+b"),
        ("%C3%A9", "é"),
        ("%FF%FE", "ÿþ"),
        ("ord%E9r", "ordér"),
        ("%80", "€"),
        ("%81%C2%81", "%C2%81Â%C2%81"),
        ("%00", "%00"),
        ("a%0D%0Ab", "a%0D%0Ab"),
        ("%ED%A0%80", "í\u00a0€"),
        ("%C3%28", "Ã("),
        ("%zz%", "%zz%"),
        ("%257B", "%7B"),
        ("a\x85b", "a%C2%85b"),
    ],
)
def test_escapes_are_decoded_once_except_what_no_log_can_carry(sent: str, text: str) -> None:
    assert decode(sent) == text
    assert from_query(f"txid={sent}") == {"transaction_id": text}


def test_any_two_bytes_that_differ_are_two_texts_in_query_and_form() -> None:
    escaped = [f"%{byte:02X}" for byte in range(256)]
    assert len({decode(f"a{text}b") for text in escaped}) == 256
    assert len({decode(f"a{text}%FF") for text in escaped}) == 256
    forms = [b"txid=a%cb&x=\xff" % byte for byte in range(256) if byte not in b"%&+"]
    read = {named(DEFAULTS.read_form("", decode_form(form)))["transaction_id"] for form in forms}
    assert len(read) == len(forms)


@given(*[st.binary(max_size=6).filter(lambda text: b"%" not in text)] * 2)
def test_texts_that_are_not_utf_8_differ_when_their_bytes_do(one: bytes, other: bytes) -> None:
    first, second = (decode("".join(f"%{byte:02X}" for byte in b"\xff" + text)) for text in (one, other))
    assert (first == second) is (one == other)


def test_raw_bytes_of_a_form_read_as_their_escapes_do() -> None:
    for raw, escaped in (
        (b"txid=\xe9", "txid=%E9"),
        ("txid=é".encode(), "txid=%C3%A9"),
        (b" txid=a \r\n", "txid=a"),
    ):
        assert from_query(decode_form(raw)) == from_query(escaped)
    assert from_query(decode_form("txid=é&type=".encode() + b"\xe8")) == {"transaction_id": "é", "type": "è"}
    assert decode_form(b"txid=a\x1c") == "txid=a\x1c"


def test_a_lone_surrogate_and_a_nul_are_percent_encoded_wherever_they_come_from() -> None:
    assert clean("a\ud800b\x00c") == "a%ED%A0%80b%00c"
    assert named(DEFAULTS.read_json("", {"txid": "x\udfffy"})) == {"transaction_id": "x%ED%BF%BFy"}


@given(st.text())
def test_cleaned_text_can_be_stored_and_cleaning_again_changes_nothing(text: str) -> None:
    cleaned = clean(text)
    cleaned.encode("utf-8")
    assert not set(cleaned) & {chr(n) for n in (*range(32), 127)}
    assert clean(cleaned) == cleaned


@given(st.text(max_size=80), st.sampled_from(["", "cid=1", "value=&value=2"]))
def test_no_query_makes_the_reading_raise(query: str, after: str) -> None:
    received = DEFAULTS.read_form(after, query)
    assert len(received.values) == len(POSTBACK_NAMES)
    assert all(text is None or text.encode("utf-8") is not None for text in received.values)
    assert all(name.isprintable() or clean(name) == name for name, _ in received.pairs())


# --- counting -----------------------------------------------------------------------------------------------


def test_parameters_are_counted_whether_mapped_or_not_and_empty_pairs_are_none() -> None:
    assert DEFAULTS.read_query("").parameters == 0
    assert DEFAULTS.read_query("&&").parameters == 0
    assert DEFAULTS.read_query("cid=1&x=2&=3&").parameters == 3
    assert DEFAULTS.read_json("x=1&y=2", {"cid": "1", "z": None}).parameters == 4


def test_what_stands_behind_the_32nd_parameter_is_not_read() -> None:
    filler = "&".join(f"x{n}=1" for n in range(MAX_PARAMETERS))
    assert from_query(f"{filler}&cid=late") == {}
    assert DEFAULTS.read_query(f"{filler}&cid=late").parameters == MAX_PARAMETERS + 1
    short = "&".join(f"x{n}=1" for n in range(MAX_PARAMETERS - 1))
    assert from_query(f"{short}&cid=last") == {"click_id": "last"}


def test_the_search_through_all_parameters_sees_names_and_values_decoded_and_has_an_end() -> None:
    many = "&".join(f"n%5F{n}=a+b" for n in range(1000))
    pairs = list(DEFAULTS.read_query(many).pairs())
    assert pairs[0] == ("n_0", "a b")
    assert len(pairs) == MAX_PARAMETERS * 2
    assert ("n%00", "") in list(DEFAULTS.read_json("", {"n\x00": None}).pairs())
