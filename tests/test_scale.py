"""The plan beyond one machine: its page holds what its program says, and its model of a cluster is PostgreSQL's."""

from __future__ import annotations

import pytest

from bench import scale
from bench.shards import (
    buckets_in_shards,
    hash_of_smallint,
    place_by_size,
    place_in_turn,
    shards_of_buckets,
    skew,
)
from postbackd.core.buckets import BUCKETS

PAGE = scale.PAGE.read_text()


def test_the_page_holds_the_tables_of_its_own_figures() -> None:
    tables = scale.write_tables(scale.read_costs(PAGE))
    assert scale.replace_block(PAGE, "tables", tables) == PAGE, "run: python -m bench.scale --write"


def test_the_figures_of_the_page_are_those_that_are_used() -> None:
    figures = scale.read_costs(PAGE)
    assert tuple(figures) == scale.FIGURES
    assert scale.replace_block(PAGE, "costs", scale.write_costs(figures)) == PAGE


def test_a_bucket_is_hashed_as_postgresql_does() -> None:
    # SELECT hashint2(n::smallint) FROM unnest(ARRAY[0, 1, 2, 6, 1023]) AS n
    signed = {0: -272711505, 1: -1905060026, 2: 1134484726, 6: 566031088, 1023: 2057227538}
    for bucket, expected in signed.items():
        assert hash_of_smallint(bucket) == expected % (1 << 32)


@pytest.mark.parametrize("shards", [1, 3, 32, 128])
def test_every_bucket_lies_in_one_shard(shards: int) -> None:
    assert len(shards_of_buckets(shards)) == BUCKETS == sum(buckets_in_shards(shards))
    assert set(shards_of_buckets(shards)) <= set(range(shards))


def test_placing_shards_loses_none_and_by_size_is_never_worse() -> None:
    held = buckets_in_shards(64)
    in_turn, by_size = place_in_turn(held, 7), place_by_size(held, 7)
    assert sum(in_turn) == sum(by_size) == BUCKETS
    assert skew(by_size) <= skew(in_turn)


def test_a_transaction_costs_what_two_sizes_of_batches_say() -> None:
    figures = dict.fromkeys(scale.FIGURES, 0.0) | {
        "postgres_conversion_64_node_cpu_us": 50.0,
        "postgres_conversion_64_transactions": 0.02,
        "postgres_conversion_512_node_cpu_us": 41.0,
        "postgres_conversion_512_transactions": 0.002,
    }
    node = scale.derive(figures).node
    assert (node.row_us, node.transaction_us) == pytest.approx((40, 500))


def test_a_page_image_is_logged_once_a_page_and_checkpoint() -> None:
    sparse = scale.image_bytes_at_random(stored=10**9, added=1000)
    dense = scale.image_bytes_at_random(stored=1000, added=10**6)
    assert sparse == pytest.approx(0.9 * 8192, rel=0.001)
    assert dense < 0.1
    often, seldom = (scale.images_a_conversion(scale.Assumed(checkpoint_s=s)) for s in (60, 3600))
    assert seldom < often < 1


def test_too_many_workers_for_the_time_that_is_gathered_is_refused() -> None:
    costs = scale.derive(scale.read_costs(PAGE))
    with pytest.raises(ValueError, match="gather longer"):
        scale.plan(costs, scale.Assumed(gather_s=0.001), 10**10)
