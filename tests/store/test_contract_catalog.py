"""The catalog in the database: what is saved, refused, removed and kept, by every store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace

from postbackd.core.click_id import EPOCH_MS, KeyRing, first_stamp_at
from postbackd.core.model import (
    Campaign,
    Catalog,
    CatalogEntry,
    Network,
    Offer,
    SigningKey,
    Source,
    WeightedOffer,
)
from postbackd.store.base import CatalogConflict, CatalogMoved
from tests.store.contract import Kind

T = TypeVar("T")
E = TypeVar("E", Network, Source, Offer, Campaign)

NETWORK = Network(id=0, name="TUNE", key="k" * 26, fields={"click_id": ("aff_sub", "sub1")}, types=("sale",))
SOURCE = Source(id=0, name="Propeller", preset="propellerads", fields={"sub1": ("sub1", "zone_id")})


class Desk:
    """A store with an empty catalog."""

    def __init__(self, kind: Kind, directory: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._kind, self._directory = kind, directory
        self.store = self._run(kind.open(directory))

    def _run(self, verb: Awaitable[T]) -> T:
        return self._loop.run_until_complete(verb)

    def save(self, entry: E) -> E:
        (saved,) = self.change([entry])
        assert type(saved) is type(entry)
        return saved

    def remove(self, entry: CatalogEntry, removed_ms: int = 1) -> None:
        self.change((), [entry], removed_ms)

    def change(
        self,
        saves: Sequence[CatalogEntry],
        removals: Sequence[CatalogEntry] = (),
        removed_ms: int = 1,
        if_generation: int | None = None,
    ) -> Sequence[CatalogEntry]:
        return self._run(self.store.change_catalog(saves, removals, removed_ms, if_generation=if_generation))

    def load(self, *, removed: bool = False) -> Catalog:
        return self._run(self.store.load_catalog(removed=removed))

    def generation(self) -> int:
        return self._run(self.store.catalog_generation())

    def rotate(self, secret: bytes, now_ms: int, active_from_ms: int, keep: int) -> Sequence[SigningKey]:
        return self._run(
            self.store.rotate_signing_key(secret, now_ms=now_ms, active_from_ms=active_from_ms, keep=keep)
        )

    def use_up_campaign_ids(self) -> None:
        self._run(self._kind.execute(self.store, self._kind.use_up_campaign_ids))

    def reopen(self) -> None:
        self._run(self.store.close())
        self.store = self._run(self._kind.open(self._directory))

    def close(self) -> None:
        self._run(self.store.close())
        self._loop.close()


@pytest.fixture
def desk(kind: Kind, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(kind, tmp_path / "data")
    yield made
    made.close()


def fill(desk: Desk) -> tuple[Network, Source, Offer, Campaign]:
    network = desk.save(NETWORK)
    source = desk.save(SOURCE)
    offer = desk.save(Offer(id=0, name="Shop", network=network.id, url="https://shop.example/"))
    campaign = desk.save(
        Campaign(id=0, name="Main", slug="main", source=source.id, offers=(WeightedOffer(offer.id, 3),))
    )
    return network, source, offer, campaign


def test_what_was_saved_is_loaded_again(desk: Desk) -> None:
    network, source, offer, campaign = fill(desk)
    loaded = desk.load()
    assert (loaded.networks, loaded.sources) == ((network,), (source,))
    assert (loaded.offers, loaded.campaigns) == ((offer,), (campaign,))
    assert loaded.signing_keys[0].active_from_ms == 0


def test_every_change_raises_the_generation_and_a_refused_one_does_not(desk: Desk) -> None:
    before = desk.generation()
    desk.save(NETWORK)
    assert desk.generation() == before + 1
    with pytest.raises(CatalogConflict):
        desk.save(NETWORK)
    assert desk.generation() == before + 1


def test_a_change_of_a_catalog_that_has_moved_on_is_refused_whole(desk: Desk) -> None:
    seen = desk.generation()
    desk.change([NETWORK], if_generation=seen)
    with pytest.raises(CatalogMoved, match="look at it again"):
        desk.change([replace(NETWORK, name="another", key="another-key-of-16")], if_generation=seen)
    assert [network.name for network in desk.load().networks] == [NETWORK.name]
    assert desk.generation() == seen + 1


def test_first_keys_are_given_once(desk: Desk) -> None:
    before = desk.load()
    assert (len(before.privacy_key), [len(key.secret) for key in before.signing_keys]) == (32, [32])
    desk.reopen()
    assert desk.load() == before


def test_a_taken_name_key_or_slug_is_refused_with_the_next_step(desk: Desk) -> None:
    network, source, offer, campaign = fill(desk)
    refused: list[tuple[CatalogEntry, str]] = [
        (Network(id=0, name=network.name, key="another"), "of this name exists already"),
        (Network(id=0, name="Other", key=network.key), "endpoint key belongs to another network"),
        (Source(id=0, name=source.name), "of this name exists already"),
        (Offer(id=0, name=offer.name, network=network.id, url="https://x.example/"), "exists already"),
        (
            Campaign(id=0, name="Two", slug="main", source=source.id, offers=campaign.offers),
            "another with --slug",
        ),
        (Campaign(id=0, name="Main", slug="two", source=source.id, offers=campaign.offers), "exists already"),
        (Network(id=0, name="Third", key="3", dedup="never"), "dedup must be"),
    ]
    for entry, sentence in refused:
        with pytest.raises(CatalogConflict, match=sentence):
            desk.change([entry])


def test_what_is_still_referred_to_is_not_removed(desk: Desk) -> None:
    network, source, offer, campaign = fill(desk)
    held: list[tuple[CatalogEntry, str]] = [
        (network, "offer 'Shop'"),
        (source, "campaign 'Main'"),
        (offer, "campaign 'Main'"),
    ]
    for entry, holder in held:
        with pytest.raises(CatalogConflict, match=holder):
            desk.remove(entry, 1)
    for entry in (campaign, offer, source, network):
        desk.remove(entry, 1)
    loaded = desk.load()
    assert (loaded.networks, loaded.sources, loaded.offers, loaded.campaigns) == ((), (), (), ())


def test_a_removed_entry_keeps_its_row_and_a_new_one_may_take_its_name(desk: Desk) -> None:
    *_, campaign = fill(desk)
    desk.remove(campaign, 1)
    assert desk.load(removed=True).campaigns == (campaign,)
    again = Campaign(id=0, name="Main", slug="main-2", source=campaign.source, offers=campaign.offers)
    assert desk.save(again).id == campaign.id + 1
    with pytest.raises(CatalogConflict, match="removed campaign 'Main'"):
        desk.save(Campaign(id=0, name="New", slug="main", source=1, offers=campaign.offers))


def test_a_removed_entry_is_neither_changed_nor_removed_again(desk: Desk) -> None:
    *_, campaign = fill(desk)
    desk.remove(campaign, 1)
    with pytest.raises(CatalogConflict, match="nothing is left to remove"):
        desk.remove(campaign, 2)
    with pytest.raises(CatalogConflict, match="removed meanwhile"):
        desk.save(campaign)


def test_references_to_nothing_and_to_removed_entries_are_refused(desk: Desk) -> None:
    network, source, offer, campaign = fill(desk)
    for entry in (campaign, offer, network):
        desk.remove(entry, 1)
    with pytest.raises(CatalogConflict, match="names a network that does not exist"):
        desk.save(Offer(id=0, name="New", network=network.id, url="https://x.example/"))
    with pytest.raises(CatalogConflict, match="names an offer that does not exist"):
        desk.save(Campaign(id=0, name="New", slug="new", source=source.id, offers=(WeightedOffer(99),)))


def test_campaign_ids_end_where_a_click_id_cannot_name_them(desk: Desk) -> None:
    *_, campaign = fill(desk)
    desk.use_up_campaign_ids()
    with pytest.raises(CatalogConflict, match="16,777,215"):
        desk.save(Campaign(id=0, name="New", slug="new", source=campaign.source, offers=campaign.offers))


def test_many_changes_refer_to_each_other_and_happen_together_or_not_at_all(desk: Desk) -> None:
    campaign = Campaign(
        id=-1, name="C", slug="c", source=-1, offers=(WeightedOffer(-1), WeightedOffer(-2, 5))
    )
    offers = [Offer(id=-n, name=f"O{n}", network=-1, url="https://x.example/") for n in (1, 2)]
    new: list[CatalogEntry] = [campaign, *offers, Network(id=-1, name="N", key="n"), Source(id=-1, name="S")]
    saved = desk.change(new, (), 1)
    loaded = desk.load()
    assert saved == (*loaded.campaigns, *loaded.offers, *loaded.networks, *loaded.sources)
    assert loaded.campaigns[0].offers == (
        WeightedOffer(loaded.offers[0].id, 1),
        WeightedOffer(loaded.offers[1].id, 5),
    )
    with pytest.raises(CatalogConflict):
        desk.change([Source(id=-1, name="T")], [loaded.networks[0]], 1)
    assert desk.load() == loaded
    desk.change((), [*loaded.networks, *loaded.offers, *loaded.campaigns, *loaded.sources], 1)
    assert not desk.load().networks


def test_only_the_newest_signing_keys_go_on_verifying(desk: Desk) -> None:
    desk.rotate(b"2" * 32, 500, 1000, 3)
    keys = desk.rotate(b"3" * 32, 1500, 2000, 2)
    assert [(key.active_from_ms, key.retired, key.secret) for key in keys] == [
        (0, True, b""),
        (1000, False, b"2" * 32),
        (2000, False, b"3" * 32),
    ]


def test_a_key_that_still_signs_is_never_retired(desk: Desk) -> None:
    desk.rotate(b"2" * 32, 500, 1000, 2)
    with pytest.raises(CatalogConflict, match="about to take over"):
        desk.rotate(b"3" * 32, 999, 1500, 2)
    with pytest.raises(ValueError, match="two keys at least"):
        desk.rotate(b"3" * 32, 1000, 1500, 1)
    ring = KeyRing(desk.load().signing_keys)
    stamp = first_stamp_at(EPOCH_MS + 1)
    assert ring.verify(ring.write(stamp, 1)) == (stamp, 1)
