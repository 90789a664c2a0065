"""The load client: keep-alive connections with pipelined groups, bounded in count and time, that survives the server.

It behaves as networks do: what was not answered is sent again, with the same transaction id, or (a seeded
share) never again.  503 is no answer.  It runs in a thread of its own, so that the test beside it can pull plugs.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from tests.trust.ledger import CHANGE, CLICK, CONVERSION, QUEUED, Answer, Ledger, Order
from tests.trust.server import Catalog, Server, wait_until
from tests.trust.wire import FORMS, read_answer, write_order

_GONE = (OSError, EOFError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError)
"""What a server that dies in the middle of an answer looks like from here."""

_RETRY_PAUSE_S = 0.02
_CURRENCIES = ("USD", "EUR", "USD", "GBP", "USD")


@dataclass(frozen=True)
class Mix:
    """What the load is made of; shares of one."""

    clicks: float = 0.15
    own_clicks: float = 0.05
    repeats: float = 0.10
    """Conversions that were acknowledged already, sent again."""
    pending: float = 0.10
    """Conversions that start as pending; half of them are approved later."""
    retried: float = 0.7
    """Of what got no answer, the share that is sent again."""
    first_clicks: int = 40


class Stream:
    """The orders of one load, drawn with a seed; postbacks only name clicks that were acknowledged."""

    def __init__(self, seed: int, mix: Mix, prefix: str = "") -> None:
        """``prefix`` keeps the refs of several loads on one database apart."""
        self._random = random.Random(seed)
        self._mix = mix
        self._prefix = f"k{_letters(seed)}{prefix}"
        self._made = 0
        self._clicks: list[str] = []
        self._sent_again: deque[Order] = deque()
        self._done: deque[Order] = deque(maxlen=2000)
        self._pending: deque[Order] = deque()

    def next(self) -> Order:
        if self._sent_again:
            return self._sent_again.popleft()
        chance, mix = self._random.random(), self._mix
        if len(self._clicks) < mix.first_clicks or chance < mix.clicks:
            return self._click(own=self._random.random() < mix.own_clicks)
        if self._done and chance < mix.clicks + mix.repeats:
            return self._random.choice(self._done)
        if self._pending and self._random.random() < mix.pending / 2:
            return self._change(self._pending.popleft())
        return self._conversion()

    def settle(self, order: Order, answer: Answer) -> None:
        """An acknowledged order feeds the orders to come."""
        if order.kind == CLICK and answer.click_id:
            self._clicks.append(answer.click_id)
        elif order.kind == CONVERSION and answer.verdict in ("accepted", QUEUED):
            self._done.append(order)
            if order.status == 1:
                self._pending.append(order)

    def give_up(self, order: Order) -> None:
        """No answer: some are sent again, some never."""
        can_repeat = order.kind != CLICK or order.own_id
        if can_repeat and self._random.random() < self._mix.retried:
            self._sent_again.append(order)

    def form(self) -> str:
        return self._random.choice(FORMS)

    def _ref(self) -> str:
        self._made += 1
        return f"{self._prefix}x{_letters(self._made)}"

    def _click(self, own: bool) -> Order:
        return Order(CLICK, self._ref(), value_micros=self._random.randrange(1, 3_000_000), own_id=own)

    def _conversion(self) -> Order:
        draw = self._random
        pending = draw.random() < self._mix.pending
        return Order(
            CONVERSION,
            self._ref(),
            click_id=draw.choice(self._clicks[-400:]),
            type=draw.choice(("conversion", "lead", "sale")),
            value_micros=draw.randrange(1, 900_000_000),
            currency=draw.choice(_CURRENCIES),
            status=1 if pending else 2,
        )

    def _change(self, order: Order) -> Order:
        return Order(
            CHANGE, order.ref, order.click_id, order.type, order.value_micros, order.currency, status=2
        )


class Load:
    """A running load.  Use as a context manager: leaving it stops the load and waits for its thread."""

    def __init__(
        self,
        servers: Server | Sequence[Server],
        catalog: Catalog,
        ledger: Ledger,
        *,
        seed: int,
        connections: int = 8,
        group: int = 4,
        limit: int = 1_000_000_000,
        deadline_s: float = 3600,
        mix: Mix | None = None,
        prefix: str = "",
        pause_s: float = 0.0,
    ) -> None:
        """Ends after ``limit`` acknowledged requests or ``deadline_s``, whichever comes first.

        The connections are spread over ``servers``; ``pause_s``: how long each rests after a group.
        """
        self._servers = [servers] if isinstance(servers, Server) else list(servers)
        self._catalog = catalog
        self.ledger = ledger
        self._connections = connections
        self._group = group
        self._pause_s = pause_s
        self._limit = limit
        self._deadline = time.monotonic() + deadline_s
        self.stream = Stream(seed, mix or Mix(), prefix)
        self.statuses: Counter[int] = Counter()
        self.last_success = 0.0
        """``time.monotonic()`` of the newest acknowledgement."""
        self.last_queued = 0.0
        """The same of the newest that was told ``queued``."""
        self.last_settled = 0.0
        """The same of the newest postback that was told its final verdict."""
        self.last_busy = 0.0
        """The same of the newest 503."""
        self.unanswered = 0
        """Requests that were sent and got no answer, while there had to be one."""
        self.must_answer = True
        """Cleared by a test while it takes a server away."""
        self.slowest_s = 0.0
        """How long the slowest group of requests waited for its last answer."""
        self.waits: deque[float] = deque(maxlen=50_000)
        """How long each of the newest groups waited for its last answer, in seconds."""
        self._first = ledger.answered
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    # --- from the test's thread -------------------------------------------------------------------------------

    def start(self) -> Load:
        self._thread.start()
        return self

    def stop(self) -> None:
        """End after the groups that are under way (10 s at most)."""
        self._stopping.set()
        self._thread.join(timeout=30)
        if self._error is not None:
            raise self._error

    def wait_end(self, deadline_s: float) -> None:
        """Until the limit is reached."""
        wait_until(lambda: not self._thread.is_alive(), deadline_s, "the end of the load")
        self.stop()

    def wait_acknowledged(self, more: int, deadline_s: float = 90) -> float:
        """Until ``more`` requests than now have been acknowledged; returns the seconds."""
        aim = self.ledger.answered + more
        return wait_until(
            lambda: self.ledger.answered >= aim or not self._thread.is_alive(),
            deadline_s,
            f"{more} acknowledgements",
        )

    def wait_success(self, deadline_s: float) -> float:
        """Until something sent from now on is acknowledged; returns the seconds."""
        now = time.monotonic()
        return wait_until(lambda: self.last_success > now, deadline_s, "an acknowledgement")

    def wait_queued(self, deadline_s: float) -> float:
        """Until a ``queued`` from now on; returns the seconds."""
        now = time.monotonic()
        return wait_until(lambda: self.last_queued > now, deadline_s, "an answer 'queued'")

    def wait_settled(self, deadline_s: float) -> float:
        """Until a postback is told its final verdict from now on; returns the seconds."""
        now = time.monotonic()
        return wait_until(lambda: self.last_settled > now, deadline_s, "a final verdict")

    def wait_busy(self, deadline_s: float) -> float:
        """Until a 503 from now on; returns the seconds."""
        now = time.monotonic()
        return wait_until(lambda: self.last_busy > now, deadline_s, "an answer 503")

    def __enter__(self) -> Load:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- in the load's thread ---------------------------------------------------------------------------------

    def _over(self) -> bool:
        enough = self.ledger.answered - self._first >= self._limit
        return enough or self._stopping.is_set() or time.monotonic() > self._deadline

    def _run(self) -> None:
        try:
            asyncio.run(self._drive())
        except BaseException as error:
            self._error = error

    async def _drive(self) -> None:
        servers = (self._servers[number % len(self._servers)] for number in range(self._connections))
        await asyncio.gather(*(self._connection(server) for server in servers))

    async def _connection(self, server: Server) -> None:
        """Connect, work until the connection dies, connect again."""
        while not self._over():
            try:
                reader, writer = await asyncio.wait_for(
                    asyncio.open_connection(server.host, server.port), timeout=5
                )
            except _GONE:
                await self._pause()
                continue
            try:
                while not self._over() and await self._exchange(reader, writer):
                    pass
            finally:
                writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send one group and read its answers.  False when the connection is of no use any longer."""
        orders = [self.stream.next() for _ in range(self._group)]
        self.ledger.sent(orders)
        began = time.monotonic()
        alive, answers = True, []
        try:
            key, slug = self._catalog.key, self._catalog.slug
            writer.write(b"".join(write_order(order, key, slug, self.stream.form()) for order in orders))
            for _ in orders:
                answers.append(await asyncio.wait_for(read_answer(reader), timeout=10))  # noqa: PERF401
        except _GONE:
            alive = False
        self.waits.append(time.monotonic() - began)
        self.slowest_s = max(self.slowest_s, self.waits[-1])
        self._note(orders, answers)
        if any(answer.status == 503 for answer in answers):
            await self._pause()
        elif self._pause_s:
            await asyncio.sleep(self._pause_s)
        return alive

    def _note(self, orders: list[Order], answers: list[Answer]) -> None:
        answered = list(zip(orders, answers, strict=False))
        self.ledger.answer(answered)
        now = time.monotonic()
        for order, answer in answered:
            self.statuses[answer.status] += 1
            if answer.acknowledged:
                self.last_success = now
                if answer.verdict == QUEUED:
                    self.last_queued = now
                elif answer.verdict:
                    self.last_settled = now
                self.stream.settle(order, answer)
            else:
                self.last_busy = now
                self.stream.give_up(order)
        if self.must_answer:
            self.unanswered += len(orders) - len(answers)
        for order in orders[len(answers) :]:
            self.stream.give_up(order)

    async def _pause(self) -> None:
        """A sender's pause before it tries again: it must not eat the processor that the server needs to come back."""
        await asyncio.sleep(_RETRY_PAUSE_S)


def _letters(number: int) -> str:
    """A number in letters: digits could be taken for a phone or card number and be masked."""
    text = ""
    while True:
        number, digit = divmod(number, 26)
        text = chr(97 + digit) + text
        if not number:
            return text
