"""``postbackd unmatched`` as a user runs it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from postbackd.core.click_id import StampMint
from postbackd.core.model import Channel, Click, Request
from postbackd.core.rulebook import Rulebook
from postbackd.core.rules import judge
from postbackd.runtime import open_store
from postbackd.settings import Settings
from postbackd.store.base import Batch
from tests.cli.conftest import Run


async def _plant(data: Path, now_ms: int) -> list[str]:
    """Clicks, and postbacks that bring their ids damaged: two that can be repaired, one that cannot."""
    store = await open_store(Settings(data=str(data)), create=False)
    try:
        catalog = await store.load_catalog()
        rulebook, mint = Rulebook(catalog), StampMint(0)
        network, campaign = catalog.networks[0], catalog.campaigns[0]
        clicks = [
            Click(mint.mint(now_ms - 60_000), campaign.id, campaign.offers[0].offer, 0) for _ in range(3)
        ]
        ids = [rulebook.keys.write(click.stamp, click.campaign) for click in clicks]
        rules = rulebook.networks[network.id]
        postbacks = [
            judge(
                rules.field_map.read_query(f"cid={text}&payout=1.5"),
                rules,
                rulebook.keys,
                rulebook.masker,
                Request(mint.mint(now_ms), network.id, Channel.S2S, 40, now_ms),
            )
            for text in (f"a_{ids[0]}", f"{ids[1]}_b", ids[2][:20], "[SUB]")
        ]
        await store.write(Batch(clicks, postbacks), rulebook)
        return ids
    finally:
        await store.close()


@pytest.fixture
def ids(filled: Run, data: Path) -> list[str]:
    return asyncio.run(_plant(data, time.time_ns() // 1_000_000))


def test_the_doctor_names_hop_url_and_commands_and_a_repair_is_shown_before_it_is_made(
    filled: Run, ids: list[str]
) -> None:
    key = filled("network", "show", "TUNE", "--json").json["key"]
    told = filled("unmatched").out
    assert "4 of 4 postbacks were not counted" in told
    assert "broken    network: Every id ends after 20 of 26 characters" in told
    assert f"/p/{key}?click_id={{aff_sub}}&value={{payout}}" in told
    assert "postbackd unmatched repair --network TUNE --reason click_id_altered" in told
    groups = filled("unmatched", "--network", "TUNE", "--json").json["groups"]
    assert {group["reason"]: group["count"] for group in groups} == {
        "click_id_altered": 2, "click_id_truncated": 1, "macro_literal": 1,
    }  # fmt: skip

    asked = ("unmatched", "repair", "--network", "TUNE", "--reason", "click_id_altered")
    preview = filled(*asked)
    assert f"is {ids[0]}" in preview.out
    assert "2 of 2 postbacks can be repaired" in preview.out
    assert filled("report", "--json").json["conversions"]["count"] == 0
    done = filled(*asked, "--yes", "--json").json
    assert (done["count"], done["done"]) == (2, True)
    assert filled("report", "--json").json["conversions"]["value"] == {"USD": {"approved": "3.00"}}
    assert "0 of 0 postbacks can be repaired" in filled(*asked).out
    assert filled("why", ids[0], "--json").json["events"][-1]["first_reason"] == "click_id_altered"


def test_nothing_to_repair_and_wrong_input_are_said(filled: Run) -> None:
    assert "all of 0 postbacks were counted" in filled("unmatched").out
    assert filled("unmatched", "--json").json["lost_ids"]["found"] == []
    assert "no network" in filled("unmatched", "--network", "Nobody", code=1).err
    assert "--after" in filled("unmatched", "repair", "--after", "x", code=2).err
    assert "--since" in filled("unmatched", "--since", "7d", "repair", code=2).err
    assert "signature_invalid" in filled("unmatched", "repair", "--reason", "signature_invalid", code=2).err
