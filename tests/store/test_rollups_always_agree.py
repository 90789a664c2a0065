"""Whatever happens in whatever order: roll-ups equal the raw rows that are there, and purges change no total."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postbackd.core.model import Click, Postback
from postbackd.core.retention import Class
from postbackd.runtime import spare_syncs
from postbackd.store.base import Batch
from tests.store.contract import KINDS, PIXEL, World
from tests.store.test_contract_retention import purge
from tests.store.test_contract_rollups import ask, check, erase, roll

HOUR_S = 3600

EXAMPLES = int(os.environ.get("POSTBACKD_TEST_STORIES", "20"))
"""How many stories are told; more by hand."""

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            (
                "click",
                "late click",
                "convert",
                "repeat",
                "reject",
                "pixel",
                "lost",
                "late",
                "wait",
                "roll",
                "erase",
                "purge",
            )
        ),
        st.integers(0, 50),
    ),
    min_size=5,
    max_size=20,
)


class _Story:
    """What has happened so far."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clicks: list[Click] = []
        self.held_back: list[Postback] = []
        """Received by a node whose spool has not been drained yet."""

    def tell(self, what: str, number: int) -> None:
        world = self.world
        if what in ("click", "late click"):
            age_s = number * HOUR_S if what == "late click" else 1
            country = ("DE", "FR", None)[number % 3]
            subs = (None, f"s{number % 4}")
            self.clicks.append(
                world.click(age_s=age_s, country=country, subs=subs, cost_micros=number or None)
            )
        elif what == "wait":
            world.now_ms += number * HOUR_S * 1000 // 4
        elif what == "roll":
            roll(world)
        elif what == "purge":
            self._purge(number)
        elif what == "lost":
            lost = world.make_click(age_s=60)
            world.send(lost, f"txid=L{number}&value=2")
            if number % 2:
                world.write([lost])
                self.clicks.append(lost)
        elif self.clicks:
            self._of_click(what, self.clicks[number % len(self.clicks)], number)

    def _of_click(self, what: str, click: Click, number: int) -> None:
        world = self.world
        if what == "erase":
            erase(world, click)
        elif what == "late":
            self.held_back.append(world.make(click, f"txid=H{number}&value=9"))
        elif what == "pixel":
            world.send(click, "value=3", channel=PIXEL)
        else:
            status = "&status=rejected" if what == "reject" else ""
            network = "update" if what == "repeat" else "ignore"
            world.send(click, f"txid=T{number % 3}&value={number}.5{status}", network=network)

    def _purge(self, number: int) -> None:
        """A purge comes after the roll-ups, by days; and what is drained comes before."""
        self.drain()
        roll(self.world)
        totals = ask(self.world, "day").lines
        purge(self.world, (Class.CLICKS, Class.POSTBACKS)[number % 2], number * HOUR_S)
        roll(self.world)
        assert ask(self.world, "day").lines == totals

    def drain(self) -> None:
        if self.held_back:
            self.world.run(self.world.store.write(Batch(postbacks=self.held_back), self.world.rulebook))
            self.held_back = []


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_roll_ups_equal_the_rows_after_any_story(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = World(KINDS[0], Path(directory) / "data")
        spare_syncs(world.store)  # no power is cut here
        try:
            story = _Story(world)
            roll(world)
            for what, number in steps:
                story.tell(what, number)
            story.drain()
            roll(world)
            world.now_ms += 2 * HOUR_S * 1000
            roll(world, UTC)
            assert check(world) == []
        finally:
            world.close()
