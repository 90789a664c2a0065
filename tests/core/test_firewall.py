"""The personal data firewall: what it finds in which disguise, and what a network may choose becomes of it."""

from __future__ import annotations

import base64
from hashlib import sha256
from time import process_time
from urllib.parse import quote, unquote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbackd.core.click_id import KeyRing, StampMint
from postbackd.core.diagnosis import Reason
from postbackd.core.model import Channel, Network, Postback, Request, SigningKey
from postbackd.core.platforms import PLATFORMS
from postbackd.core.privacy import Kind, Masker
from postbackd.core.rules import judge
from postbackd.core.terms import NetworkRules
from postbackd.core.verdicts import Verdict

MASKER = Masker(b"a key for tests")
KEYS = KeyRing([SigningKey(id=1, secret=b"s" * 16, active_from_ms=0)])
NOW_MS = 1_750_000_000_000
PERSONAL = {
    "jane.doe@mail.example": Kind.EMAIL,
    "+44 20 7946 0958": Kind.PHONE,
    "12025550123": Kind.PHONE,
    "4111111111111111": Kind.CARD,
    "203.0.113.77": Kind.IP,
    "2001:db8::8:800:200c:417a": Kind.IP,
}


def disguises(text: str) -> dict[str, str]:
    standard = base64.b64encode(text.encode()).decode()
    return {
        "clear": text,
        "encoded": quote(text, safe=""),
        "encoded twice": quote(quote(text, safe=""), safe=""),
        "base64": standard,
        "base64 without padding": standard.rstrip("="),
        "base64url": base64.urlsafe_b64encode(text.encode()).decode(),
        "base64, encoded": quote(standard, safe=""),
    }


CASES = [(how, text, kind) for text, kind in PERSONAL.items() for how in disguises(text)]


@pytest.mark.parametrize(("how", "text", "kind"), CASES)
def test_personal_data_is_found_in_every_disguise(how: str, text: str, kind: Kind) -> None:
    disguised = disguises(text)[how]
    assert MASKER.find(disguised) is kind
    assert MASKER.mask(disguised).startswith("hashed:")
    if how != "clear":
        assert text not in MASKER.mask(disguised)


@pytest.mark.parametrize("upper", [False, True])
def test_the_bare_hash_of_an_address_is_replaced_by_a_keyed_one(upper: bool) -> None:
    bare = sha256(b"jane.doe@mail.example").hexdigest()
    bare = bare.upper() if upper else bare
    assert MASKER.find(bare) is Kind.HASH
    assert MASKER.mask(bare) != bare
    assert MASKER.mask_opaque(bare) == bare  # an ad network's own id


@given(st.uuids(), st.binary(min_size=9, max_size=90))
def test_ids_that_are_random_bytes_in_base64_are_left_alone(uuid: UUID, data: bytes) -> None:
    assert MASKER.mask(str(uuid)) == str(uuid)
    text = base64.urlsafe_b64encode(b"\xff" + data).decode()
    if not text.rstrip("=").isdigit():
        assert MASKER.find(text) in (None, Kind.PHONE, Kind.CARD)


@given(st.text(max_size=300))
def test_no_text_makes_the_firewall_raise(text: str) -> None:
    MASKER.find(text)
    MASKER.find_opaque(text)


@pytest.mark.parametrize("piece", ["QUJD", "YWJj", "-", "_", "=", "A", "%3D", "abc%40", "QUJD="])
def test_time_grows_with_the_length_of_encoded_text_and_no_faster(piece: str) -> None:
    def spent(size: int) -> float:
        text = (piece * size)[:size]
        started = process_time()
        for variant in (text, text + "=", text + "@", "QUJDQUJDQUJD" + text):
            MASKER.mask(variant)
            MASKER.mask_opaque(variant)
        return process_time() - started

    assert spent(1_000_000) < 2.0


def judged(choice: str, query: str) -> Postback:
    rules = NetworkRules(Network(id=7, name="n", key="k", personal_data=choice))
    mint = StampMint(0)
    click = KEYS.write(mint.mint(NOW_MS), 1)
    received = rules.field_map.read_query(f"click_id={click}&value=5&{query}")
    return judge(received, rules, KEYS, MASKER, Request(mint.mint(NOW_MS), 7, Channel.S2S, 9, NOW_MS))


def test_personal_data_is_replaced_by_default_and_counts() -> None:
    postback = judged("replace", "txid=jane.doe%40mail.example")
    assert (postback.verdict, postback.transaction_id[:7]) == (0, "hashed:")
    assert postback.finds == (("transaction_id", "e-mail"),)


def test_personal_data_is_dropped_where_the_network_says_so() -> None:
    postback = judged("drop", "txid=jane.doe%40mail.example&status=jane.doe%40mail.example")
    assert (postback.verdict, postback.transaction_id, postback.transaction_text) == (0, "", None)
    assert postback.terms.status_text is None
    assert {field for field, _ in postback.finds} == {"transaction_id", "status"}


def test_a_postback_with_personal_data_is_refused_where_the_network_says_so() -> None:
    postback = judged("refuse", "txid=jane.doe%40mail.example")
    assert (postback.verdict, postback.reason) == (Verdict.REJECTED, Reason.PERSONAL_DATA)
    assert "jane" not in str(postback)
    assert judged("refuse", "txid=A-1001").verdict == 0


def test_nothing_is_found_in_an_ordinary_postback() -> None:
    assert judged("refuse", "txid=A-1001&status=approved&currency=EUR&time=1750000000").finds == ()


def test_no_platform_asks_for_a_hash_that_would_have_to_be_stored() -> None:
    """What is told to a platform comes from the click's ids; facts have no place for a person's address."""
    from postbackd.core.deliveries import Facts

    assert set(Facts.__struct_fields__) <= {
        "source_click_id",
        "own_id",
        "country",
        "subs",
        "refused",
        "consented",
        "trace",
    }
    assert PLATFORMS


@pytest.mark.parametrize(
    "card", ["4111 1111 1111 1111", "4111-1111-1111-1111", "3782 822463 10005", "4111%201111%201111%201111"]
)
def test_a_card_number_in_groups_is_no_id_of_a_source_and_digits_alone_may_be(card: str) -> None:
    assert MASKER.find_opaque(card) is Kind.CARD
    digits = unquote(card).replace(" ", "").replace("-", "")
    assert MASKER.mask_opaque(digits) == digits
    assert MASKER.mask_opaque(f"ad:{digits}") == f"ad:{digits}"
