"""The ladder of a network: which step refuses whom, what is only noted, and what goes on for a while."""

from __future__ import annotations

from typing import Any

import pytest

from postbackd.core.diagnosis import SENDER_REASONS, Reason
from postbackd.core.params import POSTBACK_NAMES, FieldMap
from postbackd.core.sender_rules import (
    NOTHING,
    OBSERVABLE,
    Finding,
    Sender,
    SenderRules,
    check_senders,
    hash_token,
    read_observed,
    write_observed,
)
from postbackd.core.senders import Scheme, Secret, Senders, Token, is_guarded
from postbackd.core.signature import SchemeError, Signed, check_scheme, equal, sign

NOW_MS = 1_750_000_000_000
TOKEN, SECRET = "pbt_token", "pbs_secret"
TOKENS = (Token(hash_token(TOKEN)),)
SECRETS = (Secret(SECRET),)


def rules(**senders: Any) -> SenderRules:
    made = Senders(**senders)
    check_senders(made)
    return SenderRules(made, lambda sealed: sealed, FieldMap(POSTBACK_NAMES).names)


def sender(
    query: str = "click_id=x", address: str = "203.0.113.9", body: bytes = b"", **headers: str
) -> Sender:
    kept = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Sender(Signed("POST" if body else "GET", "/p/key", query, body, kept), address)


def found(ladder: SenderRules, asking: Sender, now_ms: int = NOW_MS) -> Reason:
    return Reason(ladder.check(asking, now_ms).refused)


# --- the token ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asking",
    [
        sender(f"click_id=x&token={TOKEN}"),
        sender(authorization=f"Bearer {TOKEN}"),
        sender(authorization=f"bearer  {TOKEN} "),
        sender(x_postback_token=TOKEN),
        sender("", body=f"token={TOKEN}&click_id=x".encode()),
        sender("", body=f'{{"token":"{TOKEN}"}}'.encode()),
    ],
)
def test_a_token_may_stand_in_a_header_the_query_or_the_body(asking: Sender) -> None:
    assert rules(token_mode="enforce", tokens=TOKENS).check(asking, NOW_MS) == NOTHING


@pytest.mark.parametrize(
    ("asking", "reason"),
    [
        (sender(), Reason.TOKEN_MISSING),
        (sender("token="), Reason.TOKEN_MISSING),
        (sender(authorization="Basic eDp5"), Reason.TOKEN_MISSING),
        (sender("token=other"), Reason.TOKEN_INVALID),
        (sender(f"token={TOKEN}x"), Reason.TOKEN_INVALID),
        (sender("token=" + "x" * 5000), Reason.TOKEN_INVALID),
        (sender("token=%E2%82%AC%ED%A0%80"), Reason.TOKEN_INVALID),
        (sender(f"token={TOKEN}", authorization="Bearer other"), Reason.TOKEN_INVALID),
        (sender(body=b"[" * 900), Reason.TOKEN_MISSING),
        (sender(body=b'{"token":'), Reason.TOKEN_MISSING),
    ],
)
def test_without_the_token_a_sender_is_refused(asking: Sender, reason: Reason) -> None:
    assert found(rules(token_mode="enforce", tokens=TOKENS), asking) is reason


def test_a_former_token_is_good_until_its_date() -> None:
    ladder = rules(token_mode="enforce", tokens=(Token(hash_token("new")), Token(hash_token(TOKEN), NOW_MS)))
    assert found(ladder, sender(f"token={TOKEN}"), NOW_MS - 1) is Reason.NONE
    assert found(ladder, sender(f"token={TOKEN}"), NOW_MS) is Reason.TOKEN_INVALID
    assert found(ladder, sender("token=new"), NOW_MS) is Reason.NONE


# --- addresses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("203.0.113.9", True),
        ("::ffff:203.0.113.9", True),
        ("203.0.114.9", False),
        ("2001:db8::7", True),
        ("2001:DB8:0::7", True),
        ("2001:db9::7", False),
        ("192.0.2.1", True),
        ("", False),
        ("unknown", False),
        ("203.0.113.9, 1.2.3.4", False),
    ],
)
def test_only_addresses_on_the_list_may_send(address: str, allowed: bool) -> None:
    ladder = rules(ip_mode="enforce", ips=("203.0.113.0/24", "2001:db8::/32", "192.0.2.1"))
    expected = Reason.NONE if allowed else Reason.SENDER_IP_NOT_ALLOWED
    assert found(ladder, sender(address=address)) is expected
    assert found(ladder, sender(address=address)) is expected  # remembered


# --- signatures ---------------------------------------------------------------------------------------------


