"""Personal data: masked everywhere it hides, in linear time, and nothing else is touched."""

from __future__ import annotations

import re
from time import process_time
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from postbackd.core.click_id import KeyRing
from postbackd.core.model import SigningKey
from postbackd.core.privacy import Masker, truncate_ip

MASKER = Masker(b"a key for tests")
MASKED = re.compile(r"hashed:[0-9a-f]{16}")
KEYS = KeyRing([SigningKey(id=1, secret=b"s" * 16, active_from_ms=0)])

around = st.sampled_from(["", " ", "x ", "id=", "(", "<", "mail:", "\n", "ü "])


def luhn_digit(digits: str) -> str:
    doubled = sum(sum(divmod(2 * int(d), 10)) for d in digits[::-2])
    return str(-(doubled + sum(map(int, digits[-2::-2]))) % 10)


@given(around, st.from_regex(r"[a-z0-9.+_-]{1,20}@[a-z0-9-]{1,20}\.[a-z]{2,6}", fullmatch=True), around)
def test_an_e_mail_address_is_masked_wherever_it_stands(before: str, address: str, after: str) -> None:
    assert MASKED.fullmatch(MASKER.mask(before + address + after))
    assert MASKED.fullmatch(MASKER.mask_opaque(before + address + after))


@given(st.ip_addresses(v=4))
def test_every_ipv4_address_is_masked(address: object) -> None:
    assert MASKED.fullmatch(MASKER.mask(str(address)))
    assert MASKED.fullmatch(MASKER.mask_opaque(f"ip={address}"))


@given(st.ip_addresses(v=6, network="2000::/3"))
def test_every_global_ipv6_address_is_masked(address: object) -> None:
    assume(len(str(address)) >= 7)  # 2000:: and the like name a network, and could be an id
    assert MASKED.fullmatch(MASKER.mask(str(address)))
    assert MASKED.fullmatch(MASKER.mask_opaque(f"[{address}]:443"))


@given(st.from_regex(r"(?:4[0-9]{14}|5[1-5][0-9]{13}|3[47][0-9]{12}|6011[0-9]{11})", fullmatch=True))
def test_every_card_number_of_a_brand_is_masked(head: str) -> None:
    number = head + luhn_digit(head)
    assert MASKED.fullmatch(MASKER.mask(number))
    assert MASKER.mask_opaque(number) == number
    wrong = head + str((int(number[-1]) + 1) % 10)
    assert MASKER.mask(wrong) == wrong


@given(st.from_regex(r"\+[1-9](?:[ -]?[0-9]){7,14}", fullmatch=True))
def test_every_international_phone_number_is_masked(number: str) -> None:
    assert MASKED.fullmatch(MASKER.mask(number))
    assert MASKED.fullmatch(MASKER.mask_opaque(number))
    assert MASKED.fullmatch(MASKER.mask(number.replace("+", "%2B")))


@given(st.uuids())
def test_a_uuid_is_never_masked(value: UUID) -> None:
    assert MASKER.mask(str(value)) == str(value)


@given(st.integers(0, 10**12), st.integers(0, 10**6))
def test_an_amount_is_never_masked(units: int, micros: int) -> None:
    text = f"{units % 10**9}.{micros:06d}"
    assert MASKER.mask(text) == text


@given(st.integers(946_684_800, 4_102_444_800))
def test_a_timestamp_is_never_masked(seconds: int) -> None:
    for text in (str(seconds), str(seconds * 1000), f"{seconds}.123"):
        if len(text) in (10, 13) and not text.startswith("4"):
            assert MASKER.mask(text) == text


@given(st.integers(0, (1 << 63) - 1), st.integers(0, 1 << 23))
def test_our_own_ids_are_never_masked(stamp: int, campaign: int) -> None:
    text = KEYS.write(stamp, campaign)
    assert MASKER.mask(text) == text
    assert MASKER.mask(text.upper()) == text.upper()


@given(st.text())
def test_masking_twice_changes_nothing_more(text: str) -> None:
    once = MASKER.mask(text)
    assert MASKER.mask(once) == once
    assert MASKER.mask_opaque(once) == once


@given(st.text(alphabet="0123456789+-.:@%(/ ab", max_size=40))
def test_masking_hostile_text_twice_changes_nothing_more(text: str) -> None:
    once = MASKER.mask(text)
    assert once == text or MASKED.fullmatch(once)
    assert MASKER.mask(once) == once


def test_the_same_value_gives_the_same_hash_and_another_key_another_one() -> None:
    address = "john@example.com"
    assert MASKER.mask(address) == MASKER.mask_opaque(address) == MASKER.mask(f" {address.upper()} ")
    assert MASKER.mask(address) != Masker(b"another key").mask(address)


@pytest.mark.parametrize("key", [b"", b"x" * 65])
def test_a_key_that_cannot_be_used_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="1 to 64 bytes"):
        Masker(key)


HOSTILE = [
    "@",
    "a@",
    "a@b.",
    "@.",
    "+",
    "+1",
    "1",
    "12 ",
    "1-",
    "(555) ",
    "4",
    "4 ",
    "0.",
    "1.1.",
    ":",
    "a:",
    "::",
    "f:f",
]
HOSTILE += [
    "%",
    "%4",
    "%40",
    "%25",
    "00",
    "001 ",
    "4111 ",
    "4111-",
    ".",
    " ",
    "\u0661",
    "a@b.c@",
    "1:2:",
    "203.0.113.",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_time_grows_with_the_length_of_hostile_text_and_no_faster(piece: str) -> None:
    text = (piece * 65_536)[:65_536]
    started = process_time()
    for variant in (text, "x" + text, text + "x", "a@" + text, text + "@"):
        MASKER.mask(variant)
        MASKER.mask_opaque(variant)
    assert process_time() - started < 2.0  # quadratic time would be minutes; linear is under 0.2 s


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_keeps_three_octets(address: object) -> None:
    assert truncate_ip(str(address)) == str(address).rpartition(".")[0] + ".0/24"


@given(st.ip_addresses(v=6))
def test_an_ipv6_address_keeps_48_bits(address: object) -> None:
    network = truncate_ip(str(address))
    assert network is not None
    assert network.endswith(("/48", "/24"))


@given(st.text())
def test_no_address_makes_truncating_raise(address: str) -> None:
    truncate_ip(address)


def test_in_a_longer_text_the_words_that_are_personal_data_are_replaced() -> None:
    masker = Masker(b"key")
    said = masker.mask_words('{"error":"no user bob@mail.example","id":7}')
    assert said.startswith('{"error":"no user hashed:')
    assert said.endswith('","id":7}')
    assert "bob" not in said
    assert masker.mask_words("all is well, id=17") == "all is well, id=17"


def test_personal_data_in_several_words_replaces_the_whole_text() -> None:
    assert Masker(b"key").mask_words("call +49 170 1234567 now").startswith("hashed:")


def test_addresses_that_we_call_stay_in_our_own_words_and_nothing_else_does() -> None:
    masker = Masker(b"key")
    said = "address ::ffff:10.0.0.5 means 10.0.0.5, which is private; allow it with --deliver-ranges"
    assert masker.mask_words(said, addresses=True) == said
    assert "10.0.0.5" not in masker.mask_words(said)
    told = masker.mask_words("no connection to 203.0.113.7 for bob@mail.example within 5 s", addresses=True)
    assert "203.0.113.7" in told
    assert "bob" not in told
    assert masker.mask_words("203.0.113.7 says call +49 170 1234567 now", addresses=True).startswith(
        "hashed:"
    )
