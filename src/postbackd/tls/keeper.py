"""Keeps a certificate: obtains the first, renews it in time, and never asks an authority more often than it bears.

Runs in any number of processes of one database; the holder of the shelf acts, the others look on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from postbackd.core.acme_steps import CLOCK_PAUSE_S, Kind, Problem, advice, kind_of, pause_s
from postbackd.core.certificates import clock_is_wrong, is_due, look_again_ms, renew_at_ms
from postbackd.store.base import StoreUnavailable
from postbackd.store.shelf import NotHeld, Shelf
from postbackd.tls.authority import Authority, Refused
from postbackd.tls.call import AuthorityAway, Caller
from postbackd.tls.documents import (
    CERTIFICATE,
    RENEWAL,
    TROUBLE,
    Held,
    Plan,
    Renewal,
    Trouble,
    load_document,
    read_certificate,
    save_document,
)
from postbackd.tls.issuance import Issuance
from postbackd.tls.jose import AccountKey
from postbackd.tls.pair import UnusablePair

log = logging.getLogger("postbackd.tls")

LOOK_S = 2.0
"""How often the shelf is looked at while a certificate is wanted."""

REST_S = 30.0
"""The same while all is well."""

_MINUTE_MS = 60_000


class Keeper:
    """Looks after one certificate."""

    def __init__(
        self,
        shelf: Shelf,
        plan: Plan,
        make_caller: Callable[[], Caller],
        now_ms: Callable[[], int],
        draw: Callable[[], float],
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        """``make_caller`` may raise ``AuthorityAway``; ``draw``: random numbers from 0 up to 1."""
        self._shelf = shelf
        self._plan = plan
        self._make_caller = make_caller
        self._now_ms = now_ms
        self._draw = draw
        self._sleep = sleep
        self._unsaved: Trouble | None = None
        """The last failure, when not even a note of it could be kept."""

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self._sleep(await self.turn())
        finally:
            await self._shelf.close()

    async def turn(self) -> float:
        """Do what is to be done now; returns the seconds until the next turn."""
        try:
            return await self._turn()
        except NotHeld:
            return LOOK_S
        except (Refused, AuthorityAway, UnusablePair, StoreUnavailable) as error:
            await self._note(*_judge(error, self._plan.challenge))
        except Exception as error:
            log.exception("a fault in looking after the certificate")
            await self._note(
                Kind.LOCAL, f"a fault of this program ({type(error).__name__})", "report it", 0.0
            )
        return LOOK_S

    async def _turn(self) -> float:
        held = read_certificate(await self._shelf.load(CERTIFICATE))
        now = self._now_ms()
        trouble = self._unsaved or await load_document(self._shelf, TROUBLE, Trouble)
        if trouble is not None and trouble.holds_back(self._plan, now):
            return min(REST_S if held else LOOK_S, max(0.2, (trouble.next_ms - now) / 1000))
        renewal = await self._look_at_suggestion(held, now)
        if not self._wanted(held, renewal, now):
            return self._rest_s(held, renewal, now)
        if not await self._shelf.hold():
            return LOOK_S
        try:
            held = read_certificate(
                await self._shelf.load(CERTIFICATE)
            )  # the holder before us may have been done
            if self._wanted(held, renewal, now):
                await self._obtain(held)
        finally:
            await self._shelf.let_go()
        return LOOK_S

    def _wanted(self, held: Held | None, renewal: Renewal | None, now: int) -> bool:
        if held is None or held.directory != self._plan.directory:
            return True
        window = renewal.window if renewal is not None else None
        return is_due(held.pair.term, self._plan.domains, window, held.pair.draw, now)

    def _rest_s(self, held: Held | None, renewal: Renewal | None, now: int) -> float:
        """Until it is time to renew, but not for long: a clock may be set, and settings of other nodes may change."""
        assert held is not None
        window = renewal.window if renewal is not None else None
        left_s = (renew_at_ms(held.pair.term, window, held.pair.draw) - now) / 1000
        return min(REST_S, max(left_s, 0.2))

    # --- the authority's suggestion -------------------------------------------------------------------------------

    async def _look_at_suggestion(self, held: Held | None, now: int) -> Renewal | None:
        """What the authority suggests for the certificate that is held; asked anew when it is time to."""
        if held is None or held.directory != self._plan.directory or not held.pair.certificate_id:
            return None
        known = await load_document(self._shelf, RENEWAL, Renewal)
        if known is not None and known.fingerprint != held.pair.fingerprint:
            known = None
        if known is not None and now < known.look_again_ms < now + 25 * 60 * _MINUTE_MS:
            return known
        if not await self._shelf.hold():
            return known
        try:
            asked = await self._ask(held, known, now)
            await save_document(self._shelf, RENEWAL, asked)
            return asked
        finally:
            await self._shelf.let_go()

    async def _ask(self, held: Held, known: Renewal | None, now: int) -> Renewal:
        """An authority that cannot be asked now has not changed its mind."""
        window, wait_ms = (known.window if known is not None else None), 0
        try:
            authority = Authority(self._plan.directory, self._make_caller(), AccountKey.make())
            if await authority.suggests():
                suggestion = await authority.suggest(held.pair.certificate_id)
                if suggestion.window != window:
                    more = f" ({suggestion.explanation})" if suggestion.explanation else ""
                    log.info(
                        "the authority suggests to renew from %s on%s",
                        _moment(suggestion.window.start_ms),
                        more,
                    )
                window, wait_ms = suggestion.window, suggestion.retry_after_ms
        except (Refused, AuthorityAway) as error:
            log.info("the authority was not asked when to renew (%s)", error)
            wait_ms = 10 * _MINUTE_MS
        return Renewal(held.pair.fingerprint, window, now + look_again_ms(wait_ms))

    # --- a new certificate ----------------------------------------------------------------------------------------

    async def _obtain(self, held: Held | None) -> None:
        plan = self._plan
        log.info("asking %s for a certificate for %s", plan.directory, ", ".join(plan.domains))
        replaces = held.pair.certificate_id if held is not None and held.directory == plan.directory else ""
        pair = await Issuance(self._shelf, plan, self._make_caller(), self._sleep).run(replaces)
        if clock_is_wrong(pair.term, self._now_ms()):
            await self._note(
                Kind.LOCAL,
                f"the new certificate is good from {_moment(pair.term.from_ms)} to {_moment(pair.term.until_ms)}, "
                f"and here it is {_moment(self._now_ms())}",
                "set the clock of this machine",
                CLOCK_PAUSE_S,
            )
            return
        self._unsaved = None
        await self._shelf.remove(TROUBLE)
        log.info(
            "a new certificate for %s, good until %s", ", ".join(pair.term.names), _moment(pair.term.until_ms)
        )

    async def _note(self, kind: Kind, what: str, fix: str, retry_after_s: float) -> None:
        """Say what went wrong and when it is tried again, and leave a note of it for all."""
        last = self._unsaved
        try:
            last = last or await load_document(self._shelf, TROUBLE, Trouble)
        except StoreUnavailable as error:
            log.info("no note can be read: %s", error)
        now = self._now_ms()
        again = last is not None and last.directory == self._plan.directory and last.kind is kind
        failures = last.failures + 1 if again and last is not None else 1
        next_ms = now + int(pause_s(kind, failures, retry_after_s, self._draw()) * 1000)
        trouble = Trouble(
            kind, what, fix, failures, now, next_ms,
            self._plan.directory, list(self._plan.domains), self._plan.means,
        )  # fmt: skip
        self._unsaved = trouble
        try:
            if await self._shelf.hold():
                await save_document(self._shelf, TROUBLE, trouble)
                self._unsaved = None
        except StoreUnavailable as error:
            log.warning("the failure could not be noted: %s", error)
        finally:
            await self._let_go()
        log.error(
            "no new certificate for %s: %s. What to do: %s. Tried again at %s",
            ", ".join(self._plan.domains), what, fix, _moment(next_ms),
        )  # fmt: skip

    async def _let_go(self) -> None:
        try:
            await self._shelf.let_go()
        except StoreUnavailable as error:
            log.info("the shelf was not let go (%s); it is free when the lease ends", error)


def _judge(error: Exception, challenge: str) -> tuple[Kind, str, str, float]:
    """Kind, what, what to do, and what the authority asked to wait."""
    if isinstance(error, Refused):
        problem: Problem = error.problem
        what = f"{problem.type or 'refused'}: {problem.detail}"
        return kind_of(problem), what, advice(problem, challenge), problem.retry_after_s
    if isinstance(error, AuthorityAway):
        what, _, fix = str(error).partition("; ")
        return Kind.AWAY, what, fix or "nothing to do but wait", 0.0
    if isinstance(error, UnusablePair):
        return Kind.REFUSED, str(error), "try another --acme-directory", 0.0
    return Kind.LOCAL, str(error), "free some space, and check the owner and the database", 0.0


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
