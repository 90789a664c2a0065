"""How a certificate is obtained: challenges that are answered in handshakes, accounts that are bound."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from postbackd.core.acme_steps import Kind
from postbackd.tls.documents import CHALLENGES, TLS_CHALLENGES, Binding
from postbackd.tls.issuance import SEEN_S
from postbackd.tls.watching import LOOK_S
from tests.tls.desk import NAMES, Desk
from tests.tls.scripted import running


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with running(tmp_path / "authority") as (scripted, root):
        yield Desk(tmp_path / "tls", scripted, root)


# --- challenges in handshakes ------------------------------------------------------------------------------------


def test_a_challenge_in_the_handshake_is_on_the_shelf_and_seen_by_all_before_the_authority_looks(
    desk: Desk,
) -> None:
    found: list[dict[str, str]] = []

    def look() -> None:
        assert SEEN_S in desk.slept
        found.append(json.loads((desk.directory / TLS_CHALLENGES).read_bytes()))
        assert not (desk.directory / CHALLENGES).exists()

    desk.scripted.faults["challenge"] = look
    desk.turn(desk.keeper(challenge="tls-alpn-01"))
    assert desk.held is not None
    assert [sorted(answers) for answers in found] == [NAMES, NAMES][: len(found)]
    assert all(re.fullmatch(r"token-of-\S+\.[\w-]{43}", answer) for answer in found[0].values())
    assert SEEN_S > LOOK_S
    assert desk.slept.count(SEEN_S) == 1
    assert TLS_CHALLENGES not in desk.files


def test_an_authority_that_does_not_offer_the_challenge_is_told_by_name_and_another_may_be_chosen_at_once(
    desk: Desk,
) -> None:
    desk.scripted.kinds = ["http-01"]
    desk.turn(desk.keeper(challenge="tls-alpn-01"))
    assert desk.trouble is not None
    assert "tls-alpn-01 is not offered, but dns-01, http-01" in desk.trouble.what
    assert "--acme-challenge" in desk.trouble.fix
    desk.turn(desk.keeper(challenge="tls-alpn-01"))
    assert len(desk.scripted.orders) == 1
    desk.turn(desk.keeper(challenge="http-01"))
    assert desk.held is not None


# --- external account binding -------------------------------------------------------------------------------------


def test_an_account_is_bound_to_the_operators_own_when_the_authority_wants_it(desk: Desk) -> None:
    desk.scripted.bindings = {"kid-1": b"k" * 32}
    desk.turn(desk.keeper(binding=Binding("kid-1", b"k" * 32)))
    assert desk.held is not None
    assert b"k" * 32 not in b"".join(path.read_bytes() for path in desk.directory.iterdir())


def test_an_authority_that_wants_a_binding_is_told_with_the_settings_that_give_it(desk: Desk) -> None:
    desk.scripted.bindings = {"kid-1": b"k" * 32}
    desk.turn()
    assert desk.trouble is not None
    assert "--acme-eab-kid" in desk.trouble.fix
    assert "POSTBACKD_ACME_EAB_HMAC_KEY" in desk.trouble.fix


@pytest.mark.parametrize("binding", [Binding("kid-2", b"k" * 32), Binding("kid-1", b"x" * 32)])
def test_a_binding_that_is_refused_is_told_as_such_and_a_better_one_is_tried_at_once(
    desk: Desk, binding: Binding
) -> None:
    desk.scripted.bindings = {"kid-1": b"k" * 32, "kid-3": b"3" * 32}
    desk.turn(desk.keeper(binding=binding))
    assert desk.trouble is not None
    assert desk.trouble.kind is Kind.REFUSED
    assert desk.trouble.what.startswith("bindingRefused: no such key id")
    assert f"of the key id {binding.kid}" in desk.trouble.what
    assert "HMAC key" in desk.trouble.fix
    desk.turn(desk.keeper(binding=Binding("kid-3", b"3" * 32)))
    assert desk.held is not None
