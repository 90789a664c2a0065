"""What the tests of deliveries share: a catalog with a rule, deliverers, and conversions whose stories go on.

Ingest and deliver run as processes of their own, so that one of them can be killed alone.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from postbackd.core.model import How, RequestForm, Rule, Target
from postbackd.runtime import open_store
from postbackd.settings_sources import load_settings
from tests.trust.ledger import CHANGE, CLICK, CONVERSION, Answer, Order
from tests.trust.load import Mix, Stream
from tests.trust.oracle import DATABASE, Tally, open_read_only
from tests.trust.postgres import Database
from tests.trust.receiver import FAILURE, PATIENCE_MS, Receiver
from tests.trust.server import Catalog, Server, make_catalog, wait_until
from tests.trust.told import APPROVED, Judge, Row, Step, Story

PENDING, REJECTED, REVERSED = 1, 3, 4

SCHEDULE_S = (0, 0, 1, 1, 2, 2) + (3,) * 50
"""So many attempts that no delivery is given up, and so close that a test ends."""

_SAID = "delivery={delivery_id}&conversion={conversion_id}&tx={transaction_id}&value={value}&click={click_id}"
_SAID_IN_JSON = (
    '{"delivery":"{delivery_id}","conversion":"{conversion_id}","tx":"{transaction_id}","value":"{value}"}'
)

_ROWS = "SELECT number, request_id, transaction_id, state, reason FROM deliveries"
_EVENTS = "SELECT count(*) FROM outbox"
_OPEN = "SELECT (SELECT count(*) FROM deliveries WHERE state = 1) + (SELECT count(*) FROM outbox)"
_LOOK_S = 0.1


def add_rule(data_dir: Path, env: Mapping[str, str], receiver: Receiver, concurrency: int = 32) -> None:
    """A target at the receiver, and a rule that tells it of every approved conversion, every change and reversal."""
    url = receiver.url
    how = How(
        requests={
            "conversion": RequestForm(url=f"{url}/conversion?{_SAID}"),
            "adjustment": RequestForm(url=f"{url}/adjustment", method="POST", body_type="form", body=_SAID),
            "retraction": RequestForm(
                url=f"{url}/retraction", method="POST", body_type="json", body=_SAID_IN_JSON
            ),
        },
        failure=(FAILURE,),
        schedule_s=SCHEDULE_S,
        connect_ms=PATIENCE_MS,
        total_ms=PATIENCE_MS,
        concurrency=concurrency,
    )

    async def save() -> None:
        store = await open_store(load_settings({"data": str(data_dir)}, env), create=False)
        try:
            source = (await store.load_catalog()).sources[0]
            target = await store.save(Target(id=0, name="Ads", how=how))
            await store.save(
                Rule(
                    id=0, name="All", source=source.id, target=target.id,
                    on_change="adjust", on_reversal="retract",
                )
            )  # fmt: skip
        finally:
            await store.close()

    asyncio.run(save())


@dataclass
class Site:
    """An ingest node, or a whole server, on a database with the rule; and the receiver that the rule tells."""

    ingest: Server
    catalog: Catalog
    receiver: Receiver
    place: Path
    env: dict[str, str]
    database: Database | None = None
    """``None``: the embedded one."""

    def deliverer(self, number: int = 0) -> Server:
        """A process that delivers, not started yet.  On the embedded database there may be one at a time."""
        data_dir = self.place / "data" if self.database is None else self.place / f"deliverer{number}"
        return Server(
            data_dir, env=self.env, role="deliver", stderr_path=self.place / f"deliverer{number}.stderr"
        )

    def rows(self, sql: str) -> list[tuple[int | str, ...]]:
        """What the database says now; PostgreSQL's numbers as text."""
        if self.database is not None:
            return [tuple(row) for row in self.database.rows(sql)]
        db = open_read_only(self.place / "data" / DATABASE)
        try:
            return list(db.execute(sql))
        finally:
            db.close()

    def execute(self, sql: str) -> None:
        """Change the database behind the program's back."""
        if self.database is not None:
            self.database.execute(sql)
            return
        import apsw

        db = apsw.Connection(str(self.place / "data" / DATABASE), flags=apsw.SQLITE_OPEN_READWRITE)
        db.set_busy_timeout(5000)
        db.execute(sql)
        db.close()

    def left(self) -> int:
        """Events and deliveries that are not settled."""
        return int(self.rows(_OPEN)[0][0])

    def wait_settled(self, deadline_s: float) -> float:
        """Until nothing is owed any more; returns the seconds, also when the deadline came first."""
        began = time.monotonic()
        looked = [0.0]

        def settled() -> bool:
            if time.monotonic() - looked[0] < _LOOK_S:
                return False
            looked[0] = time.monotonic()
            return not self.left()

        try:
            wait_until(settled, deadline_s, "every delivery being settled")
        except TimeoutError:
            pass  # the oracle says what is left
        return time.monotonic() - began

    def judge(self, stories: Mapping[str, Story]) -> Judge:
        """Hold the stories against what the receiver noted and against the rows."""
        judge = Judge(stories)
        for note in self.receiver.notes():
            judge.take(note)
        rows = (
            Row(int(number), int(request), str(ref), int(state), str(reason))
            for number, request, ref, state, reason in self.rows(_ROWS)
        )
        judge.close(rows, int(self.rows(_EVENTS)[0][0]))
        return judge

    @property
    def tracebacks(self) -> int:
        """Stack traces on the standard errors of all processes."""
        return sum(
            path.read_text(errors="replace").count("Traceback") for path in self.place.glob("*.stderr")
        )


