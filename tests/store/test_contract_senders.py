"""Who may send, and what was found about who did: kept and asked for alike by every store."""

from __future__ import annotations

from msgspec.structs import replace

from postbackd.core.diagnosis import Reason
from postbackd.core.model import Network
from postbackd.core.sender_rules import OBSERVABLE, hash_token, write_observed
from postbackd.core.senders import ANYBODY, FormerKey, Scheme, Secret, Senders, Token
from postbackd.core.verdicts import Verdict
from tests.store.contract import World

EVERYTHING = Senders(
    former_keys=(FormerKey("former-key-of-the-network", 1_760_000_000_000),),
    token_mode="enforce",
    tokens=(Token(hash_token("new")), Token(hash_token("old"), 1_760_000_000_000)),
    ip_mode="observe",
    ips=("203.0.113.0/24", "2001:db8::/32"),
    signature_mode="observe",
    scheme=Scheme(kind="fields", hash="md5", keyed=False, template="{a}é{secret}", parameter="hash"),
    secrets=(Secret("1.sealed"), Secret("1.former", 1_760_000_000_000)),
    pixel="open",
)


def networks(world: World) -> dict[str, Network]:
    return {network.name: network for network in world.run(world.store.load_catalog()).networks}


def test_who_may_send_is_kept_as_it_was_said(world: World) -> None:
    before = networks(world)["hold"]
    assert before.senders == ANYBODY
    world.save(replace(before, senders=EVERYTHING))
    world.reopen()
    assert networks(world)["hold"] == replace(before, senders=EVERYTHING)
    world.save(replace(before, senders=ANYBODY))
    assert networks(world)["hold"] == before


def test_what_observed_steps_found_is_kept_with_the_postback_and_can_be_asked_for(world: World) -> None:
    both = write_observed([Reason.TOKEN_MISSING, Reason.SIGNATURE_MISSING])
    late = write_observed([Reason.TIMESTAMP_OUT_OF_RANGE])
    noted = [
        replace(world.make(world.click(), "txid=1"), observed=both, sender="203.0.113.0/24"),
        replace(world.make(world.click(), "txid=2"), observed=both, sender="203.0.113.0/24"),
        replace(world.make(world.click(), "txid=3"), observed=late, sender="2001:db8::/48"),
        world.make(world.click(), "txid=4"),
    ]
    assert {said.verdict for said in world.settle(*noted)} == {"accepted"}
    rows = [world.row(postback) for postback in noted]
    assert [(row["observed"], row["sender"]) for row in rows] == [
        (both, "203.0.113.0/24"), (both, "203.0.113.0/24"), (late, "2001:db8::/48"), (None, None),
    ]  # fmt: skip
    asked = {bits: len(world.query("log", observed=bits)) for bits in (write_observed(OBSERVABLE), late, 2)}
    assert asked == {write_observed(OBSERVABLE): 3, late: 1, 2: 0}
    found = world.query("observed_senders")
    assert [(row["observed"], row["sender"], row["count"]) for row in found] == [
        (both, "203.0.113.0/24", 2), (late, "2001:db8::/48", 1),
    ]  # fmt: skip
    groups = {row["observed"]: row["count"] for row in world.query("postbacks_by_network")}
    assert groups == {both: 2, late: 1, None: 1}


def refused(world: World, reason: Reason) -> int:
    postback = replace(world.make(world.click(), "txid=R"), verdict=Verdict.REJECTED, reason=reason)
    assert world.settle(postback)[0][:2] == ("rejected", reason.word)
    return postback.request.request_id


def test_what_was_refused_for_its_sender_is_replayed_only_when_its_reason_is_named(world: World) -> None:
    forged = {reason: refused(world, reason) for reason in OBSERVABLE}
    honest = refused(world, Reason.TYPE_NOT_ALLOWED)
    assert [row["request_id"] for row in world.query("replayable")] == [honest]
    assert world.query("replayable_count") == [{"count": 1}]
    for reason, request_id in forged.items():
        assert [row["request_id"] for row in world.query("replayable", reason=int(reason))] == [request_id]


def test_a_refused_postback_is_no_conversion_and_waits_for_no_click(world: World) -> None:
    click = world.make_click()
    postback = replace(world.make(click, "txid=W"), verdict=Verdict.REJECTED, reason=Reason.SIGNATURE_INVALID)
    world.settle(postback)
    world.write([click])
    assert world.conversions(click) == []
    assert world.row(postback)["verdict"] == Verdict.REJECTED
