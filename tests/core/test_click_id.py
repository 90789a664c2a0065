"""Click ids and stamps: written, read, verified, never repeated."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbackd.core.click_id import (
    EPOCH_MS,
    MAX_CAMPAIGN,
    MAX_NODE,
    MAX_STAMP,
    STAMP_TEXT_LENGTH,
    TEXT_LENGTH,
    KeyRing,
    StampMint,
    first_stamp_at,
    read_stamp,
    read_unverified,
    stamp_ms,
    write_stamp,
)
from postbackd.core.model import SigningKey

ROTATED_MS = 1_700_000_000_000
OLD = SigningKey(id=1, secret=b"old" * 8, active_from_ms=0)
NEW = SigningKey(id=2, secret=b"new" * 8, active_from_ms=ROTATED_MS)

stamps = st.integers(0, MAX_STAMP)
campaigns = st.integers(0, MAX_CAMPAIGN)


@given(stamps, campaigns)
def test_what_was_written_verifies(stamp: int, campaign: int) -> None:
    keys = KeyRing([OLD, NEW])
    text = keys.write(stamp, campaign)
    assert len(text) == TEXT_LENGTH
    assert keys.verify(text) == (stamp, campaign)


@given(stamps, campaigns, st.integers(0, 127))
def test_one_flipped_bit_never_verifies(stamp: int, campaign: int, bit: int) -> None:
    keys = KeyRing([OLD])
    number = read_unverified(keys.write(stamp, campaign))
    assert number is not None
    digits = "0123456789abcdefghjkmnpqrstvwxyz"
    changed = number ^ 1 << bit
    text = "".join(digits[changed >> shift & 31] for shift in range(125, -1, -5))
    assert keys.verify(text) is None


@given(st.text())
def test_no_text_makes_reading_raise(text: str) -> None:
    keys = KeyRing([OLD])
    assert keys.verify(text) is None
    read_stamp(text)
    read_unverified(text)


@given(st.text(alphabet="0123456789abcdefghjkmnpqrstvwxyzilouILOU-", min_size=20, max_size=30))
def test_no_text_of_our_alphabet_makes_reading_raise(text: str) -> None:
    assert KeyRing([OLD]).verify(text) is None


@given(stamps)
def test_a_stamp_survives_being_written(stamp: int) -> None:
    text = write_stamp(stamp)
    assert len(text) == STAMP_TEXT_LENGTH
    assert read_stamp(text) == stamp
    assert read_stamp(text.upper()) == stamp


@given(stamps, stamps)
def test_written_stamps_sort_like_stamps(one: int, other: int) -> None:
    assert (write_stamp(one) < write_stamp(other)) == (one < other)


@pytest.mark.parametrize("text", ["", "0", "z" * 13, "8000000000000", "u" * 13, "0" * 14, "é" * 13])
def test_text_that_is_no_stamp_is_not_read(text: str) -> None:
    assert read_stamp(text) is None


def test_ids_written_under_an_old_key_verify_after_rotation() -> None:
    stamp = first_stamp_at(ROTATED_MS - 1)
    text = KeyRing([OLD]).write(stamp, 5)
    assert KeyRing([NEW, OLD]).verify(text) == (stamp, 5)


def test_a_new_key_does_not_sign_for_the_time_before_it() -> None:
    rotated = KeyRing([OLD, NEW])
    before, after = first_stamp_at(ROTATED_MS - 1), first_stamp_at(ROTATED_MS)
    assert rotated.write(before, 1) == KeyRing([OLD]).write(before, 1)
    assert rotated.write(after, 1) != KeyRing([OLD]).write(after, 1)


def test_ids_of_a_retired_key_do_not_verify_even_when_written_here() -> None:
    retired = SigningKey(id=1, secret=OLD.secret, active_from_ms=0, retired=True)
    keys = KeyRing([retired, NEW])
    stamp = first_stamp_at(ROTATED_MS - 1)
    assert keys.verify(KeyRing([OLD]).write(stamp, 5)) is None
    assert keys.verify(keys.write(stamp, 5)) is None


def test_a_key_ring_without_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one signing key"):
        KeyRing([])


def test_a_time_before_the_first_key_is_signed_by_the_first_key() -> None:
    keys = KeyRing([SigningKey(id=1, secret=b"x" * 16, active_from_ms=ROTATED_MS)])
    stamp = first_stamp_at(ROTATED_MS - 1000)
    assert keys.verify(keys.write(stamp, 1)) == (stamp, 1)


def test_the_first_stamp_of_a_time_says_that_time() -> None:
    assert stamp_ms(first_stamp_at(ROTATED_MS)) == ROTATED_MS
    assert first_stamp_at(EPOCH_MS - 1) == 0


@given(st.lists(st.integers(EPOCH_MS + 1, EPOCH_MS + 10**6), min_size=1, max_size=50))
def test_stamps_only_grow_whatever_the_clock_does(clock: list[int]) -> None:
    mint = StampMint(node=3)
    made = [mint.mint(now_ms) for now_ms in clock]
    assert all(earlier < later for earlier, later in pairwise(made))
    assert all(stamp >> 12 & MAX_NODE == 3 for stamp in made)


def test_a_burst_of_more_than_4096_stamps_borrows_from_the_next_millisecond() -> None:
    mint = StampMint(node=0)
    made = [mint.mint(ROTATED_MS) for _ in range(4097)]
    assert len(set(made)) == 4097
    assert stamp_ms(made[-2]) == ROTATED_MS
    assert stamp_ms(made[-1]) == ROTATED_MS + 1


def test_a_clock_set_back_over_a_restart_cannot_repeat_a_stamp() -> None:
    last = StampMint(node=1).mint(ROTATED_MS)
    assert StampMint(node=1, last=last).mint(ROTATED_MS - 5000) > last


def test_two_nodes_never_make_the_same_stamp() -> None:
    one, other = StampMint(node=1), StampMint(node=2)
    assert one.mint(ROTATED_MS) != other.mint(ROTATED_MS)


@pytest.mark.parametrize("node", [-1, MAX_NODE + 1])
def test_a_node_that_does_not_fit_is_refused(node: int) -> None:
    with pytest.raises(ValueError, match="node must be"):
        StampMint(node)
