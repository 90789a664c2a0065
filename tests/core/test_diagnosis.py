"""What is wrong with a click id: every way that real ids get damaged is named."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from postbackd.core.click_id import EPOCH_MS, MAX_CAMPAIGN, TEXT_LENGTH, KeyRing, stamp_ms
from postbackd.core.diagnosis import ClickIdFinding, Reason, diagnose_click_id
from postbackd.core.model import SigningKey

NOW_MS = 1_795_000_000_000
PRODUCT_BORN_MS = 1_609_459_200_000
"""2021-01-01: ids of the months before read like ULIDs of today (see the module)."""

KEYS = KeyRing([SigningKey(id=1, secret=b"s" * 16, active_from_ms=0)])
CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


@st.composite
def ids(draw: st.DrawFn) -> str:
    """Click ids as this deployment would have issued them by now."""
    made_ms = draw(st.integers(PRODUCT_BORN_MS, NOW_MS))
    low = draw(st.integers(0, (1 << 22) - 1))
    return KEYS.write((made_ms - EPOCH_MS) << 22 | low, draw(st.integers(0, MAX_CAMPAIGN)))


def diagnose(text: str | None) -> ClickIdFinding:
    return diagnose_click_id(text, KEYS, NOW_MS)


@given(st.none() | st.text())
@example("\ud800")
@example("%ud800%")
def test_no_text_makes_the_diagnosis_raise(text: str | None) -> None:
    finding = diagnose(text)
    assert finding.reason != Reason.NONE
    assert (finding.stamp is None) == (finding.campaign is None)


@given(st.text(alphabet=CROCKFORD + "%{}[]_- \"'ilouABC", max_size=60))
def test_nothing_is_repaired_that_we_never_issued(text: str) -> None:
    finding = diagnose(text)
    assert finding.stamp is None
    assert not finding.repaired


@given(ids(), st.integers(8, TEXT_LENGTH - 1), st.booleans())
def test_every_truncation_is_named(click_id: str, length: int, upper: bool) -> None:
    text = click_id[:length].upper() if upper else click_id[:length]
    assert diagnose(text).reason == Reason.CLICK_ID_TRUNCATED


@given(ids(), st.integers(1, 7))
def test_a_truncation_too_short_to_tell_is_foreign(click_id: str, length: int) -> None:
    assume(click_id[:length] != "0")
    assert diagnose(click_id[:length]).reason == Reason.CLICK_ID_FOREIGN


@given(ids(), st.integers(0, TEXT_LENGTH - 1), st.sampled_from(CROCKFORD))
def test_every_changed_character_is_named(click_id: str, position: int, character: str) -> None:
    assume(click_id[position] != character)
    text = click_id[:position] + character + click_id[position + 1 :]
    finding = diagnose(text)
    assert finding.stamp is None
    # A change in the first characters moves the id into a time at which nothing was issued: no longer our shape.
    expected = Reason.CLICK_ID_ALTERED if reads_as_ours(text) else Reason.CLICK_ID_FOREIGN
    assert finding.reason == expected
    assert position < 8 or finding.reason == Reason.CLICK_ID_ALTERED


def reads_as_ours(text: str) -> bool:
    number = int("".join(f"{CROCKFORD.index(character):05b}" for character in text), 2)
    ulid_ms = number >> 80
    return (
        number >> 128 == 0
        and 1_590_969_600_000 <= stamp_ms(number >> 64) <= NOW_MS + 86_400_000
        and not 1_451_606_400_000 <= ulid_ms <= NOW_MS + 86_400_000
    )


@given(ids(), st.integers(8, TEXT_LENGTH - 1), st.sampled_from("uU!*.~é\U0001f600"))
def test_a_character_that_is_no_digit_is_named(click_id: str, position: int, character: str) -> None:
    text = click_id[:position] + character + click_id[position + 1 :]
    assert diagnose(text).reason == Reason.CLICK_ID_ALTERED


@given(ids(), st.data())
def test_case_and_dashes_need_no_diagnosis(click_id: str, data: st.DataObject) -> None:
    upper = data.draw(st.lists(st.booleans(), min_size=TEXT_LENGTH, max_size=TEXT_LENGTH))
    dashes = data.draw(st.lists(st.sampled_from(["", "-"]), min_size=TEXT_LENGTH, max_size=TEXT_LENGTH))
    characters = [c.upper() if up else c for c, up in zip(click_id, upper, strict=True)]
    text = "".join(dash + character for dash, character in zip(dashes, characters, strict=True))
    assert KEYS.verify(text) is not None


@given(ids(), st.integers(1, 4))
def test_repeated_encoding_is_repaired_up_to_three_times(click_id: str, times: int) -> None:
    text = "".join(f"%{ord(character):02x}" for character in click_id)
    for _ in range(times - 1):
        text = quote(text)
    finding = diagnose(text)
    assert finding.repaired == (times <= 3)
    if finding.repaired:
        assert finding.reason == Reason.CLICK_ID_DOUBLE_ENCODED
        assert (finding.stamp, finding.campaign) == KEYS.verify(click_id)


@given(
    ids(),
    st.text(alphabet=" \t\r\n\"'\u00a0\u200b\u201c\u201d", min_size=1, max_size=6),
    st.integers(0, TEXT_LENGTH),
)
def test_stray_spaces_and_quotes_are_repaired(click_id: str, stray: str, position: int) -> None:
    finding = diagnose(click_id[:position] + stray + click_id[position:])
    assert finding.repaired
    assert (finding.stamp, finding.campaign) == KEYS.verify(click_id)


@given(ids(), st.sampled_from(["_lp1", "&", ",", "/", "abc", "?x=1", "-x", ".0"]), st.booleans())
def test_text_around_a_genuine_id_is_named_but_not_repaired(click_id: str, more: str, behind: bool) -> None:
    finding = diagnose(click_id + more if behind else more + click_id)
    assert finding.reason == Reason.CLICK_ID_ALTERED
    assert not finding.repaired
    assert (finding.stamp, finding.campaign) == KEYS.verify(click_id)


@given(ids())
def test_an_id_that_claims_to_come_from_the_future_is_foreign(click_id: str) -> None:
    made_ms = stamp_ms((KEYS.verify(click_id) or (0, 0))[0])
    forged = KeyRing([SigningKey(id=1, secret=b"forged", active_from_ms=0)]).write(
        (NOW_MS + 2 * 86_400_000 - EPOCH_MS) << 22, made_ms & MAX_CAMPAIGN
    )
    assert diagnose(forged).reason == Reason.CLICK_ID_FOREIGN


@given(ids())
def test_an_id_of_a_retired_key_is_altered_and_not_attributed(click_id: str) -> None:
    retired = KeyRing([SigningKey(id=1, secret=b"s" * 16, active_from_ms=0, retired=True)])
    finding = diagnose_click_id(click_id, retired, NOW_MS)
    assert finding.reason == Reason.CLICK_ID_ALTERED
    assert finding.stamp is None


@pytest.mark.parametrize(
    ("text", "word_in_hint"),
    [
        ("550e8400-e29b-41d4-a716-446655440000", "UUID"),
        ("01JD3V6X8N2Q4R5S6T7V8W9XYZ", "ULID"),
        ("Cj0KCQiA6Ou5BhCrARIsAPoTxrCEx2hY", "gclid"),
        ("IwAR2xJ8Qb0n3u4y5v6w7x8y9z0aBcDeFgHiJkLm", "fbclid"),
        ("0f8fad5bd9cb469fa16570867728950e", "msclkid"),
        ("E.C.P.CrEBa1b2c3d4e5f6", "ttclid"),
        ("673f1c2e5d4b3a2918070605", "ObjectId"),
        ("w8A5TTEHS3KRHQ9FKS4QNUDB", "Voluum"),
        ("2t0sn8b1ij6o4", "Keitaro"),
        ("102c8a5d1f9f9d7ab7dcbb4c41a7b3", "TUNE"),
        ("1234567890", "digits only"),
        ("hashed:0123456789abcdef", "personal data"),
        ("abc", "too short"),
    ],
)
def test_the_shape_of_a_foreign_id_is_named(text: str, word_in_hint: str) -> None:
    finding = diagnose(text)
    assert finding.reason == Reason.CLICK_ID_FOREIGN
    assert word_in_hint in (finding.hint or "")


def test_a_shape_that_nobody_knows_has_no_hint() -> None:
    assert diagnose("something-else-entirely!").hint is None


def test_a_hint_quotes_the_macro_and_never_the_text_around_it() -> None:
    assert diagnose("john@example.com_{zone}").hint == "{zone} was sent as it is"
    assert diagnose("%7Bclickid%7D").hint == "%7Bclickid%7D was sent as it is"
    assert diagnose("'%7Bclickid%7D'").hint == "{clickid} was sent as it is"


@pytest.mark.parametrize(
    "piece", ["0", "%25", "{", "-", "a ", "z" * 26, "test", "102c", "\u200b", "[A", "%7B"]
)
def test_hostile_text_of_64_kb_is_diagnosed(piece: str) -> None:
    assert diagnose(piece * (65_536 // len(piece))).reason != Reason.NONE


def test_the_reasons_are_numbered_for_ever() -> None:
    assert [reason.word for reason in Reason] == [
        "none",
        "click_id_missing",
        "click_id_empty",
        "macro_literal",
        "click_id_truncated",
        "click_id_altered",
        "click_id_double_encoded",
        "click_id_in_other_field",
        "click_id_foreign",
        "click_not_yet_seen",
        "click_purged",
        "click_before_window",
        "click_after_window",
        "value_invalid",
        "value_macro_literal",
        "currency_unknown",
        "status_unknown",
        "type_not_allowed",
        "sender_ip_not_allowed",
        "signature_missing",
        "signature_invalid",
        "timestamp_out_of_range",
        "test_event",
        "body_malformed",
        "too_many_parameters",
        "field_too_long",
        "repeat_without_transaction_id",
        "token_missing",
        "token_invalid",
        "personal_data",
    ]
    assert [int(reason) for reason in Reason] == list(range(len(Reason)))


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_cause_and_a_fix_of_one_sentence(reason: Reason) -> None:
    for sentence in (reason.cause, reason.fix):
        assert sentence.endswith(".")
        assert 10 < len(sentence) < 120
    assert Reason(int(reason)) is reason


def test_a_replay_is_only_advised_where_the_stored_text_can_become_usable() -> None:
    in_the_text = (
        Reason.VALUE_MACRO_LITERAL,
        Reason.VALUE_INVALID,
        Reason.MACRO_LITERAL,
        Reason.FIELD_TOO_LONG,
    )
    assert not [reason.word for reason in in_the_text if "replay" in reason.fix]
    assert "sent again" in Reason.VALUE_MACRO_LITERAL.fix
    assert "sent again" in Reason.TYPE_NOT_ALLOWED.fix
