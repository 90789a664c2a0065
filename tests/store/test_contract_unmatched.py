"""The doctor of postbacks that were not counted, on every store: what it finds, names, repairs, and leaves alone."""

from __future__ import annotations

import asyncio
from datetime import UTC
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from postbackd.core.click_id import first_stamp_at, read_stamp, write_stamp
from postbackd.core.model import Click, Network, Offer
from postbackd.core.rulebook import Rulebook
from postbackd.reports.lost_ids import find_lost_ids
from postbackd.reports.period import Period
from postbackd.reports.repairing import Repairs, list_repairs, repair
from postbackd.reports.unmatched import examine_unmatched, format_repairs, format_unmatched
from postbackd.store.base import Batch
from postbackd.upkeep.rollups import RollupKeeper
from tests.store.contract import NOW_MS, Kind, World

ALL = Period(None, None).stamps()


def mended(network: Network) -> str:
    return f"https://track.example/p/{network.key}?mended"


class Clinic:
    """A world with a network whose preset knows its macros."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tune = world.save(Network(id=0, name="TUNE", key="key-tune", preset="tune"))
        world.networks["tune"] = self.tune
        self.boots = world.save(
            Offer(id=0, name="Boots", network=self.tune.id, url="https://boots.example/?aff_sub={click_id}")
        )
        world.reload()

    def examine(self, network: int | None = None, period: Period | None = None) -> dict[str, Any]:
        asked = period or Period(None, None)
        found: dict[str, Any] = self.world.run(
            examine_unmatched(self.world.store, asked, mended, self.world.now_ms, network)
        )
        return found

    def group(self, reason: str, network: str = "TUNE") -> dict[str, Any]:
        group: dict[str, Any]
        (group,) = [g for g in self.examine()["groups"] if (g["reason"], g["network"]) == (reason, network)]
        return group

    def send(self, text: str | None, query: str = "") -> None:
        """A postback of the network with a preset, its text encoded as a sender would."""
        whole = query if text is None else f"{quote(text, safe='')}&{query}"
        self.world.send(whole if text is not None else "&" + whole, network="tune")

    def id(self, **more: Any) -> str:
        return self.world.id_of(self.world.click(**more))

    def preview(self, **asked: Any) -> Repairs:
        return self.world.run(list_repairs(self.world.store, {**ALL, **asked}))

    def repair(self, **asked: Any) -> Repairs:
        return self.world.run(repair(self.world.store, {**ALL, **asked}))


@pytest.fixture
def clinic(world: World) -> Clinic:
    return Clinic(world)


def urls(group: dict[str, Any]) -> list[str]:
    return [step["url"] for step in group["steps"] if "url" in step]


def commands(group: dict[str, Any]) -> list[str]:
    return [step["command"] for step in group["steps"] if "command" in step]


# --- what it says --------------------------------------------------------------------------------------------------


def test_counts_share_first_and_last_and_examples_are_told_for_each_network_and_reason(
    clinic: Clinic,
) -> None:
    for minute in range(10):
        clinic.world.now_ms = NOW_MS + minute * 60_000
        clinic.send("{aff_sub2}" if minute % 2 else clinic.id())
    clinic.world.send("{click_id}", network="add")
    document = clinic.examine()
    assert (document["postbacks"], document["not_counted"]) == (11, 6)
    group = clinic.group("macro_literal")
    assert (group["count"], group["share"], group["verdict"]) == (5, 0.5, "unmatched")
    assert group["first"] < group["last"] == "2025-06-15T15:15:40.000Z"
    assert len(group["examples"]) == 3
    assert group["examples"][0]["click_id"] == "{aff_sub2}"
    assert group["arrived_as"] == {"{aff_sub2}": 5}
    assert [g["network"] for g in document["groups"]] == ["TUNE", "add"]
    only = clinic.examine(network=clinic.tune.id)
    assert (only["postbacks"], only["not_counted"]) == (10, 5)
    late = clinic.examine(period=Period(NOW_MS + 9 * 60_000, None))
    assert (late["postbacks"], late["not_counted"]) == (2, 2)
    assert "TUNE: 5 unmatched (macro_literal), 50.0% of its postbacks" in format_unmatched(document)


def test_a_literal_macro_is_the_networks_and_the_url_with_its_own_macro_is_written_out(
    clinic: Clinic,
) -> None:
    clinic.send("[SUBID]")
    group = clinic.group("macro_literal")
    assert group["hop"] == "network"
    assert "[SUBID]" in group["why"]
    assert "{aff_sub}" in group["why"]
    assert urls(group) == [mended(clinic.tune)]


def test_an_unfilled_macro_in_the_currency_is_called_one(clinic: Clinic) -> None:
    for sent in ("{currency}", "EURO"):
        clinic.world.send(clinic.id(), f"value=5&currency={sent}", network="add")
    said = " ".join(step["do"] for step in clinic.group("currency_unknown", "add")["steps"])
    assert "did not fill the macro {currency}: write its own spelling of it" in said
    assert "It sent 'EURO'. If its values are in" in said


def test_an_offer_that_does_not_pass_the_id_is_ours_to_mend_with_one_command(clinic: Clinic) -> None:
    clinic.world.save(Offer(id=0, name="Hat's", network=clinic.tune.id, url="https://hats.example/x#top"))
    clinic.send("")
    group = clinic.group("click_id_empty")
    assert group["hop"] == "us"
    assert (
        """postbackd offer set 'Hat'"'"'s' --url 'https://hats.example/x?affsub={click_id}#top'"""
        in commands(group)
    )


def test_genuine_ids_are_told_apart_purged_not_yet_seen_and_forged(clinic: Clinic) -> None:
    world = clinic.world
    campaign = world.campaign.id
    old, missing = world.make_click(age_s=40 * 86_400), world.make_click(age_s=86_400)
    stored = world.click(age_s=3600)
    world.run(world.store.purge(NOW_MS - 30 * 86_400_000, 100))
    clinic.send(world.id_of(old))
    clinic.send(world.id_of(missing))
    genuine = world.id_of(stored)
    clinic.send(genuine[:-1] + ("0" if genuine[-1] != "0" else "1"))
    never = world.rulebook.keys.write(stored.stamp + (5000 << 22), campaign)
    clinic.send(never[:-1] + ("0" if never[-1] != "0" else "1"))
    purged, unseen, altered = (
        clinic.group(reason) for reason in ("click_purged", "click_not_yet_seen", "click_id_altered")
    )
    assert "deleted by age" in purged["why"]
    assert commands(purged) == ["POSTBACKD_KEEP_CLICKS_DAYS=41 postbackd serve"]
    assert "never had their clicks" in unseen["why"]
    assert {group["hop"] for group in (purged, unseen)} == {"us"}
    assert altered["kinds"] == {"tail_changed": 1, "no_click": 1}
    assert "forged" in altered["why"]
    assert clinic.preview().count == 0


def test_a_window_that_is_too_short_names_the_offer_and_how_long_it_must_be(clinic: Clinic) -> None:
    clinic.send(clinic.id(age_s=33 * 86_400))
    group = clinic.group("click_after_window")
    assert (group["verdict"], group["hop"]) == ("rejected", "us")
    assert commands(group) == [
        "postbackd offer set shoes --window-max 34d",
        "postbackd replay --network TUNE --reason click_after_window",
    ]


def test_a_removed_networks_postbacks_are_told_and_not_offered(clinic: Clinic) -> None:
    clinic.send(clinic.id() + "_x")
    clinic.world.remove(clinic.boots)
    clinic.world.remove(clinic.tune)
    group = clinic.group("click_id_altered")
    assert group["removed"]
    assert commands(group) == []
    assert clinic.preview().count == 0


# --- what it repairs -----------------------------------------------------------------------------------------------


def test_a_safe_repair_is_shown_with_its_click_and_counts_once(clinic: Clinic) -> None:
    world = clinic.world
    ids = [clinic.id() for _ in range(4)]
    clinic.send(f"pre_{ids[0]}")
    clinic.send(quote(quote(quote(quote(quote(f" {ids[1]}"))))))
    clinic.send("junk-of-theirs", f"txid={quote(quote(ids[2] + ' ', safe=''), safe='')}")
    clinic.send(f"{ids[3].upper()}?utm=1")
    group = clinic.group("click_id_altered")
    assert group["repairable"]["count"] == group["count"]
    assert commands(group)[-1] == "postbackd unmatched repair --network TUNE --reason click_id_altered"
    preview = clinic.preview()
    assert [one["click_id"] for one in preview.found] == ids
    assert [one["would_be"] for one in preview.found] == ["accepted"] * 4
    assert {one["damage"] for one in preview.found} == {
        "other text in front of it or behind it", "encoded more often than once", "sent in another field",
    }  # fmt: skip
    assert preview.found[0]["received"] == f"pre_{ids[0]}"
    assert preview.found[0]["click"]["campaign"] == "c"
    assert len(format_repairs(preview.found)) == 12
    assert world.query("conversions_by_all") == []

    assert clinic.repair().count == 4
    assert sum(row["count"] for row in world.query("conversions_by_all")) == 4
    assert clinic.repair().count == clinic.preview().count == 0
    row = world.query("postback", request_id=read_stamp(preview.found[0]["request"]))[0]
    assert (row["verdict"], row["first_verdict"], row["click_text"]) == (1, 5, f"pre_{ids[0]}")


def test_two_repairs_at_once_count_once(clinic: Clinic, kind: Kind, tmp_path: Path) -> None:
    world = clinic.world
    for _ in range(30):
        clinic.send(f"{clinic.id()}_x", "payout=2")

    async def both() -> list[Repairs]:
        others = [await kind.open(world.directory) for _ in range(2)]
        try:
            return await asyncio.gather(*(repair(other, ALL) for other in others))
        finally:
            for other in others:
                await other.close()

    world.run(both())
    (counted,) = world.query("conversions_by_all")
    assert (counted["count"], counted["units"]) == (30, 60)
    assert clinic.preview().count == 0


def test_what_could_be_another_click_is_never_offered(clinic: Clinic) -> None:
    world = clinic.world
    one, two = clinic.id(), clinic.id()
    world.click(own_id="Order-7f3a9b21c4d8e6f0")
    world.click(own_id="order-7f3a9b21c4d8e6f0")
    world.click(own_id="shorty")
    for text in (
        f"{one},{two}",  # two genuine ids: a choice
        one[:-1],  # cut: 32 ids begin so
        one[:25] + "!",
        "ORDER-7F3A9B21C4D8E6F0",  # two stored ids differ in case alone
        "SHORTY",  # too short for case to say anything
        "abc",
        "5f2b9c1e-aaaa-bbbb-cccc-0123456789ab",
    ):
        clinic.send(text)
    clinic.send(f"{one}_x", f"txid=_{two}_")
    assert clinic.examine()["not_counted"] >= 8
    assert clinic.preview().count == 0
    assert clinic.repair().count == 0
    assert world.query("conversions_by_all") == []


def test_a_callers_own_id_is_repaired_when_it_is_stored_once(clinic: Clinic) -> None:
    for own_id in ("order-7f3a9b21c4d8e6f0", "basket 12/b"):
        clinic.world.click(own_id=own_id)
    clinic.send("ORDER-7F3A9B21C4D8E6F0")
    clinic.send(quote(quote("basket 12/b", safe=""), safe=""))
    preview = clinic.preview()
    assert {one["click_id"] for one in preview.found} == {"order-7f3a9b21c4d8e6f0", "basket 12/b"}
    assert clinic.repair().count == 2
    assert sum(row["count"] for row in clinic.world.query("conversions_by_all")) == 2


def test_what_was_refused_for_its_sender_is_not_offered_and_what_new_settings_count_is(
    clinic: Clinic,
) -> None:
    world = clinic.world
    strict = world.save(Network(id=0, name="strict", key="key-strict", types=("sale",), preset="tune"))
    world.networks["strict"] = strict
    world.reload()
    world.send(clinic.id(), "event=lead", network="strict")
    group = clinic.group("type_not_allowed", "strict")
    assert commands(group)[0] == "postbackd network set strict --type sale --type lead"
    assert clinic.preview().count == 0
    world.save(Network(id=strict.id, name="strict", key="key-strict", preset="tune"))
    world.reload()
    (one,) = clinic.preview().found
    assert (one["damage"], one["would_be"]) == ("counted by today's settings", "accepted")


def test_a_walk_is_cut_into_steps_that_go_on_where_the_last_one_ended(clinic: Clinic) -> None:
    for _ in range(5):
        clinic.send(f"{clinic.id()}_x")
    found: list[str] = []
    after, steps = -1, 0
    while True:
        part = clinic.world.run(list_repairs(clinic.world.store, {**ALL, "after": after}, most=2))
        found += [one["request"] for one in part.found]
        steps += 1
        if part.next is None:
            break
        stamp = read_stamp(part.next)
        assert stamp is not None
        after = stamp
    assert (len(set(found)), steps) == (5, 3)
    assert write_stamp(after) == found[-2]


# --- lost ids ------------------------------------------------------------------------------------------------------


def test_ids_that_are_lost_with_age_are_read_from_the_rows_and_said_in_a_sentence(world: World) -> None:
    now = NOW_MS + 10 * 86_400_000
    lossy = world.save(
        Offer(
            id=0, name="lossy", network=world.networks["ignore"].id, url="https://shop2.example/?s={click_id}"
        )
    )
    world.reload()
    clicks: list[Click] = []
    postbacks = []
    base = first_stamp_at(NOW_MS - 86_400_000)
    for index in range(400):
        stamp = base + index * 4096
        lost = index % 2 == 1
        clicks.append(Click(stamp, world.campaign.id, lossy.id if lost else world.offer.id, 0))
        minutes = 1 + (index // 2) % 29 if lost or index % 4 else 31 + index % 40
        request = world.make(world.rulebook.keys.write(stamp, world.campaign.id), f"txid={index}")
        moved = stamp + (minutes * 60_000 << 22) + 1
        postbacks.append(
            type(request)(
                **{
                    **{name: getattr(request, name) for name in request.__struct_fields__},
                    "request": type(request.request)(moved, request.request.network, 1, 10, NOW_MS),
                }
            )
        )
    world.run(world.store.write(Batch(clicks, postbacks), Rulebook(world.run(world.store.load_catalog()))))
    document = world.run(find_lost_ids(world.store, Period(None, None), now))
    assert [(one["host"], one["age_ms"]) for one in document["found"]] == [("shop2.example", 1_800_000)]
    assert "within the first 30 minutes and never later" in document["found"][0]["sentence"]
    assert {host["host"]: host["converted"] for host in document["hosts"]} == {
        "shop.example": 200, "shop2.example": 200,
    }  # fmt: skip
    world.now_ms = now
    assert world.run(RollupKeeper(world.store, UTC, lambda: world.now_ms).catch_up())
    world.run(
        world.kind.execute(world.store, "DELETE FROM clicks WHERE kind = 0")
    )  # now only the roll-ups know them
    assert world.run(find_lost_ids(world.store, Period(None, None), now))["hosts"] == document["hosts"]
