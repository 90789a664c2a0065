"""The catalog in the database: what is saved, refused, removed and kept."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

import apsw
import pytest

from postbackd.core.click_id import EPOCH_MS, KeyRing, first_stamp_at
from postbackd.core.model import Campaign, CatalogEntry, Network, Offer, Source, WeightedOffer
from postbackd.store import catalog
from postbackd.store.base import CatalogConflict

NETWORK = Network(id=0, name="TUNE", key="k" * 26, fields={"click_id": ("aff_sub", "sub1")}, types=("sale",))
SOURCE = Source(id=0, name="Propeller", preset="propellerads", fields={"sub1": ("sub1", "zone_id")})


@pytest.fixture
def db() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    connection.execute("PRAGMA foreign_keys = ON")
    schema = files("postbackd.store").joinpath("migrations/0001_first.sql").read_text()
    connection.execute(schema)
    catalog.initialise(connection, signing_secret=b"s" * 32, privacy_key=b"p" * 32)
    yield connection
    connection.close()


def fill(db: apsw.Connection) -> tuple[Network, Source, Offer, Campaign]:
    network = catalog.save_entry(db, NETWORK)
    source = catalog.save_entry(db, SOURCE)
    offer = catalog.save_entry(db, Offer(id=0, name="Shop", network=network.id, url="https://shop.example/"))
    campaign = catalog.save_entry(
        db, Campaign(id=0, name="Main", slug="main", source=source.id, offers=(WeightedOffer(offer.id, 3),))
    )
    return network, source, offer, campaign


def test_what_was_saved_is_loaded_again(db: apsw.Connection) -> None:
    network, source, offer, campaign = fill(db)
    loaded = catalog.load_catalog(db, node=7)
    assert (loaded.networks, loaded.sources) == ((network,), (source,))
    assert (loaded.offers, loaded.campaigns) == ((offer,), (campaign,))
    assert (loaded.node, loaded.privacy_key, loaded.signing_keys[0].secret) == (7, b"p" * 32, b"s" * 32)
    assert loaded.signing_keys[0].active_from_ms == 0


def test_every_change_raises_the_generation_and_a_refused_one_does_not(db: apsw.Connection) -> None:
    before = catalog.generation(db)
    catalog.save_entry(db, NETWORK)
    assert catalog.generation(db) == before + 1
    with pytest.raises(CatalogConflict):
        catalog.save_entry(db, NETWORK)
    assert catalog.generation(db) == before + 1


def test_first_keys_are_given_once(db: apsw.Connection) -> None:
    before = catalog.generation(db)
    catalog.initialise(db, signing_secret=b"x" * 32, privacy_key=b"y" * 32)
    loaded = catalog.load_catalog(db)
    assert (loaded.privacy_key, loaded.signing_keys[0].secret, loaded.generation) == (
        b"p" * 32,
        b"s" * 32,
        before,
    )


def test_a_taken_name_key_or_slug_is_refused_with_the_next_step(db: apsw.Connection) -> None:
    network, source, offer, campaign = fill(db)
    refused: list[tuple[CatalogEntry, str]] = [
        (NETWORK, "of this name exists already"),
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
            catalog.save_entry(db, entry)


def test_what_is_still_referred_to_is_not_removed(db: apsw.Connection) -> None:
    network, source, offer, campaign = fill(db)
    held: list[tuple[CatalogEntry, str]] = [
        (network, "offer 'Shop'"),
        (source, "campaign 'Main'"),
        (offer, "campaign 'Main'"),
    ]
    for entry, holder in held:
        with pytest.raises(CatalogConflict, match=holder):
            catalog.remove_entry(db, entry, 1)
    for entry in (campaign, offer, source, network):
        catalog.remove_entry(db, entry, 1)
    loaded = catalog.load_catalog(db)
    assert (loaded.networks, loaded.sources, loaded.offers, loaded.campaigns) == ((), (), (), ())


def test_a_removed_entry_keeps_its_row_and_a_new_one_may_take_its_name(db: apsw.Connection) -> None:
    *_, campaign = fill(db)
    catalog.remove_entry(db, campaign, 1)
    assert catalog.load_catalog(db, removed=True).campaigns == (campaign,)
    again = Campaign(id=0, name="Main", slug="main-2", source=campaign.source, offers=campaign.offers)
    assert catalog.save_entry(db, again).id == campaign.id + 1
    with pytest.raises(CatalogConflict, match="removed campaign 'Main'"):
        catalog.save_entry(db, Campaign(id=0, name="New", slug="main", source=1, offers=campaign.offers))


def test_a_removed_entry_is_neither_changed_nor_removed_again(db: apsw.Connection) -> None:
    *_, campaign = fill(db)
    catalog.remove_entry(db, campaign, 1)
    with pytest.raises(CatalogConflict, match="nothing is left to remove"):
        catalog.remove_entry(db, campaign, 2)
    with pytest.raises(CatalogConflict, match="removed meanwhile"):
        catalog.save_entry(db, campaign)


def test_references_to_nothing_and_to_removed_entries_are_refused(db: apsw.Connection) -> None:
    network, source, offer, campaign = fill(db)
    for entry in (campaign, offer, network):
        catalog.remove_entry(db, entry, 1)
    with pytest.raises(CatalogConflict, match="names a network that does not exist"):
        catalog.save_entry(db, Offer(id=0, name="New", network=network.id, url="https://x.example/"))
    with pytest.raises(CatalogConflict, match="names an offer that does not exist"):
        catalog.save_entry(
            db, Campaign(id=0, name="New", slug="new", source=source.id, offers=(WeightedOffer(99),))
        )


def test_campaign_ids_end_where_a_click_id_cannot_name_them(db: apsw.Connection) -> None:
    *_, campaign = fill(db)
    db.execute("UPDATE campaigns SET id = 16777215")
    with pytest.raises(CatalogConflict, match="16,777,215"):
        catalog.save_entry(
            db, Campaign(id=0, name="New", slug="new", source=campaign.source, offers=campaign.offers)
        )


def test_many_changes_refer_to_each_other_and_happen_together_or_not_at_all(db: apsw.Connection) -> None:
    campaign = Campaign(
        id=-1, name="C", slug="c", source=-1, offers=(WeightedOffer(-1), WeightedOffer(-2, 5))
    )
    offers = [Offer(id=-n, name=f"O{n}", network=-1, url="https://x.example/") for n in (1, 2)]
    new: list[CatalogEntry] = [campaign, *offers, Network(id=-1, name="N", key="n"), Source(id=-1, name="S")]
    saved = catalog.change_catalog(db, new, (), 1)
    loaded = catalog.load_catalog(db)
    assert saved == (*loaded.campaigns, *loaded.offers, *loaded.networks, *loaded.sources)
    assert loaded.campaigns[0].offers == (
        WeightedOffer(loaded.offers[0].id, 1),
        WeightedOffer(loaded.offers[1].id, 5),
    )
    with pytest.raises(CatalogConflict):
        catalog.change_catalog(db, [Source(id=-1, name="T")], [loaded.networks[0]], 1)
    assert catalog.load_catalog(db) == loaded
    catalog.change_catalog(db, (), [*loaded.networks, *loaded.offers, *loaded.campaigns, *loaded.sources], 1)
    assert not catalog.load_catalog(db).networks


def test_only_the_newest_signing_keys_go_on_verifying(db: apsw.Connection) -> None:
    catalog.rotate_signing_key(db, b"2" * 32, now_ms=500, active_from_ms=1000, keep=3)
    keys = catalog.rotate_signing_key(db, b"3" * 32, now_ms=1500, active_from_ms=2000, keep=2)
    assert [(key.active_from_ms, key.retired, key.secret) for key in keys] == [
        (0, True, b""),
        (1000, False, b"2" * 32),
        (2000, False, b"3" * 32),
    ]


def test_a_key_that_still_signs_is_never_retired(db: apsw.Connection) -> None:
    catalog.rotate_signing_key(db, b"2" * 32, now_ms=500, active_from_ms=1000, keep=2)
    with pytest.raises(CatalogConflict, match="about to take over"):
        catalog.rotate_signing_key(db, b"3" * 32, now_ms=999, active_from_ms=1500, keep=2)
    with pytest.raises(ValueError, match="two keys at least"):
        catalog.rotate_signing_key(db, b"3" * 32, now_ms=1000, active_from_ms=1500, keep=1)
    ring = KeyRing(catalog.load_signing_keys(db))
    stamp = first_stamp_at(EPOCH_MS + 1)
    assert ring.verify(ring.write(stamp, 1)) == (stamp, 1)