def signed_sender(secret: str = SECRET, time_s: int = NOW_MS // 1000) -> Sender:
    signature = sign(Scheme(), sender().signed, secret, str(time_s))
    return sender(x_postback_signature=f"t={time_s},v1={signature}")


def test_a_signed_request_brings_its_time_and_its_print() -> None:
    ladder = rules(signature_mode="enforce", scheme=Scheme(), secrets=SECRETS)
    first = ladder.check(signed_sender(), NOW_MS)
    assert (first.refused, first.signed_ms, len(first.print)) == (0, NOW_MS, 32)
    assert ladder.check(signed_sender(), NOW_MS + 1000) == first
    assert ladder.check(signed_sender(time_s=NOW_MS // 1000 - 1), NOW_MS).print != first.print


def test_a_repeat_with_other_signatures_beside_the_right_one_has_the_same_print() -> None:
    secrets = (Secret("new"), Secret(SECRET, NOW_MS + 1))
    ladder = rules(signature_mode="enforce", scheme=Scheme(), secrets=secrets)
    time_s = NOW_MS // 1000
    old, new = (sign(Scheme(), sender().signed, secret, str(time_s)) for secret in (SECRET, "new"))
    headers = [f"v1={old}", f"v1={new}", f"v1={old},v1={new}", f"v1=00,v1={old}", f"v1={old},v1=junk"]
    found = {ladder.check(sender(x_postback_signature=f"t={time_s},{one}"), NOW_MS) for one in headers}
    assert len({one.print for one in found}) == 1
    assert {one.refused for one in found} == {0}


def test_a_former_secret_is_good_until_its_date() -> None:
    secrets = (Secret("new"), Secret(SECRET, NOW_MS))
    ladder = rules(signature_mode="enforce", scheme=Scheme(), secrets=secrets)
    assert found(ladder, signed_sender(), NOW_MS - 1) is Reason.NONE
    assert found(ladder, signed_sender(), NOW_MS) is Reason.SIGNATURE_INVALID
    assert found(ladder, signed_sender("new"), NOW_MS) is Reason.NONE


def test_texts_that_are_not_ascii_are_compared_all_the_same() -> None:
    assert equal("é€\ud800", "é€\ud800")
    assert not equal("é", "e")


@pytest.mark.parametrize(
    ("scheme", "problem"),
    [
        (Scheme(kind="fields", keyed=False, template="{a}{b}"), "anybody could sign"),
        (Scheme(kind="fields", template="fixed"), "names no parameter"),
        (Scheme(kind="fields", template="{secret}"), "names no parameter"),
        (Scheme(kind="url"), "--signed-url"),
        (Scheme(kind="url", base="track.example"), "--signed-url"),
        (Scheme(kind="query", keyed=False), "keyed"),
        (Scheme(template="{a}"), "template"),
        (Scheme(window_s=0), "window"),
        (Scheme(window_s=86_401), "window"),
        (Scheme(header="cookie"), "header must be one of"),
        (Scheme(parameter="a&b"), "name of a parameter"),
    ],
)
def test_a_scheme_that_cannot_protect_is_not_taken(scheme: Scheme, problem: str) -> None:
    with pytest.raises(SchemeError, match=problem):
        check_scheme(scheme)


# --- the ladder ---------------------------------------------------------------------------------------------

EVERYTHING: dict[str, Any] = {
    "tokens": TOKENS,
    "ips": ("10.0.0.0/8",),
    "scheme": Scheme(),
    "secrets": SECRETS,
}


def test_the_first_enforced_step_that_fails_gives_the_reason() -> None:
    modes = {"token_mode": "enforce", "ip_mode": "enforce", "signature_mode": "enforce"}
    ladder = rules(**EVERYTHING, **modes)
    assert found(ladder, sender()) is Reason.TOKEN_MISSING
    assert found(ladder, sender(f"token={TOKEN}")) is Reason.SENDER_IP_NOT_ALLOWED
    assert found(ladder, sender(f"token={TOKEN}", "10.1.1.1")) is Reason.SIGNATURE_MISSING


def test_an_observed_step_refuses_nobody_and_notes_what_it_would_refuse() -> None:
    modes = {"token_mode": "observe", "ip_mode": "observe", "signature_mode": "observe"}
    seen = rules(**EVERYTHING, **modes).check(sender(), NOW_MS)
    wanted = [Reason.TOKEN_MISSING, Reason.SENDER_IP_NOT_ALLOWED, Reason.SIGNATURE_MISSING]
    assert seen.refused == 0
    assert read_observed(seen.observed) == wanted
    assert write_observed(wanted) == seen.observed


def test_what_is_observed_is_noted_of_a_refused_request_too() -> None:
    ladder = rules(**EVERYTHING, token_mode="observe", signature_mode="enforce")
    seen = ladder.check(sender(), NOW_MS)
    assert seen == Finding(Reason.SIGNATURE_MISSING, write_observed([Reason.TOKEN_MISSING]))


def test_a_step_that_is_off_is_not_asked() -> None:
    assert rules(**EVERYTHING).check(sender(), NOW_MS) == NOTHING
    assert not is_guarded(Senders(**EVERYTHING))


@pytest.mark.parametrize(
    ("senders", "problem"),
    [
        (Senders(token_mode="enforce"), "token cannot be enforced: .*--token"),
        (Senders(ip_mode="observe"), "ip cannot be observed: .*--allow-ip"),
        (Senders(signature_mode="enforce"), "--signature"),
        (Senders(signature_mode="enforce", scheme=Scheme()), "--secret"),
        (Senders(ips=("10.0.0.1/8",)), "write 10.0.0.0/8"),
        (Senders(ips=("shop.example",)), "no address"),
        (Senders(tokens=(*TOKENS, *TOKENS)), "one current"),
        (Senders(tokens=(Token(hash_token("x"), 5),)), "one current"),
    ],
)
def test_a_ladder_that_cannot_be_followed_is_not_taken(senders: Senders, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_senders(senders)


def test_all_that_a_step_can_find_is_a_reason_of_a_sender() -> None:
    assert set(OBSERVABLE) == SENDER_REASONS
    assert [read_observed(1 << place) for place in range(len(OBSERVABLE))] == [[r] for r in OBSERVABLE]
    assert read_observed(None) == []
