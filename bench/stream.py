"""Request lines, written to files before anything is timed.

A line is a request target, ``/p/…?click_id=…&value=12.50&currency=USD&txid=…`` or ``/c/…?…``.  No two postback lines of
one run have the same transaction id, whichever file they are in.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from bench.load import Segment
from bench.seed import CAMPAIGNS, NETWORK_KEY, RECENT_DAYS, Population, Seeded

MEAN_AGE_DAYS = 1.0
"""Of the exponential ages: half of the conversions follow their click within 17 hours."""


class Stream:
    """A file of request lines, given out in segments that do not overlap."""

    def __init__(self, file: Path, lines: int) -> None:
        self.file = file
        self._lines = lines
        self._next = 0

    def take(self, lines: int) -> Segment:
        """The next lines that nobody had yet.  Raises ``ValueError`` when there are not as many."""
        if self._next + lines > self._lines:
            raise ValueError(
                f"{self.file.name} has {self._lines - self._next} lines left, {lines} are wanted"
            )
        segment = Segment(self.file, self._next, lines)
        self._next += lines
        return segment


def exponential(chance: random.Random, clicks: int) -> Callable[[], int]:
    """Numbers of recent clicks with exponential ages, as conversions follow clicks."""

    def draw() -> int:
        while True:
            age = chance.expovariate(1 / MEAN_AGE_DAYS)
            if age < RECENT_DAYS:
                return clicks - 1 - int(age / RECENT_DAYS * clicks)

    return draw


def uniform(chance: random.Random, clicks: int) -> Callable[[], int]:
    """Numbers of recent clicks, each as likely as any other: the worst case for a cache."""
    return lambda: chance.randrange(clicks)


class StreamWriter:
    """Writes the request lines of one seeded data directory."""

    def __init__(self, directory: Path, seeded: Seeded, random_seed: int) -> None:
        self._directory = directory
        self._seeded = seeded
        self._chance = random.Random(random_seed)
        self._transactions = count(1)

    def postbacks(
        self,
        name: str,
        lines: int,
        ages: Callable[[random.Random, int], Callable[[], int]],
        population: Population | None = None,
    ) -> Stream:
        """Postbacks for recent clicks (or another population), each with a transaction id and a value of its own."""
        clicks = population or self._seeded.recent
        return self._write(name, lines, self._postback_targets(clicks, ages(self._chance, clicks.rows)))

    def clicks(self, name: str, lines: int) -> Stream:
        """Clicks on the campaigns, as a traffic source sends them."""
        return self._write(name, lines, self._click_targets())

    def _postback_targets(self, clicks: Population, draw: Callable[[], int]) -> Iterator[str]:
        chance = self._chance.random
        for number in self._transactions:
            cents = 100 + int(chance() * 9900)
            value = f"{cents // 100}.{cents % 100:02d}"
            click_id = self._seeded.click_id(clicks, draw())
            yield f"/p/{NETWORK_KEY}?click_id={click_id}&value={value}&currency=USD&txid=o{number:09x}"

    def _click_targets(self) -> Iterator[str]:
        chance, slugs = self._chance, self._seeded.slugs
        while True:
            slug = slugs[chance.randrange(CAMPAIGNS)]
            source_click_id = f"{chance.getrandbits(80):020x}"
            sub = chance.randrange(1000)
            yield f"/c/{slug}?source_click_id={source_click_id}&cost=0.02&sub1=ad-{sub}&sub2=zone-{sub % 37}"

    def _write(self, name: str, lines: int, targets: Iterator[str]) -> Stream:
        file = self._directory / f"{name}.lines"
        with file.open("w") as output:
            for _number, target in zip(range(lines), targets, strict=False):
                output.write(target + "\n")
        return Stream(file, lines)