@contextmanager
def site(
    place: Path, receiver: Receiver, database: Database | None = None, *, role: str = "ingest"
) -> Iterator[Site]:
    """A catalog with the rule and a running server of the role, killed at the end."""
    place.mkdir(parents=True, exist_ok=True)
    env = dict(receiver.env)
    if database is not None:
        env["POSTBACKD_STORE"] = database.address
    data_dir = place / "data"
    catalog = make_catalog(data_dir, env=env, network_options=("--dedup", "update"))
    add_rule(data_dir, env, receiver)
    with Server(data_dir, env=env, role=role) as ingest:
        yield Site(ingest, catalog, receiver, place, env, database)


@contextmanager
def killed_at_the_end(*servers: Server) -> Iterator[None]:
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.kill)
        yield


# --- stories ---------------------------------------------------------------------------------------------------

_SCRIPTS: Mapping[tuple[int, ...], int] = {
    (APPROVED,): 40,
    (PENDING,): 3,
    (PENDING, APPROVED): 10,
    (PENDING, REJECTED): 3,
    (APPROVED, REVERSED): 14,
    (APPROVED, REJECTED): 4,
    (PENDING, APPROVED, REVERSED): 6,
    (APPROVED, APPROVED): 12,
    (APPROVED, APPROVED, REVERSED): 8,
}
"""Statuses that a conversion goes through, and how often of 100; approved after approved brings another value."""


class Stories(Stream):
    """Conversions with their later changes, each sent when the one before it has been acknowledged, and again and again
    until it is; some at once, so that they meet in the outbox, some later."""

    def __init__(self, seed: int, prefix: str = "") -> None:
        super().__init__(seed, Mix(), prefix)
        self.stories: dict[str, Story] = {}
        self.refused = Tally()
        """Answers that no story should get."""
        self.closing = False
        """Set by the test: no new stories; those that have begun go on to their ends."""
        self._due: list[Order] = []
        self._again: list[Order] = []
        self._ended = 0

    @property
    def finished(self) -> bool:
        """Whether every story has been told to its end."""
        return self.closing and self._ended == len(self.stories)

    def next(self) -> Order:
        if self._again:
            return self._again.pop()
        if len(self._clicks) < self._mix.first_clicks or self._random.random() < 0.1:
            return self._click(own=False)
        if self._due and (self.closing or self._random.random() < 0.5):
            return self._due.pop(self._random.randrange(len(self._due)))
        return self._click(own=False) if self.closing else self._begin()

    def settle(self, order: Order, answer: Answer) -> None:
        if order.kind == CLICK:
            super().settle(order, answer)
            return
        story = self.stories[order.ref]
        if answer.verdict not in ("accepted", "updated", "duplicate"):
            self.refused.find("wrong", f"{order.ref} was answered {answer.verdict} {answer.reason}")
        story.acknowledged += 1
        if story.acknowledged < len(story.steps):
            status, value = story.steps[story.acknowledged]
            self._due.append(
                Order(CHANGE, order.ref, order.click_id, order.type, value, order.currency, status)
            )
        else:
            self._ended += 1

    def give_up(self, order: Order) -> None:
        """No answer: it is sent until there is one."""
        if order.kind != CLICK:
            self._again.append(order)

    def _begin(self) -> Order:
        draw, ref = self._random, self._ref()
        (statuses,) = draw.choices([*_SCRIPTS], [*_SCRIPTS.values()])
        steps = _with_values(statuses, draw)
        self.stories[ref] = Story(steps)
        return Order(
            CONVERSION, ref, draw.choice(self._clicks[-400:]), draw.choice(("conversion", "lead", "sale")),
            steps[0][1], "USD", steps[0][0],
        )  # fmt: skip


def _with_values(statuses: tuple[int, ...], draw: random.Random) -> tuple[Step, ...]:
    """A value for each: the same as long as the status moves, another one where it does not."""
    steps: list[Step] = []
    value = draw.randrange(1, 900_000_000)
    for number, status in enumerate(statuses):
        if number and status == statuses[number - 1]:
            value += draw.randrange(1, 1_000_000)
        steps.append((status, value))
    return tuple(steps)
