"""Sends the same conversions to several endpoints on the same schedule, and notes how each behaves.

The schedule does not wait for answers: a conversion goes out when it is due, so that a slow endpoint is not spared by
being asked less often.  Conversions, and their transaction ids, are the same for all.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from secrets import token_hex
from time import perf_counter
from typing import Any

import msgspec
from msgspec import Struct

from postbackd.core.became import judge
from postbackd.core.deliveries import Outgoing
from postbackd.core.diagnosis import TEST_CLICK_ID
from postbackd.core.exchange import CONNECT, DNS, PHASES, TIMEOUT, Exchange
from postbackd.core.manners import Checked, judge_bad, judge_parallel, judge_repeat
from postbackd.core.percentiles import Spread, spread_of
from postbackd.core.tls_grade import UNENCRYPTED, Grade, grade_tls
from postbackd.delivery.resolver import NameNotFound, Resolver
from postbackd.exchanges.plan import STRANGERS_RATE, Entry, Plan, Schedule
from postbackd.exchanges.postback import OddPostback, Postback, fields_of, write_postback
from postbackd.exchanges.timed import Timer
from postbackd.tls.probe import look_at_tls

WINDOWS_MS = (500, 2000)
"""How long senders wait: ad platforms half a second to three, Branch two."""

_REPEATS = 3
_LONG = "x" * 5000


class Compared(Struct, frozen=True, kw_only=True):
    """What was found of one endpoint."""

    name: str
    url: str
    addresses: Sequence[str] = ()
    test: bool = True
    """Whether the click ids were test words."""
    left_out: Sequence[str] = ()
    """Fields that its URL has no place for."""
    rate: float = 0.0
    tries: int = 0
    taken: int = 0
    """Answered 2xx, with a verdict or a body that says no fault."""
    outcomes: Mapping[str, int] = {}
    example: str = ""
    phases: Mapping[str, Spread] = {}
    times_ms: Sequence[float] = ()
    """Of each try that was answered, in the order of the schedule."""
    within: Mapping[str, int] = {}
    """Window in milliseconds -> how many tries were answered in it."""
    checks: Sequence[Checked] = ()
    grade: Grade = UNENCRYPTED


async def find_strangers(plan: Plan) -> list[tuple[Entry, Sequence[str]]]:
    """Entries whose host is neither this machine nor a private address, and is not said to be the user's own.

    A name that is not found now may be found in a moment, so it is a stranger's too.
    """
    resolver = Resolver()
    strangers = []
    for entry in plan.endpoint:
        addresses = await find_addresses(entry, resolver)
        if not entry.own and not (addresses and all(map(_is_own, addresses))):
            strangers.append((entry, addresses))
    return strangers


def _is_own(address: str) -> bool:
    """Whether it is of this machine or of a private network."""
    parsed = ip_address(address.partition("%")[0])
    inner = getattr(parsed, "ipv4_mapped", None) or parsed
    return bool(inner.is_private)


async def find_addresses(entry: Entry, resolver: Resolver) -> Sequence[str]:
    """The addresses of an entry, none when its name is not found."""
    place = entry.place
    if place.literal:
        return (place.host,)
    try:
        return await resolver.addresses(place.host)
    except NameNotFound:
        return ()


class Comparison:
    """One run."""

    def __init__(
        self,
        plan: Plan,
        contexts: Mapping[str | None, ssl.SSLContext],
        now_ms: Callable[[], int],
        strangers: Sequence[str] = (),
    ) -> None:
        """``contexts``: by the ``ca`` of the entries.  ``strangers``: names of entries that are asked gently."""
        self._plan = plan
        self._contexts = contexts
        self._now_ms = now_ms
        self._strangers = strangers
        self._token = token_hex(4)
        self.step: Callable[[int], None] = lambda done: None
        """Hears of every conversion."""

    async def run(self) -> list[Compared]:
        """All endpoints at once through the schedule, then each through the checks."""
        schedule = self._plan.schedule
        found = await asyncio.gather(
            *(
                self._measure(entry, number / (schedule.rate * len(self._plan.endpoint)))
                for number, entry in enumerate(self._plan.endpoint)
            )
        )
        return [
            await self._look_closer(entry, one) for entry, one in zip(self._plan.endpoint, found, strict=True)
        ]

    @property
    def conversions(self) -> int:
        """How many are sent by the schedule."""
        return self._plan.schedule.conversions * len(self._plan.endpoint)

    # --- the schedule ----------------------------------------------------------------------------------------

    async def _measure(self, entry: Entry, offset_s: float) -> Compared:
        schedule = self._plan.schedule
        rate = min(schedule.rate, STRANGERS_RATE) if entry.name in self._strangers else schedule.rate
        timer = self._make_timer(entry, schedule)
        began = perf_counter() + offset_s
        flying = []
        try:
            for number in range(schedule.conversions):
                await asyncio.sleep(max(0.0, began + number / rate - perf_counter()))
                flying.append(
                    asyncio.create_task(self._send(entry, timer, self._conversion(entry, f"{number}")))
                )
            made = [await one for one in flying]
        finally:
            timer.close()
        return self._sum_up(entry, made, rate)

    def _make_timer(self, entry: Entry, schedule: Schedule) -> Timer:
        limit = schedule.timeout_ms
        return Timer(self._contexts[entry.ca], connect_ms=limit, total_ms=limit)

    def _conversion(self, entry: Entry, number: str) -> Postback:
        """A conversion that was not sent before, with what the URL has a place for."""
        ids = entry.click_ids or (TEST_CLICK_ID,)
        index = int(number) % len(ids) if number.isdigit() else 0
        said = {
            "click_id": ids[index],
            "type": "sale",
            "value": "1.00",
            "currency": "USD",
            "transaction_id": f"cmp-{self._token}-{number}",
        }
        fitting = fields_of(entry.endpoint)
        fields: dict[str, Any] = {field: text for field, text in said.items() if field in fitting}
        return Postback(**fields)

    async def _send(self, entry: Entry, timer: Timer, postback: Postback) -> Exchange:
        made = await timer.exchange(write_postback(entry.endpoint, postback, self._now_ms()), keep=True)
        self.step(1)
        return made

    def _sum_up(self, entry: Entry, made: Sequence[Exchange], rate: float) -> Compared:
        became = [judge(one, entry.success, entry.failure, self._now_ms()) for one in made]
        answered = [one for one in made if not one.error]
        times = {phase: [t for one in answered if (t := one.phase_ms(phase)) is not None] for phase in PHASES}
        bad = next((one.reason for one in became if not one.good), "")
        said = self._conversion(entry, "0").fields()
        return Compared(
            name=entry.name,
            url=entry.endpoint.shown,
            addresses=sorted({one.address for one in made if one.address}),
            test=not entry.click_ids,
            left_out=[field for field in ("type", "value", "currency", "transaction_id") if field not in said],
            rate=rate,
            tries=len(made),
            taken=sum(one.good for one in became),
            outcomes=dict(Counter(one.word for one in became)),
            example=bad,
            phases={phase: spread_of(values) for phase, values in times.items() if values},
            times_ms=[round(one.total_ms, 3) for one in answered],
            within={
                str(window): sum(one.total_ms <= window for one in answered) for window in WINDOWS_MS
            },
        )  # fmt: skip

    # --- the checks ------------------------------------------------------------------------------------------

    async def _look_closer(self, entry: Entry, found: Compared) -> Compared:
        grade = await self._grade(entry, found)
        if not found.taken:  # what is refused whatever it says, is not refused for what is wrong with it
            why = f"none of the conversions was taken ({found.example})"
            missed = Checked(check="behaviour", ok=None, detail=f"not tried: {why}")
            return msgspec.structs.replace(found, grade=grade, checks=[missed])
        timer = self._make_timer(entry, self._plan.schedule)
        try:
            checks = [
                await self._try_repeats(entry, timer),
                await self._try_copies(entry, timer),
                *[await self._try_bad(entry, timer, name) for name in BAD_INPUTS],
            ]
        finally:
            timer.close()
        return msgspec.structs.replace(found, grade=grade, checks=checks)

    async def _grade(self, entry: Entry, found: Compared) -> Grade:
        place = entry.place
        if not place.tls:
            return UNENCRYPTED
        if set(found.outcomes) <= {DNS, CONNECT, TIMEOUT}:
            return Grade(letter="-", reasons=("nobody answered",))
        return grade_tls(
            await asyncio.to_thread(look_at_tls, place.host, place.port, self._now_ms(), entry.ca)
        )

    async def _try_repeats(self, entry: Entry, timer: Timer) -> Checked:
        postback = self._conversion(entry, "repeat")
        if not postback.transaction_id:
            return Checked(check="duplicate", ok=None, detail="the URL has no place for a transaction id")
        return judge_repeat([await self._ask(entry, timer, postback) for _ in range(_REPEATS)])

    async def _try_copies(self, entry: Entry, timer: Timer) -> Checked:
        postback = self._conversion(entry, "copies")
        if not postback.transaction_id:
            return Checked(
                check="parallel copies", ok=None, detail="the URL has no place for a transaction id"
            )
        copies = self._plan.schedule.copies
        return judge_parallel(
            await asyncio.gather(*(self._ask(entry, timer, postback) for _ in range(copies)))
        )

    async def _try_bad(self, entry: Entry, timer: Timer, name: str) -> Checked:
        right = self._conversion(entry, name.replace(" ", "-"))
        try:
            request = BAD_INPUTS[name](entry, right, self._now_ms())
        except OddPostback as error:
            return Checked(check=name, ok=None, detail=f"not tried: {error}")
        return judge_bad(await timer.exchange(request), name)

    async def _ask(self, entry: Entry, timer: Timer, postback: Postback) -> Exchange:
        return await timer.exchange(write_postback(entry.endpoint, postback, self._now_ms()), keep=True)


# --- bad input ---------------------------------------------------------------------------------------------------


def _missing(entry: Entry, right: Postback, now_ms: int) -> Outgoing:
    return write_postback(entry.endpoint, msgspec.structs.replace(right, click_id=""), now_ms)


def _literal(entry: Entry, right: Postback, now_ms: int) -> Outgoing:
    return write_postback(entry.endpoint, msgspec.structs.replace(right, click_id="{clickid}"), now_ms)


def _bad_value(entry: Entry, right: Postback, now_ms: int) -> Outgoing:
    return write_postback(entry.endpoint, msgspec.structs.replace(right, value="12.5x"), now_ms)


def _long_value(entry: Entry, right: Postback, now_ms: int) -> Outgoing:
    return write_postback(entry.endpoint, msgspec.structs.replace(right, transaction_id=_LONG), now_ms)


def _bad_json(entry: Entry, right: Postback, now_ms: int) -> Outgoing:
    """To the URL without its values: what it says is in the body alone, which breaks off."""
    url = write_postback(msgspec.structs.replace(entry.endpoint, method="GET"), Postback(), now_ms).url
    headers = (*entry.headers.items(), ("Content-Type", "application/json"))
    return Outgoing("POST", url, headers, f'{{"click_id":"{right.click_id}","value":'.encode())


BAD_INPUTS: Mapping[str, Callable[[Entry, Postback, int], Outgoing]] = {
    "missing id": _missing,
    "literal macro": _literal,
    "bad value": _bad_value,
    "long value": _long_value,
    "bad JSON": _bad_json,
}
"""Name -> a postback that cannot be used."""
