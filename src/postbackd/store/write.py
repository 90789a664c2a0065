"""The one write path: a batch of clicks and postbacks becomes rows, inside one transaction.

``settle`` says in which order things happen and decides with ``core.rules``; a ``Transaction`` is what a database must
be able to do for it, one set of rows a call.  The unique key of the conversions decides what is counted: rows
are inserted first, and only where fewer went in than were offered does anything look at what was there before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter

from postbackd.core.checksum import carry
from postbackd.core.click_id import stamp_ms, write_stamp
from postbackd.core.diagnosis import Reason
from postbackd.core.model import ERASED_BIT, Channel, Click, ClickRef, Dedup, Postback, Request, Terms
from postbackd.core.rollups import Kind, slot_of
from postbackd.core.rulebook import Rulebook
from postbackd.core.rules import Conversion, check_window, moves_status, repeat
from postbackd.core.verdicts import Verdict
from postbackd.store.base import Batch, Outcome, Written
from postbackd.store.failpoints import pass_failpoint
from postbackd.store.money_rows import columns_of, conversion_row, history_row, resealed
from postbackd.store.rollups import late_slots
from postbackd.store.transaction import Key, Row, StoredClick, Transaction

_Offered = tuple[int, Key, Row]
"""(position in the batch, key, row): a conversion to be counted if its key is new."""

_Repeat = tuple[int, Key, Outcome | None]
"""(position, key, outcome): a postback that cannot make a conversion, but may speak of one that is counted already;
the outcome is for when it does not.  ``None``: the key is known to be counted."""


async def settle(tx: Transaction, batch: Batch, rulebook: Rulebook, late_before: int = 0) -> Written:
    """Write the batch; returns what became of each click and postback, in the batch's order.

    ``late_before``: rows with a smaller stamp may have been rolled up without being there (see ``store.rollups``).
    """
    stored: Sequence[int] = ()
    late = late_slots(batch, late_before)
    if late:
        await tx.mark_slots(late)
    postbacks: Sequence[Postback] = batch.postbacks
    if batch.clicks:
        stored = await _write_clicks(tx, batch.clicks)
    if batch.clicks or batch.arrived:
        waited = await _late_postbacks(tx, batch, rulebook)
        if waited:
            postbacks = [*waited, *postbacks]
    if not postbacks:
        return Written(stored, ())
    outcomes = await _settle_postbacks(tx, rulebook, postbacks)
    return Written(stored, outcomes[len(outcomes) - len(batch.postbacks) :])


async def _settle_postbacks(
    tx: Transaction, rulebook: Rulebook, postbacks: Sequence[Postback]
) -> Sequence[Outcome]:
    """The pixel's postbacks first, so that an S2S postback of the same sale finds what the pixel brought."""
    if all(postback.request.channel == Channel.S2S for postback in postbacks):
        return await _Settlement(tx, rulebook, postbacks).settle()
    outcomes: dict[int, Outcome] = {}
    for channel in (Channel.PIXEL, Channel.S2S):
        chosen = [(i, p) for i, p in enumerate(postbacks) if p.request.channel == channel]
        run = _Settlement(tx, rulebook, [postback for _, postback in chosen])
        outcomes |= zip((i for i, _ in chosen), await run.settle(), strict=True)
    return [outcomes[index] for index in range(len(postbacks))]


async def _write_clicks(tx: Transaction, clicks: Sequence[Click]) -> Sequence[int]:
    own_ids = {click.own_id: click.stamp for click in reversed(clicks) if click.own_id}
    if not own_ids:
        await tx.add_clicks(clicks)
        return [click.stamp for click in clicks]
    holders = dict(await tx.claim_own_ids(own_ids))
    gone = {own_id: stamp for own_id, stamp in own_ids.items() if own_id not in holders}
    if gone:  # held by a click that has been purged since we lost to it
        holders |= await tx.claim_own_ids(gone)
    stored = [holders[click.own_id] if click.own_id else click.stamp for click in clicks]
    await tx.add_clicks([click for click, stamp in zip(clicks, stored, strict=True) if click.stamp == stamp])
    return stored


