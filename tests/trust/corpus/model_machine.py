"""A Hypothesis state machine: random clicks, postbacks, late arrivals and purges against ``dict_model`` (T11).

``machine_for`` takes the store to test as a function, so that every store runs the same steps.
Importing this module needs Hypothesis.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from postbackd.core.click_id import StampMint, stamp_ms, write_stamp
from postbackd.core.diagnosis import Reason
from postbackd.core.model import Campaign, Click, Network, Offer, Postback, Request, Source, WeightedOffer
from postbackd.core.params import Received
from postbackd.core.rulebook import Rulebook
from postbackd.core.rules import judge
from postbackd.core.verdicts import Verdict
from postbackd.store.base import Batch, Store
from postbackd.store.sqlite import SqliteStore
from tests.trust.corpus import dict_model
from tests.trust.corpus.dict_model import Answer, Counted, DictModel, Key, Message, Visit

T = TypeVar("T")

START_MS = 1_767_225_600_000
MODES = ("ignore", "update", "add", "hold")
WINDOWS_S = ((0, 30 * 86_400), (3_600, 2 * 86_400))
OWN_IDS = ("crm-lead-a", "crm-lead-b", "crm-lead-c")


class OpenStore(Protocol):
    """A store under test and a way to look behind its door."""

    @property
    def store(self) -> Store: ...
    @property
    def purges_whole_days(self) -> bool:
        """Whether a purge takes a day at once, however few rows were asked for."""
        ...

    def rows(self, sql: str) -> list[tuple[Any, ...]]: ...
    def close(self) -> None: ...


StoreMaker = Callable[[Path, asyncio.AbstractEventLoop], OpenStore]
"""Opens an empty store, for which there is an empty directory, in an event loop that does not run at the moment."""


@dataclass
class OpenSqlite:
    """The SQLite store, its file in an empty directory."""

    store: SqliteStore
    purges_whole_days = False

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return list(self.store.connection.execute(sql))

    def close(self) -> None:
        self.store.connection.close()


def open_sqlite(directory: Path, loop: asyncio.AbstractEventLoop) -> OpenStore:
    return OpenSqlite(loop.run_until_complete(SqliteStore.open(directory, create=True)))


@dataclass
class Tally:
    """Steps done by all runs of one machine."""

    steps: int = 0
    postbacks: int = 0


MESSAGES = st.fixed_dictionaries(
    {
        "network": st.integers(0, len(MODES) - 1),
        "click": st.integers(0, 7),
        "own": st.sampled_from((None, None, None, *OWN_IDS)),
        "type": st.sampled_from((None, None, "sale", "SALE", "lead")),
        "transaction_id": st.sampled_from((None, None, "", "T1", "t1", " T1 ", "T2")),
        "value": st.sampled_from((None, *dict_model.MICROS)),
        "currency": st.sampled_from((None, None, None, *dict_model.CURRENCIES)),
        "status": st.sampled_from((None, None, *dict_model.WORDS)),
        "time": st.sampled_from((None, None, None, -90_000_000, -3_600_000, -1000)),
    }
)
"""One postback; ``time`` is relative to its receipt, ``click`` counts the minted clicks from the newest."""

STORY = st.lists(
    st.tuples(
        st.sampled_from((dict_model.S2S, dict_model.S2S, dict_model.PIXEL)),
        st.fixed_dictionaries(
            {
                "transaction_id": st.sampled_from((None, None, "T1", "T2")),
                "value": st.sampled_from((None, "7", "12.50")),
                "currency": st.sampled_from((None, "EUR")),
                "status": st.sampled_from((None, "pending", "approved", "declined", "refunded")),
                "time": st.sampled_from((None, None, -3_600_000, -1000, 0)),
            }
        ),
    ),
    min_size=3,
    max_size=6,
)
"""(channel, what it says) of messages about one click and type: where the rules about repeats meet."""


def machine_for(
    make_store: StoreMaker, tally: Tally, make_model: Callable[..., DictModel] = DictModel
) -> type[RuleBasedStateMachine]:
    """A Hypothesis state machine that compares one kind of store with one kind of model."""

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.loop = asyncio.new_event_loop()
            self.directory = tempfile.TemporaryDirectory(prefix="postbackd-model-")
            self.opened = make_store(Path(self.directory.name), self.loop)
            self.now_ms = START_MS
            self.mint = StampMint(0)
            self.minted: list[tuple[int, int]] = []
            self.absent: list[Click] = []

        def teardown(self) -> None:
            self.opened.close()
            self.loop.close()
            self.directory.cleanup()

        def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
            return self.loop.run_until_complete(work)

        @initialize()
        def fill_catalog(self) -> None:
            self.rulebook = self.wait_for(fill_catalog(self.opened.store))
            dedup = {network.id: network.dedup for network in self.rulebook.catalog.networks}
            windows = {
                o.id: (o.window_min_s * 1000, o.window_max_s * 1000) for o in self.rulebook.catalog.offers
            }
            self.networks = tuple(dedup)
            self.model = make_model(dedup, windows)

        # --- steps ------------------------------------------------------------------------------------

        @rule(seconds=st.sampled_from((1, 60, 3_600, 7_200, 86_400, 20 * 86_400)))
        def time_passes(self, seconds: int) -> None:
            self.now_ms += seconds * 1000

        @rule(own=st.sampled_from((None, None, *OWN_IDS)), offer=st.integers(0, 1))
        def click_arrives(self, own: str | None, offer: int) -> None:
            self.send([self.make_click(own, offer)], [])

        @rule(offer=st.integers(0, 1))
        def click_is_made_but_delayed(self, offer: int) -> None:
            self.absent.append(self.make_click(None, offer))

        @rule(count=st.integers(1, 3), messages=st.lists(MESSAGES, max_size=3))
        def delayed_clicks_arrive(self, count: int, messages: list[dict[str, Any]]) -> None:
            arriving, self.absent = self.absent[:count], self.absent[count:]
            self.send(arriving, self.make_messages(messages, dict_model.S2S))

        @rule(messages=st.lists(MESSAGES, min_size=1, max_size=6))
        def postbacks_arrive(self, messages: list[dict[str, Any]]) -> None:
            self.send([], self.make_messages(messages, dict_model.S2S))

        @rule(message=MESSAGES, copies=st.integers(2, 4))
        def the_same_postback_arrives_again(self, message: dict[str, Any], copies: int) -> None:
            self.send([], self.make_messages([message] * copies, dict_model.S2S))

        @rule(message=MESSAGES)
        def the_pixel_fires(self, message: dict[str, Any]) -> None:
            made = self.make_messages([message], dict_model.PIXEL)
            known = self.model.clicks.keys() | self.model.own_ids.keys() | self.model.purged
            self.send([], [m for m in made if m.click in known])

        @rule(network=st.integers(0, len(MODES) - 1), story=STORY, delayed=st.booleans())
        def a_sale_is_told(
            self, network: int, story: list[tuple[int, dict[str, Any]]], delayed: bool
        ) -> None:
            click = self.make_click(None, 0)
            if not delayed:
                self.send([click], [])
            for channel, said in story:
                draft = {"network": network, "click": 0, "own": None, "type": None, **said}
                self.send([], self.make_messages([draft], dict_model.S2S if delayed else channel))
                self.now_ms += 1000
            if delayed:
                self.send([click], [])

        @rule(age_s=st.sampled_from((0, 3_600, 30 * 86_400)), limit=st.sampled_from((1, 3, 1000)))
        def old_rows_are_purged(self, age_s: int, limit: int) -> None:
            before_ms = self.now_ms - age_s * 1000
            if self.opened.purges_whole_days:
                limit = 1_000_000
                while self.wait_for(self.opened.store.purge(before_ms, limit)):
                    pass
            else:
                self.wait_for(self.opened.store.purge(before_ms, limit))
            self.model.purge(before_ms, limit)
            tally.steps += 1

        # --- what a step does -------------------------------------------------------------------------

        def make_click(self, own: str | None, offer: int) -> Click:
            stamp = self.mint.mint(self.now_ms)
            campaign = self.rulebook.catalog.campaigns[offer]
            self.minted.append((stamp, campaign.id))
            return Click(stamp, campaign.id, campaign.offers[0].offer, 0, own_id=own)

        def make_messages(self, drafts: list[dict[str, Any]], channel: int) -> list[Message]:
            made = [self.make_message(draft, channel) for draft in drafts]
            return [message for message in made if message is not None]

        def make_message(self, draft: dict[str, Any], channel: int) -> Message | None:
            if draft["own"] is None and draft["click"] >= len(self.minted):
                return None
            time = draft["time"]
            return Message(
                request_id=self.mint.mint(self.now_ms),
                received_ms=self.now_ms,
                network=self.networks[draft["network"]],
                channel=channel,
                click=draft["own"] or self.minted[-1 - draft["click"]][0],
                type=draft["type"],
                transaction_id=draft["transaction_id"],
                value=draft["value"],
                currency=draft["currency"],
                status=draft["status"],
                time_ms=self.now_ms + time if time is not None else None,
            )

        def send(self, clicks: list[Click], messages: list[Message]) -> None:
            if self.model.alone(messages) and (clicks or len(messages) > 1):
                self.send(clicks, [])
                for message in messages:
                    self.send([], [message])
                return
            tally.steps += 1
            tally.postbacks += len(messages)
            visits = [Visit(c.stamp, stamp_ms(c.stamp), c.offer, c.own_id) for c in clicks]
            batch = Batch(clicks, [self.judge(message) for message in messages])
            written = self.wait_for(self.opened.store.write(batch, self.rulebook))
            stored, answers = self.model.arrive(visits, messages)
            answered = [_answer(o.verdict, o.reason, o.conversion_id) for o in written.outcomes]
            _compare("clicks", dict(enumerate(written.clicks)), dict(enumerate(stored)))
            _compare("answers", dict(enumerate(answered)), dict(enumerate(answers)))

        def judge(self, message: Message) -> Postback:
            campaigns = dict(self.minted)
            text = message.click
            if isinstance(text, int):
                text = self.rulebook.keys.write(text, campaigns[text])
                text = text.upper() if message.request_id & 1 else text
            time = str(message.time_ms) if message.time_ms is not None else None
            values = [text, message.type, message.value, message.currency]
            values += [message.transaction_id, message.status, time]
            request = Request(message.request_id, message.network, message.channel, 0, message.received_ms)
            rules = self.rulebook.networks[message.network]
            return judge(Received(values, 7), rules, self.rulebook.keys, self.rulebook.masker, request)

        # --- what must hold after every step -----------------------------------------------------------

        @invariant()
        def conversions_agree(self) -> None:
            if hasattr(self, "model"):
                _compare("conversions", read_conversions(self.opened), write_keys(self.model.conversions))

        @invariant()
        def logs_agree(self) -> None:
            if hasattr(self, "model"):
                _compare("log", read_log(self.opened), self.model.log)
                history = {row[0]: 1 for row in self.opened.rows("SELECT request_id FROM conversion_history")}
                _compare("history", history, dict.fromkeys(self.model.history, 1))

    return Machine


async def _save_catalog(store: Store) -> None:
    networks = [await store.save(Network(id=0, name=mode, key=f"{mode:_<22}", dedup=mode)) for mode in MODES]
    source = await store.save(Source(id=0, name="source"))
    for number, (shortest_s, longest_s) in enumerate(WINDOWS_S):
        offer = Offer(
            id=0,
            name=f"offer {number}",
            network=networks[0].id,
            url="https://shop.example/?s={click_id}",
            window_min_s=shortest_s,
            window_max_s=longest_s,
        )
        offers = (WeightedOffer((await store.save(offer)).id),)
        name = f"campaign{number}"
        await store.save(Campaign(id=0, name=name, slug=name, source=source.id, offers=offers))


async def fill_catalog(store: Store) -> Rulebook:
    """A network for each dedup mode, and two campaigns whose offers differ in their window."""
    await _save_catalog(store)
    return Rulebook(await store.load_catalog())


def _compare(what: str, stored: Mapping[Any, Any], modelled: Mapping[Any, Any]) -> None:
    """Raise with the entries that differ."""
    differing = [key for key in stored.keys() | modelled.keys() if stored.get(key) != modelled.get(key)]
    if differing:
        lines = [f"{key}: stored {stored.get(key)}, model {modelled.get(key)}" for key in differing[:5]]
        raise AssertionError(f"{what} differ: " + "; ".join(lines))


def _answer(verdict: int, reason: int, conversion_id: int | None) -> Answer:
    """An outcome in the words of the model: a reason only where nothing was counted."""
    word = "" if conversion_id is not None else Reason(reason).word
    return Answer(Verdict(verdict).word, word, conversion_id)


def read_conversions(opened: OpenStore) -> dict[Key, Counted]:
    """The conversions as they are stored."""
    sql = """SELECT click_id, type, transaction_id, conversion_id, status, value_micros, currency, channels,
                    status_time_ms FROM conversions"""
    return {row[:3]: Counted(*row[3:]) for row in opened.rows(sql)}


def write_keys(conversions: dict[Key, Counted]) -> dict[Key, Counted]:
    """The model's conversions under the keys that a store uses in ``add`` mode."""
    return {_stored_key(key): counted for key, counted in conversions.items()}


def _stored_key(key: Key) -> Key:
    stamp, kind, reference = key
    return stamp, kind, f"#{write_stamp(int(reference[1:]))}" if reference.startswith("#") else reference


def read_log(opened: OpenStore) -> dict[int, Answer]:
    """The postback log as it is stored."""
    sql = "SELECT request_id, verdict, reason, conversion_id FROM postbacks"
    return {row[0]: _answer(*row[1:]) for row in opened.rows(sql)}
