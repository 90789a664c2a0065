"""How evenly the buckets spread: clicks over buckets, buckets over the shards of a Citus cluster, shards over workers.

Citus hashes the distribution column with PostgreSQL's own hash of its type and cuts the 32 bits into as many even
ranges as there are shards; shard number n goes to worker n modulo their number, and its rebalancer evens out by size.
All of that is calculated here; no cluster is asked.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from postbackd.core.buckets import BUCKETS, bucket_of_stamp
from postbackd.core.click_id import StampMint

_MASK = 0xFFFF_FFFF
_SEED = 0x9E37_79B9 + 4 + 3_923_095
"""PostgreSQL begins with Jenkins' constant, the length of what is hashed, and a constant of its own."""

_MIXING = ((2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16), (0, 2, 4), (1, 0, 14), (2, 1, 24))
"""The last rounds of Bob Jenkins' hash (lookup3): (changed, by which, rotated by) of three words."""


def hash_of_smallint(number: int) -> int:
    """What ``hashint2`` of PostgreSQL returns for a number that is not negative, as 32 bits without a sign."""
    words = [(_SEED + number) & _MASK, _SEED, _SEED]
    for changed, by, bits in _MIXING:
        other = words[by]
        rotated = (other << bits | other >> (32 - bits)) & _MASK
        words[changed] = ((words[changed] ^ other) - rotated) & _MASK
    return words[2]


@cache
def shards_of_buckets(shards: int) -> tuple[int, ...]:
    """Bucket -> shard, of that many."""
    width = (1 << 32) // shards
    # The ranges count from the smallest signed number; the last one takes what the division leaves.
    return tuple(
        min((hash_of_smallint(bucket) + (1 << 31) & _MASK) // width, shards - 1) for bucket in range(BUCKETS)
    )


def buckets_in_shards(shards: int) -> list[int]:
    """How many of the buckets each shard holds."""
    held = Counter(shards_of_buckets(shards))
    return [held[shard] for shard in range(shards)]


def place_in_turn(loads: Sequence[int], workers: int) -> list[int]:
    """The load of each worker when the shards are dealt out in turn, as they are when a table is distributed."""
    return [sum(loads[worker::workers]) for worker in range(workers)]


def place_by_size(loads: Sequence[int], workers: int) -> list[int]:
    """The same when each shard, the largest first, goes where there is least: what rebalancing by size is after."""
    held = [0] * workers
    for load in sorted(loads, reverse=True):
        held[held.index(min(held))] += load
    return held


def skew(loads: Sequence[int]) -> float:
    """The heaviest, in units of the mean."""
    return max(loads) * len(loads) / sum(loads)


# --- clicks over buckets -------------------------------------------------------------------------------------------

_BEGIN_MS = 1_798_761_600_000  # 2027-01-01

_NODES = 3
"""Ingest processes that share the clicks; each has a mint of its own."""

_CLICKS = 200_000


def _evenly(chance: random.Random, a_second: float) -> Iterator[float]:
    """Milliseconds of clicks that come independently of each other."""
    ms = 0.0
    while True:
        ms += chance.expovariate(a_second / 1000)
        yield ms


def _in_bursts(chance: random.Random, every_s: int, size: int, length_ms: int) -> Iterator[float]:
    """Milliseconds of clicks that all come right after each full second, minute or hour."""
    begin = 0
    while True:
        yield from sorted(begin + chance.random() * length_ms for _click in range(size))
        begin += every_s * 1000


ARRIVALS: dict[str, Callable[[random.Random], Iterator[float]]] = {
    "20 a second": lambda chance: _evenly(chance, 20),
    "12,000 a second": lambda chance: _evenly(chance, 12_000),
    "1,000 in the first 5 ms of each second": lambda chance: _in_bursts(chance, 1, 1000, 5),
    "2,000 in the first 50 ms of each minute": lambda chance: _in_bursts(chance, 60, 2000, 50),
    "20,000 in the first 50 ms of each hour": lambda chance: _in_bursts(chance, 3600, 20_000, 50),
    "one in the first ms of each hour, no others": lambda chance: _in_bursts(chance, 3600, 1, 1),
}
"""How clicks come in -> when, in milliseconds."""


def bucket_loads(arrivals: str, random_seed: int) -> list[int]:
    """How many clicks each bucket gets, minted as a server mints them."""
    chance = random.Random(random_seed)
    mints = [StampMint(node) for node in range(_NODES)]
    loads = [0] * BUCKETS
    for _number, ms in zip(range(_CLICKS), ARRIVALS[arrivals](chance), strict=False):
        stamp = chance.choice(mints).mint(_BEGIN_MS + int(ms))
        loads[bucket_of_stamp(stamp)] += 1
    return loads


def shard_loads(loads: Sequence[int], shards: int) -> list[int]:
    """The load of each shard from the loads of the buckets."""
    held = [0] * shards
    for shard, load in zip(shards_of_buckets(shards), loads, strict=True):
        held[shard] += load
    return held