async def _late_postbacks(tx: Transaction, batch: Batch, rulebook: Rulebook) -> Sequence[Postback]:
    """Postbacks that arrived before their click did, judged again by today's settings."""
    refs = [own_ref(click.own_id) if click.own_id else stamp_ref(click.stamp) for click in batch.clicks]
    refs += batch.arrived
    waiting = await tx.take_waiting(refs)
    judged = (rulebook.judge_again(postback) for postback in waiting)
    return [postback for postback in judged if postback is not None]


def stamp_ref(stamp: int) -> str:
    """What a click of ours is waited for by."""
    return f"#{stamp}"


def own_ref(own_id: str) -> str:
    """What a click with a caller's own id is waited for by."""
    return f"={own_id}"


class _Settlement:
    """One run over the postbacks of a batch, all of one channel."""

    def __init__(self, tx: Transaction, rulebook: Rulebook, postbacks: Sequence[Postback]) -> None:
        self.tx = tx
        self.rulebook = rulebook
        self.postbacks = postbacks
        self.outcomes: list[Outcome] = [_UNDECIDED] * len(postbacks)
        self.clicks: dict[int, tuple[int, StoredClick]] = {}
        """Position in the batch -> (stamp, click) of what was found."""
        self.erased: set[int] = set()
        """Positions of postbacks for clicks that were erased: what they bring is kept without their data."""
        self.waiting: list[tuple[str, int]] = []
        self.events: list[Row] = []
        """For the outbox: what happened to conversions that a source wants to hear of."""

    async def settle(self) -> Sequence[Outcome]:
        offered, repeats = await self._match()
        if self.postbacks and self.postbacks[0].request.channel == Channel.PIXEL:
            offered = await self._find_counterparts(offered, repeats)
        elif (offered or repeats) and await self.tx.has_pixel_conversions():
            offered = await self._adopt(offered, repeats)
        repeats += await self._count(offered)
        if repeats:
            await self._repeat(repeats)
        pass_failpoint("mid_batch")
        if self.waiting:
            await self.tx.add_waiting(self.waiting)
        if self.events:
            await self.tx.add_events(self.events)
        await self._log()
        return self.outcomes

    # --- which click -----------------------------------------------------------------------------------------

    async def _match(self) -> tuple[list[_Offered], list[_Repeat]]:
        """Find the clicks.  Returns what to offer to the unique key, and what only a stored conversion can accept."""
        owned, clicks, gone = await self._find_clicks()
        offered: list[_Offered] = []
        late: list[_Repeat] = []
        offers = self.rulebook.offers
        for index, postback in enumerate(self.postbacks):
            if postback.verdict:
                self.outcomes[index] = Outcome(Verdict(postback.verdict), postback.reason)
                continue
            stamp = postback.click.click_id
            if stamp is None:
                stamp = owned.get(postback.click.own_id or "", -1)
            click = clicks.get(stamp)
            key = (stamp, postback.terms.type, postback.transaction_id)
            if stamp in gone or (click is not None and click[2] & ERASED_BIT):
                self.erased.add(index)
                key = (stamp, key[1], self.rulebook.masker.conceal(stamp, key[2]))
            if click is None:
                late.append((index, key, await self._unmatched(postback)))
                continue
            self.clicks[index] = (stamp, click)
            offer = offers.get(click[1])
            outside = offer and check_window(offer, stamp, postback.request.request_id, postback.time_ms)
            if outside:
                late.append((index, key, Outcome(Verdict.REJECTED, outside)))
            else:
                offered.append((index, key, conversion_row(key, postback, click)))
        return offered, late

    async def _find_clicks(self) -> tuple[Mapping[str, int], Mapping[int, StoredClick], Collection[int]]:
        """The stamps that own ids stand for, the clicks, and which of those that are not there were erased."""
        stamps: list[int] = []
        own_ids: list[str] = []
        for postback in self.postbacks:
            if postback.verdict:
                continue
            click = postback.click
            if click.click_id is not None:
                stamps.append(click.click_id)
            elif click.own_id is not None:
                own_ids.append(click.own_id)
        owned: Mapping[str, int] = {}
        if own_ids:
            owned = await self._find_own_ids(own_ids)
            stamps += owned.values()
        if not stamps:
            return owned, {}, ()
        clicks = await self.tx.find_clicks(stamps)
        missing = () if len(clicks) == len(stamps) else set(stamps) - clicks.keys()
        return owned, clicks, await self.tx.find_erased(sorted(missing)) if missing else ()

    async def _find_own_ids(self, own_ids: Sequence[str]) -> Mapping[str, int]:
        """The clicks that hold own ids; that of an erased one is kept under a hash."""
        owned = dict(await self.tx.find_own_ids(own_ids))
        unknown = {
            self.rulebook.masker.conceal(0, own_id): own_id for own_id in own_ids if own_id not in owned
        }
        if unknown:
            found = await self.tx.find_own_ids(list(unknown))
            owned |= {unknown[hashed]: stamp for hashed, stamp in found.items()}
        return owned

    async def _unmatched(self, postback: Postback) -> Outcome:
        """Why there is no click.  A conversion may be there all the same: it outlives its click."""
        click = postback.click
        if click.click_id is None:
            return Outcome(Verdict.UNMATCHED, click.reason)
        if click.click_id < await self.tx.purged_before():
            return Outcome(Verdict.UNMATCHED, Reason.CLICK_PURGED)
        return Outcome(Verdict.UNMATCHED, Reason.CLICK_NOT_YET_SEEN)

    def _refuse(self, index: int, outcome: Outcome) -> None:
        """Nothing is counted under the key: the postback stays out, and waits if its click may still come."""
        self.outcomes[index] = outcome
        if outcome.verdict is not Verdict.UNMATCHED or outcome.reason == Reason.CLICK_PURGED:
            return
        if index in self.erased:
            return
        postback = self.postbacks[index]
        click = postback.click
        ref = own_ref(click.own_id or "") if click.click_id is None else stamp_ref(click.click_id)
        self.waiting.append((ref, postback.request.request_id))

    # --- counted once ----------------------------------------------------------------------------------------

    async def _count(self, offered: list[_Offered]) -> list[_Repeat]:
        """Offer the rows to the unique key; returns the ones that were there before."""
        if not offered:
            return []
        added = await self.tx.add_conversions([row for _, _, row in offered])
        if added == len(offered):
            for index, _, row in offered:
                self._accept(index, row)
            return []
        held_by = await self.tx.find_conversions([key for _, key, _ in offered])
        repeats: list[_Repeat] = []
        for index, key, row in offered:
            if held_by[key].conversion_id == row[3]:
                self._accept(index, row)
            else:
                repeats.append((index, key, None))
        return repeats

    def _accept(self, index: int, row: Row) -> None:
        click_id, _, _, conversion_id, _, campaign, _, status, value_micros, currency, *_ = row
        self.outcomes[index] = Outcome(Verdict.ACCEPTED, _warning(self.postbacks[index]), conversion_id)
        if self.rulebook.owes(campaign) and index not in self.erased:
            self.events.append((conversion_id, click_id, conversion_id, 0, status, 0, value_micros, currency))

    async def _repeat(self, repeats: list[_Repeat]) -> None:
        """Decide the postbacks whose key is counted already, in their order, each on top of the one before."""
        before = await self.tx.lock_conversions([key for _, key, _ in repeats])
        now = dict(before)
        history: list[Row] = []
        more: list[Row] = []
        for index, key, otherwise in sorted(repeats, key=itemgetter(0)):
            postback = self.postbacks[index]
            current = now.get(key)
            if current is None:
                assert otherwise is not None  # the key itself refused the row
                self._refuse(index, otherwise)
                continue
            dedup = self.rulebook.dedup.get(postback.request.network, Dedup.IGNORE)
            if dedup is Dedup.ADD and otherwise is None and _is_another(current, key, postback):
                more.append(self._another(index, key, postback))
                continue
            decided = repeat(current, postback, dedup)
            now[key] = decided.conversion
            if decided.verdict is Verdict.UPDATED:
                word = None if index in self.erased else postback.terms.status_text
                history.append(history_row(key, postback, word, current, decided.conversion))
                self._note_change(index, key, current, decided.conversion)
            self.outcomes[index] = Outcome(
                decided.verdict, decided.reason or _warning(postback), current.conversion_id
            )
        changed = {
            key: resealed(key, before[key], after) for key, after in now.items() if after != before[key]
        }
        if changed:
            await self.tx.change_conversions(changed)
        if history:
            await self.tx.add_history(history)
        if more:
            await self.tx.add_conversions(more)

    def _another(self, index: int, key: Key, postback: Postback) -> Row:
        """In ``add`` mode a repeat without transaction id is one more conversion, under a key of its own."""
        another = (key[0], key[1], f"#{write_stamp(postback.request.request_id)}")
        row = conversion_row(another, postback, self.clicks[index][1])
        self._accept(index, row)
        return row

    def _note_change(self, index: int, key: Key, before: Conversion, after: Conversion) -> None:
        found, postback = self.clicks.get(index), self.postbacks[index]
        if index not in self.erased and self.rulebook.owes(found[1][0] if found else postback.click.campaign):
            self.events.append((
                postback.request.request_id, key[0], before.conversion_id, before.status, after.status,
                before.value_micros, after.value_micros, after.currency,
            ))  # fmt: skip

    # --- pixel and S2S are two views of one conversion ---------------------------------------------------------

    async def _find_counterparts(self, offered: list[_Offered], repeats: list[_Repeat]) -> list[_Offered]:
        """A pixel that names no transaction is the click's conversion of that type, when one is counted already."""
        new: list[_Offered] = []
        for entry in offered:
            index, key, _ = entry
            first = None if key[2] else await self.tx.first_conversion(key[0], key[1])
            if first is not None:
                repeats.append((index, first, None))
            else:
                new.append(entry)
        await self.tx.add_pixel_conversions([(key[0], key[1]) for _, key, _ in new if not key[2]])
        return new

    async def _adopt(self, offered: list[_Offered], repeats: list[_Repeat]) -> list[_Offered]:
        """An S2S postback gives its transaction id to the conversion that the pixel brought without one.

        One without an id confirms that conversion as it is, so that no later id takes it for the pixel's alone.  One
        that came too late to be counted itself (it is among ``repeats``) can confirm all the same.
        """
        keys = [entry[1] for entry in (*offered, *repeats)]
        known = await self.tx.find_conversions(keys)
        confirming = {key for key in keys if not key[2] or key not in known}
        pending = await self.tx.take_pixel_conversions([(key[0], key[1]) for key in confirming])
        for _, key, _ in repeats:
            if key in confirming and key[:2] in pending:
                await self._name_conversion(key, pending)
        new: list[_Offered] = []
        for entry in offered:
            index, key, _ = entry
            if key in confirming and key[:2] in pending and await self._name_conversion(key, pending):
                repeats.append((index, key, None))
            else:
                new.append(entry)
        return new

    async def _name_conversion(self, key: Key, pending: set[tuple[int, str]]) -> bool:
        """The pixel's conversion is confirmed; returns whether it got a transaction id."""
        pending.discard(key[:2])
        if not key[2]:
            return False
        unnamed = (key[0], key[1], "")
        for found in (await self.tx.lock_conversions([unnamed])).values():
            sealed = carry(found.checksum, columns_of(unnamed, found), columns_of(key, found))
            await self.tx.rename_conversion(unnamed, key[2], sealed)
        return True

    # --- the log ---------------------------------------------------------------------------------------------

    async def _log(self) -> None:
        new: list[Row] = []
        again: list[Row] = []
        clicks = self.clicks
        for index, postback in enumerate(self.postbacks):
            outcome, request = self.outcomes[index], postback.request
            found = clicks.get(index)
            if found is not None:
                click_id: int | None = found[0]
                campaign: int | None = found[1][0]
            else:
                click_id, campaign = postback.click.click_id, postback.click.campaign
            if postback.replay:
                again.append((
                    outcome.verdict, outcome.reason, click_id, campaign, outcome.conversion_id,
                    request.request_id,
                ))  # fmt: skip
                continue
            terms = postback.terms
            if index in self.erased:
                new.append(self._concealed_row(postback, outcome, click_id, campaign))
                continue
            new.append((
                request.request_id, request.network, request.channel, outcome.verdict, outcome.reason,
                click_id, campaign, outcome.conversion_id, postback.click_text, terms.type_text,
                terms.value_text, terms.currency_text, postback.transaction_text, terms.status_text,
                postback.time_text, postback.click.found_in, request.body_bytes, postback.parameters,
                postback.observed, postback.sender,
            ))  # fmt: skip
        if new:
            await self.tx.add_postbacks(new)
        if again:
            await self.tx.change_postbacks(again)
            await self.tx.mark_slots({(Kind.POSTBACKS, slot_of(row[-1])) for row in again})

    def _concealed_row(
        self, postback: Postback, outcome: Outcome, click_id: int | None, campaign: int | None
    ) -> Row:
        """The log row of a postback for an erased click."""
        request = postback.request
        transaction = postback.transaction_text
        if transaction:
            transaction = self.rulebook.masker.conceal(click_id or 0, transaction.strip())
        return (
            request.request_id, request.network, request.channel, outcome.verdict, outcome.reason,
            click_id, campaign, outcome.conversion_id, ERASED_TEXT, postback.terms.type_text,
            None, None, transaction, None, None, None, request.body_bytes, postback.parameters,
            postback.observed, None,
        )  # fmt: skip


