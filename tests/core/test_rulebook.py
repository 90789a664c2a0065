"""The catalog as postbacks are judged by it."""

from __future__ import annotations

from msgspec.structs import replace

from postbackd.core.diagnosis import Reason
from postbackd.core.model import Catalog, Dedup, Network, Offer
from postbackd.core.rulebook import Rulebook
from tests.core.desk import CAMPAIGN, CLICK, CLICK_ID, SIGNING_KEYS, judge_query, network

CATALOG = Catalog(
    generation=3,
    networks=(
        Network(id=1, name="a", key="ka", dedup="update", types=("sale",)),
        Network(id=2, name="b", key="kb", dedup="hold"),
    ),
    offers=(Offer(id=5, name="o", network=1, url="https://shop.example/"),),
    signing_keys=SIGNING_KEYS,
    privacy_key=b"p" * 32,
)


def test_networks_offers_and_dedup_modes_are_found_by_id() -> None:
    book = Rulebook(CATALOG)
    assert book.dedup == {1: Dedup.UPDATE, 2: Dedup.HOLD}
    assert book.offers[5].name == "o"
    assert set(book.networks) == {1, 2}
    assert book.keys.verify(CLICK_ID) == (CLICK, CAMPAIGN)


def test_a_stored_postback_is_judged_by_todays_settings_and_keeps_its_request() -> None:
    original = judge_query(f"cid={CLICK_ID}&type=lead&value=5&txid=T1", network(types=("other",)))
    assert original.reason == Reason.TYPE_NOT_ALLOWED
    again = Rulebook(CATALOG).judge_again(original)
    assert again is not None
    assert again.reason == Reason.TYPE_NOT_ALLOWED
    relaxed = replace(CATALOG, networks=(replace(CATALOG.networks[0], types=("lead",)),))
    freed = Rulebook(relaxed).judge_again(original)
    assert freed is not None
    assert (freed.verdict, freed.replay, freed.request) == (0, True, original.request)
    assert (freed.click.click_id, freed.transaction_id, freed.terms.value_micros) == (CLICK, "T1", 5_000_000)


def test_a_postback_of_a_removed_network_is_left_as_it_is() -> None:
    empty = replace(CATALOG, networks=())
    assert Rulebook(empty).judge_again(judge_query(f"cid={CLICK_ID}")) is None
