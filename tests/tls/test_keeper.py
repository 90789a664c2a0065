"""A certificate is obtained and renewed from an authority that misbehaves, and survives whoever looks after it."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from postbackd.core.acme_steps import Kind
from postbackd.tls.authority import MOST_NONCES_TRIED
from postbackd.tls.call import AuthorityAway, Caller
from postbackd.tls.documents import (
    CERTIFICATE,
)
from postbackd.tls.keeper import LOOK_S
from tests.tls.desk import NAMES, Desk
from tests.tls.issuer import DAY_S
from tests.tls.scripted import Answer, problem, running


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with running(tmp_path / "authority") as (scripted, root):
        yield Desk(tmp_path / "tls", scripted, root)


def test_a_certificate_is_obtained_and_nothing_of_the_order_is_left(desk: Desk) -> None:
    desk.turn()
    assert desk.held is not None
    assert set(desk.held.pair.term.names) == set(NAMES)
    assert desk.held.pair.certificates == 2
    assert {name for name in desk.files if not name.startswith("account-")} == {CERTIFICATE, "lock"}
    desk.turn()
    assert len(desk.scripted.orders) == 1


def test_an_authority_that_refuses_good_nonces_is_asked_again(desk: Desk) -> None:
    desk.scripted.reject_nonces = 5
    desk.turn()
    assert desk.held is not None


def test_an_authority_that_refuses_every_nonce_is_not_asked_for_ever(desk: Desk) -> None:
    desk.scripted.reject_nonces = 10**6
    desk.turn()
    assert desk.held is None
    assert desk.scripted.asked["account"] == MOST_NONCES_TRIED
    assert desk.trouble is not None
    assert desk.trouble.kind is Kind.AWAY


def test_retry_after_is_honoured_and_the_pause_outlives_the_process(desk: Desk) -> None:
    desk.scripted.faults["new"] = lambda: problem("rateLimited", 429, "too many", Retry_After="7200")
    desk.turn()
    trouble = desk.trouble
    assert trouble is not None
    assert trouble.kind is Kind.LIMITED
    assert 7200_000 <= trouble.next_ms - trouble.at_ms <= 8640_000
    asked = desk.scripted.asked.total()
    for _ in range(3):
        desk.turn()
    assert desk.scripted.asked.total() == asked
    desk.scripted.faults.clear()
    desk.ahead_ms = 8_640_000
    desk.turn()
    assert desk.held is not None
    assert desk.trouble is None


def test_a_failed_validation_is_told_with_what_to_do_and_not_repeated_soon(desk: Desk) -> None:
    def invalid() -> Answer:
        error = problem("unauthorized", 403, "Invalid response from http://a.example/: 404")[2]
        challenge = {"type": "http-01", "url": "x", "token": "t" * 20, "status": "invalid", "error": error}
        return 200, {}, {"identifier": {"value": "a.example"}, "status": "invalid", "challenges": [challenge]}

    desk.scripted.faults["authorization"] = invalid
    desk.turn()
    trouble = desk.trouble
    assert trouble is not None
    assert trouble.kind is Kind.UNPROVEN
    assert "a.example: Invalid response" in trouble.what
    assert "acme-challenge" in trouble.fix
    assert trouble.next_ms - trouble.at_ms >= 15 * 60_000
    assert "order.json" not in desk.files
    desk.ahead_ms = 60_000
    desk.turn()
    assert len(desk.scripted.orders) == 1


def test_an_operator_who_wants_something_else_need_not_wait(desk: Desk) -> None:
    desk.scripted.faults["new"] = lambda: problem("rejectedIdentifier", 400)
    desk.turn()
    desk.scripted.faults.clear()
    desk.turn(desk.keeper(["c.example"]))
    assert desk.held is not None
    assert desk.held.pair.term.names == ("c.example",)


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, b"not json"),
        (200, {}, b"[" * 100_000),
        (200, {}, []),
        (200, {}, {"status": 7, "authorizations": 7}),
        (500, {}, b"<html>"),
        (302, {"Location": "https://elsewhere.example/"}, b""),
        (200, {}, b"x" * 400_000),
    ],
    ids=["text", "deep", "list", "types", "error", "redirect", "huge"],
)
@pytest.mark.parametrize(
    "place", ["dir", "account", "new", "order", "authorization", "finalize", "certificate"]
)
def test_no_answer_ends_the_keeper_or_leaves_it_without_a_pause(
    desk: Desk, place: str, answer: Answer
) -> None:
    desk.scripted.faults[place] = lambda: answer
    pause = desk.turn()
    assert pause > 0
    assert desk.held is None
    if desk.trouble is None:  # "new" and "account" answer with what an order or an account may be
        pytest.fail(f"{place}: no trouble was noted")


def test_an_authority_that_cannot_be_reached_is_asked_ever_more_rarely(desk: Desk) -> None:
    pauses = []
    keeper = desk.keeper(url="https://localhost:1/dir")
    for _ in range(12):
        desk.turn(keeper)
        trouble = desk.trouble
        assert trouble is not None
        pauses.append(trouble.next_ms - trouble.at_ms)
        desk.ahead_ms += pauses[-1] + 1
    assert pauses == sorted(pauses)
    assert pauses[0] < 15_000
    assert 3_600_000 <= pauses[-1] <= 4_320_000


def test_an_authority_whose_own_certificate_is_not_trusted_is_told_nothing(
    desk: Desk, tmp_path: Path
) -> None:
    desk.root = tmp_path / "none.pem"
    desk.root.write_bytes(desk.scripted.issuer.make("x.example")[0])
    desk.turn()
    assert not desk.scripted.asked
    assert desk.trouble is not None
    assert "--acme-ca-file" in desk.trouble.fix


def test_an_address_that_is_not_https_is_not_asked() -> None:
    with pytest.raises(AuthorityAway, match="not https"):
        asyncio.run(Caller().call("GET", "http://localhost/dir"))


# --- renewal ------------------------------------------------------------------------------------------------------


def test_it_is_renewed_at_two_thirds_of_its_life_with_another_key_and_says_what_it_follows(
    desk: Desk,
) -> None:
    desk.scripted.life_s = 45 * DAY_S
    desk.scripted.suggests = True
    desk.scripted.window = (time.time() + 10 * DAY_S, time.time() + 9 * DAY_S)  # nonsense: no suggestion
    desk.turn()
    first = desk.held
    assert first is not None
    desk.ahead_ms = int(28 * DAY_S * 1000)
    desk.turn()
    assert desk.held == first
    desk.ahead_ms = int(30.1 * DAY_S * 1000)
    desk.turn()
    second = desk.held
    assert second is not None
    assert second.pair.fingerprint != first.pair.fingerprint
    assert second.pair.pem[:200] != first.pair.pem[:200]
    assert desk.scripted.orders[1]["replaces"] == first.pair.certificate_id


def test_it_is_renewed_when_the_authority_suggests_to(desk: Desk) -> None:
    desk.scripted.suggests = True
    desk.scripted.window = (time.time() + 60 * DAY_S, time.time() + 61 * DAY_S)
    desk.turn()
    desk.turn()
    assert desk.scripted.asked["ari"] == 1
    assert len(desk.scripted.orders) == 1
    desk.ahead_ms = 3_600_000
    desk.turn()
    assert desk.scripted.asked["ari"] == 1  # it said: in six hours
    desk.scripted.window = (time.time() - 2 * DAY_S, time.time() - 1 * DAY_S)  # about to be revoked
    desk.ahead_ms = 21_700_000
    desk.turn()
    assert desk.scripted.asked["ari"] == 2
    assert len(desk.scripted.orders) == 2


def test_a_suggestion_that_cannot_be_read_or_had_changes_nothing(desk: Desk) -> None:
    desk.scripted.suggests = True
    desk.turn()
    for answer in [
        (200, {}, {"suggestedWindow": {"start": "soon", "end": None}}),
        problem("serverInternal", 500),
    ]:
        desk.ahead_ms += int(DAY_S * 1000)
        desk.scripted.faults["ari"] = lambda answer=answer: answer  # type: ignore[misc]
        desk.turn()
    assert desk.scripted.asked["ari"] >= 2
    assert len(desk.scripted.orders) == 1
    assert desk.trouble is None


def test_a_successor_that_the_authority_does_not_take_is_ordered_without_saying_so(desk: Desk) -> None:
    desk.scripted.suggests = True
    desk.scripted.window = (time.time() + 60 * DAY_S, time.time() + 61 * DAY_S)
    desk.turn()
    refused = iter([problem("alreadyReplaced", 409)])
    desk.scripted.faults["new"] = lambda: next(refused, None)
    desk.ahead_ms = int(62 * DAY_S * 1000)
    desk.turn()
    assert len(desk.scripted.orders) == 2
    assert "replaces" not in desk.scripted.orders[1]


def test_a_wrong_clock_costs_one_certificate_a_day_and_not_one_a_minute(desk: Desk) -> None:
    desk.ahead_ms = int(3650 * DAY_S * 1000)
    for _ in range(5):
        desk.turn()
        desk.ahead_ms += 3_600_000
    assert len(desk.scripted.orders) == 1
    assert desk.trouble is not None
    assert "clock" in desk.trouble.fix
    desk.ahead_ms = 0  # set right: what was noted in the far future holds nobody back
    desk.turn()
    assert desk.held is not None


def test_a_failed_renewal_leaves_the_old_certificate(desk: Desk) -> None:
    desk.turn()
    first = desk.held
    desk.ahead_ms = int(61 * DAY_S * 1000)
    desk.scripted.faults["finalize"] = lambda: problem("badCSR", 400)
    desk.turn()
    assert desk.held == first
    assert desk.trouble is not None


def test_another_authority_is_asked_when_the_settings_name_one(desk: Desk, tmp_path: Path) -> None:
    desk.turn()
    with running(tmp_path / "second", desk.scripted.issuer) as (second, _):
        desk.turn(desk.keeper(url=f"{second.base}/dir"))
        assert desk.held is not None
        assert desk.held.directory == f"{second.base}/dir"
    assert len([name for name in desk.files if name.startswith("account-")]) == 2


def test_an_authority_that_forgot_the_account_and_the_order_is_begun_with_anew(desk: Desk) -> None:
    desk.turn()
    key = next(path for path in desk.directory.glob("account-*"))
    before = json.loads(key.read_bytes())["key"]
    desk.scripted.accounts.clear()
    desk.ahead_ms = int(61 * DAY_S * 1000)
    desk.turn()
    assert len(desk.scripted.orders) == 2
    assert json.loads(key.read_bytes())["key"] == before


def test_documents_that_are_damaged_are_made_anew_but_a_certificate_is_not_thrown_away(desk: Desk) -> None:
    desk.directory.mkdir(mode=0o700)
    for name in ("order.json", "trouble.json", "renewal.json", "challenges.json"):
        (desk.directory / name).write_bytes(b"\xff{")
    desk.turn()
    assert desk.held is not None
    (desk.directory / CERTIFICATE).write_bytes(b"half of i")
    desk.turn()
    assert len(desk.scripted.orders) == 1
    assert desk.trouble is not None
    assert "damaged" in desk.trouble.what


def test_an_order_whose_certificate_was_saved_before_its_keeper_was_killed_is_not_gone_on_with(
    desk: Desk,
) -> None:
    kept: list[bytes] = []

    def keep() -> None:
        kept[:] = [(desk.directory / "order.json").read_bytes()]

    desk.scripted.faults["certificate"] = keep
    desk.turn()
    (desk.directory / "order.json").write_bytes(kept[0])
    desk.ahead_ms = int(61 * DAY_S * 1000)
    desk.scripted.age_s = -61 * DAY_S
    desk.turn()
    assert len(desk.scripted.orders) == 2
    assert desk.trouble is None


def test_one_order_that_failed_while_nobody_looked_is_followed_by_another_at_once_and_a_second_is_a_failure(
    desk: Desk,
) -> None:
    class Killed(BaseException):
        """As good as a signal: nothing is noted."""

    for _ in range(3):

        async def killed(seconds: float) -> None:
            desk.scripted.status[next(reversed(desk.scripted.status))] = "invalid"
            raise Killed

        keeper = desk.keeper()
        keeper._sleep = killed
        with suppress(Killed):
            desk.turn(keeper)
    assert len(desk.scripted.orders) == 2
    assert desk.trouble is not None


# --- several --------------------------------------------------------------------------------------------------------


def test_many_keepers_of_one_shelf_make_one_order(desk: Desk) -> None:
    async def together() -> list[float]:
        return list(await asyncio.gather(*(desk.keeper().turn() for _ in range(8))))

    assert asyncio.run(together()).count(LOOK_S) == 8
    assert desk.held is not None
    assert len(desk.scripted.orders) == 1


def test_the_log_says_what_happened_and_no_key(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    desk.scripted.faults["new"] = lambda: problem("rateLimited", 429, "no\x1b[31mred\nlines")
    desk.turn()
    assert re.search(
        r"no new certificate for a\.example, b\.example: rateLimited: no \[31mred lines\. What to do: ",
        caplog.text,
    )
    assert "PRIVATE" not in caplog.text
