"""Plays the events of a simulated market into a store, through the path that requests take: judged, then written.

Stamps follow from the events alone, so that a filling that was interrupted, or is to go on later, plays from the
beginning and writes only what is newer than what is stored.
"""

from __future__ import annotations

from postbackd.core.click_id import StampMint, stamp_ms
from postbackd.core.model import Catalog, Click, Postback, Request
from postbackd.core.rulebook import Rulebook
from postbackd.core.rules import judge
from postbackd.ingest.flow import Flow
from postbackd.market.records import Call, Event, Refused, Visit, write_query
from postbackd.market.simulation import Market
from postbackd.market.truth import Truth
from postbackd.store.base import Batch, Store

PATIENCE_S = 30.0
"""Nobody waits for an answer."""


class Filler:
    """Hears events in their order and writes those that are not stored yet."""

    def __init__(self, store: Store, market: Market, catalog: Catalog, stored: int) -> None:
        """``stored``: the largest stamp in the store."""
        self._store = store
        self._rulebook = Rulebook(catalog)
        self._campaigns = {campaign.name: campaign.id for campaign in catalog.campaigns}
        self._offers = {offer.name: offer.id for offer in catalog.offers}
        self._networks = {network.name: network.id for network in catalog.networks}
        self._stored = stored
        self._mint = StampMint(0)
        self._flow = Flow()
        self._clicks: list[Click] = []
        self._postbacks: list[Postback] = []
        self._stamps: dict[int, tuple[int, int]] = {}
        """Visit -> stamp and campaign of those that postbacks will speak of."""
        self.truth = Truth(market.faults)
        self.written = 0
        """Rows."""

    @property
    def waiting(self) -> int:
        """Rows that are not written yet."""
        return len(self._clicks) + len(self._postbacks)

    def take(self, event: Event) -> None:
        """One more event."""
        self.truth.note(event)
        if isinstance(event, Visit):
            self._take_visit(event)
        elif isinstance(event, Call):
            self._take_call(event)
        elif isinstance(event, Refused) and event.at_ms > stamp_ms(self._stored):
            self._flow.refused(event.at_ms // 60_000, event.kind)

    async def write(self) -> None:
        """Commit what was taken."""
        batch = Batch(self._clicks, self._postbacks, self._flow.take())
        if not (batch.clicks or batch.postbacks or batch.flow):
            return
        await self._store.write(batch, self._rulebook, patience_s=PATIENCE_S)
        self.written += self.waiting
        self._clicks, self._postbacks = [], []

    def _take_visit(self, visit: Visit) -> None:
        stamp, campaign = self._mint.mint(visit.at_ms), self._campaigns[visit.campaign]
        if visit.converts:
            self._stamps[visit.number] = (stamp, campaign)
        if stamp > self._stored:
            self._clicks.append(
                Click(
                    stamp,
                    campaign,
                    self._offers[visit.offer],
                    visit.kind,
                    visit.source_click_id,
                    visit.cost_micros or None,
                    visit.country,
                    subs=visit.subs,
                )
            )

    def _take_call(self, call: Call) -> None:
        stamp = self._mint.mint(call.at_ms)
        if stamp <= self._stored:
            return
        click = self._stamps.get(call.visit)
        query = write_query(call, self._rulebook.keys.write(*click) if click else "")
        network = self._networks[call.network]
        rules = self._rulebook.networks[network]
        request = Request(stamp, network, call.channel, len(query), call.at_ms)
        received = rules.field_map.read_query(query)
        self._postbacks.append(judge(received, rules, self._rulebook.keys, self._rulebook.masker, request))
        self._flow.answered(call.at_ms // 60_000, call.took_us)
