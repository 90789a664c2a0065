"""Names, passwords, scopes, one-time codes and the brake on guessing: decisions without a database."""

from __future__ import annotations

import base64

import pytest

from postbackd.core.guessing import ALL_AT_ONCE, PER_ACCOUNT, PER_PREFIX, Guesses
from postbackd.core.people import (
    IDLE_MS,
    SESSION_MS,
    Role,
    Session,
    Token,
    User,
    check_password,
    csrf_token,
    read_name,
    read_scopes,
    remember_prefix,
)
from postbackd.core.totp import clean_code, code_at, find_step, write_recovery, write_seed, write_uri

_SEED = base64.b32encode(b"12345678901234567890").decode()


def test_codes_are_those_of_rfc_6238() -> None:
    """Appendix B, the column of SHA-1."""
    for seconds, code in (
        (59, "94287082"), (1111111109, "07081804"), (1111111111, "14050471"),
        (1234567890, "89005924"), (2000000000, "69279037"), (20000000000, "65353130"),
    ):  # fmt: skip
        assert code_at(_SEED, seconds // 30, 8) == code


def test_a_code_is_good_for_a_step_either_way_and_never_at_or_before_the_last_one() -> None:
    now_ms, step = 1_750_000_000_000, 1_750_000_000 // 30
    for offset, found in ((-2, None), (-1, step - 1), (0, step), (1, step + 1), (2, None)):
        assert find_step(_SEED, code_at(_SEED, step + offset), now_ms, 0) == found
    assert find_step(_SEED, code_at(_SEED, step), now_ms, step) is None
    assert find_step(_SEED, code_at(_SEED, step - 1), now_ms, step) is None
    for wrong in ("", "12345", "１２３４５６", "x" * 64, "\ud800"):
        assert find_step(_SEED, wrong, now_ms, 0) is None


def test_seeds_and_recovery_codes_are_typed_by_people() -> None:
    assert write_seed(b"12345678901234567890") == _SEED
    (code,) = write_recovery([bytes(range(10))])
    assert len(clean_code(code)) == 16
    assert clean_code(f" {code.lower()} ") == clean_code(code)
    assert write_uri("ABC", "anna@x", "postbackd").startswith("otpauth://totp/postbackd:anna%40x?secret=ABC&")


@pytest.mark.parametrize("name", ["", "a b", "-a", "ä", "a" * 65, "a/b", "a\n"[:1] + "\0"])
def test_a_name_that_cannot_be_typed_everywhere_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a user's name is"):
        read_name(name)


def test_names_are_the_same_however_they_are_written() -> None:
    assert read_name("  Anna@Example.COM ") == "anna@example.com"


@pytest.mark.parametrize(
    "password", ["short", "x" * 257, "aaaaaaaaaaaaaa", "Password1234", "annaannaannaanna"]
)
def test_a_password_that_is_tried_first_is_refused(password: str) -> None:
    with pytest.raises(ValueError, match="password"):
        check_password(password, "anna")


def test_any_long_password_will_do() -> None:
    for password in ("correct horse battery", "тринадцать слов", " with spaces at both ends "):
        check_password(password, "anna")


def test_roles_and_scopes_are_the_words_of_the_api() -> None:
    from postbackd.admin.endpoints import Scope

    assert {scope for role in Role for scope in role.scopes} == {scope.value for scope in Scope}
    assert read_scopes(["operate", "read", "read"]) == ("read", "operate")
    for wrong in ([], ["own"], ["write"]):
        with pytest.raises(ValueError, match="read, catalog, operate"):
            read_scopes(wrong)
    token = Token(name="t", hash="", scopes=("read", "operate"), user_role=Role.VIEWER, made_ms=0)
    assert token.allowed == ("read",)


def test_a_session_ends_idle_and_at_last_in_use() -> None:
    user = User(id=1, name="a", role=Role.OWNER, password="")
    assert not Session(hash="", user=user, made_ms=0, seen_ms=0).is_over(IDLE_MS)
    assert Session(hash="", user=user, made_ms=0, seen_ms=0).is_over(IDLE_MS + 1)
    assert Session(hash="", user=user, made_ms=0, seen_ms=SESSION_MS).is_over(SESSION_MS + 1)
    assert csrf_token("a") != csrf_token("b")
    known: tuple[str, ...] = ()
    for number in range(20):
        known = remember_prefix(known, f"192.0.{number}")
    assert len(known) == 8


# --- guessing -----------------------------------------------------------------------------------------------------


def test_ten_thousand_guesses_are_slowed_and_remembered_in_bounded_memory() -> None:
    """From 10,000 networks at 10,000 accounts within an hour; control: without the brake all would pass."""
    guesses = Guesses()
    passed = sum(
        guesses.take(f"user{number}", f"10.{number >> 8}.{number & 255}", number * 0.36, is_known=False) == 0
        for number in range(10_000)
    )
    assert passed <= ALL_AT_ONCE + 3600 + 1
    for number in range(20_000):
        guesses.take(f"other{number}", f"11.{number >> 8}.{number & 255}", 3600.0, is_known=bool(number & 1))
    assert len(guesses) <= 3 * 4096 + 1


def test_one_account_is_slowed_wherever_the_guesses_come_from_and_its_owner_still_comes_in() -> None:
    guesses = Guesses()
    passed = [
        guesses.take("anna", f"10.0.{number}", number * 0.1, is_known=False) == 0 for number in range(10_000)
    ]
    assert sum(passed) <= PER_ACCOUNT + 1000 / 60 + 1
    assert guesses.take("anna", "10.0.1", 1000.0, is_known=False) > 0
    assert guesses.take("anna", "192.0.2", 1000.0, is_known=True) == 0


def test_one_network_is_slowed_and_recovers_by_itself() -> None:
    guesses = Guesses()
    waits = [guesses.take(f"user{number}", "10.0.0", 0.0, is_known=False) for number in range(PER_PREFIX + 1)]
    assert [wait > 0 for wait in waits] == [False] * PER_PREFIX + [True]
    assert guesses.take("user", "10.0.0", waits[-1] + 0.01, is_known=False) == 0