ERASED_TEXT = "erased"
"""``click_text`` of a log row whose data was erased, or never kept because its click's was: not to be judged again."""

_UNDECIDED = Outcome(Verdict.REJECTED)


def _is_another(current: Conversion, key: Key, postback: Postback) -> bool:
    """In ``add`` mode: whether a repeat without transaction id is one more conversion.

    It is not when it moves the status of the one there is, or is another channel's view of it.
    """
    if postback.transaction_id or key[2] or not current.channels & postback.request.channel:
        return False
    return not moves_status(current, postback)


def _warning(postback: Postback) -> int:
    """What the sender should hear although the postback was matched; what was wrong with an id only if it is ours."""
    if postback.reason or postback.click.click_id is None:
        return postback.reason
    return postback.click.reason


STORED_FIELDS = """
p.request_id, p.network, p.channel, p.bytes, p.parameters, p.click_text, p.type, p.value, p.currency,
p.transaction_id, p.status, p.time, p.click_id, p.campaign
"""
"""Columns of a row of the postback log, as ``read_postback`` takes them."""


def read_postback(row: Row) -> Postback:
    """A row of the postback log (``STORED_FIELDS``), in the form in which it can be judged again."""
    (
        request_id, network, channel, body_bytes, parameters,
        click_text, type_, value, currency, transaction_id, status, time, click_id, campaign,
    ) = row  # fmt: skip
    return Postback(
        Request(request_id, network, channel, body_bytes, stamp_ms(request_id)),
        parameters,
        ClickRef(click_id, campaign),
        click_text,
        Terms(type_, value, currency, status),
        transaction_id,
        time,
        verdict=Verdict.UNMATCHED,
    )
