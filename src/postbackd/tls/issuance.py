"""From an account to a certificate, in steps that can be killed between any two and gone on with.

Before each step that depends on it, what must not be lost is on the shelf: the account's key before it is registered,
the certificate's key before the order is made, the order's address as soon as it is known, the answers to challenges
before the authority is told to look.  Where an order stands, the authority is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from postbackd.core.acme_steps import (
    HANDSHAKE,
    Kind,
    Problem,
    Step,
    challenge_to_answer,
    kind_of,
    next_step,
    poll_pause_s,
)
from postbackd.core.certificates import missing_names
from postbackd.store.failpoints import pass_failpoint
from postbackd.store.shelf import NotHeld, Shelf
from postbackd.tls.authority import Authority, Authorization, Order, Refused
from postbackd.tls.call import AuthorityAway, Caller
from postbackd.tls.documents import (
    CERTIFICATE,
    CHALLENGES,
    ORDER,
    TLS_CHALLENGES,
    AccountDocument,
    OrderDocument,
    Plan,
    load_challenges,
    load_document,
    save_document,
    write_certificate,
)
from postbackd.tls.jose import AccountKey
from postbackd.tls.pair import Pair, UnusablePair, make_key, make_request, read_pair
from postbackd.tls.serving import check_loads

MOST_POLLS = 40
"""Looks at an order before we come back later: about three minutes."""

SEEN_S = 3.0
"""After so long every process has seen the challenges that are answered in handshakes (``watching.LOOK_S`` is 1 s): a
handshake cannot wait for the shelf to be read, as a request can."""

_UNKNOWN_ORDER = (401, 403, 404, 410)

_WORDS_FOR_A_BAD_BINDING = ("unauthorized", "malformed", "externalAccountRequired")


class _OrderLost(Exception):
    """The order came to nothing and is forgotten; the cause says why."""


class Issuance:
    """One order, begun or gone on with, by the holder of the shelf."""

    def __init__(
        self,
        shelf: Shelf,
        plan: Plan,
        caller: Caller,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self._shelf = shelf
        self._plan = plan
        self._caller = caller
        self._sleep = sleep

    async def run(self, replaces: str = "") -> Pair:
        """The new certificate, which is on the shelf by then.

        ``replaces``: the certificate that it follows, by its id.  Raises ``Refused``, ``AuthorityAway``,
        ``UnusablePair``, ``NotHeld`` and what the shelf raises.
        """
        try:
            return await self._run(replaces)
        except Refused as refused:
            if refused.problem.type != "accountDoesNotExist":
                raise
        await self._forget_account()
        return await self._run(replaces)

    async def _run(self, replaces: str) -> Pair:
        authority = await self._open_account()
        order = await self._open_order(authority, replaces)
        try:
            return await self._follow(authority, order)
        except _OrderLost as lost:
            await self._forget_order()
            raise lost.__cause__ or AuthorityAway("the order came to nothing") from None
        except Refused as refused:
            if kind_of(refused.problem) not in (Kind.AWAY, Kind.LIMITED):
                await self._forget_order()  # it would be refused the same way again
            raise

    # --- account ------------------------------------------------------------------------------------------------

    async def _open_account(self) -> Authority:
        plan, name = self._plan, self._plan.account_name
        document = await load_document(self._shelf, name, AccountDocument)
        if document is None:
            document = AccountDocument(plan.directory, AccountKey.make().write())
            await self._save(name, document)
        key = AccountKey.read(document.key)
        authority = Authority(plan.directory, self._caller, key, document.url)
        if document.url is None:
            url = await _register(authority, plan)
            pass_failpoint("acme_registered")
            await self._save(name, msgspec.structs.replace(document, url=url))
        return authority

    async def _forget_account(self) -> None:
        """The authority does not know it: it is registered anew, with the same key."""
        document = await load_document(self._shelf, self._plan.account_name, AccountDocument)
        if document is not None:
            await self._save(self._plan.account_name, msgspec.structs.replace(document, url=None))
        await self._forget_order()

    # --- order --------------------------------------------------------------------------------------------------

    async def _open_order(self, authority: Authority, replaces: str) -> OrderDocument:
        document = await load_document(self._shelf, ORDER, OrderDocument)
        if document is not None and await self._is_done(document):
            document = None
        lost = 0
        if document is not None and document.is_for(self._plan) and document.url is not None:
            # A validation fails when we are killed meanwhile.  That is worth another order at once, but only one: a
            # process that is killed again and again must not use up what the authority bears.
            if document.lost or await self._is_known(authority, document.url):
                return document
            document, lost = None, 1
        if document is None or not document.is_for(self._plan):
            document = OrderDocument(self._plan.directory, list(self._plan.domains), make_key(), lost=lost)
            await self._save(ORDER, document)
        url = await _order(authority, self._plan.domains, replaces)
        pass_failpoint("acme_ordered")
        document = msgspec.structs.replace(document, url=url)
        await self._save(ORDER, document)
        return document

    async def _is_done(self, document: OrderDocument) -> bool:
        """Whether its certificate is on the shelf: whoever put it there was killed before the order was forgotten."""
        return document.key.encode("ascii") in (await self._shelf.load(CERTIFICATE) or b"")

    async def _is_known(self, authority: Authority, url: str) -> bool:
        """Whether the authority still knows the order and it may come to something."""
        try:
            order = await authority.look_at_order(url)
        except Refused as refused:
            if refused.problem.type == "accountDoesNotExist" or refused.problem.status not in _UNKNOWN_ORDER:
                raise
            return False
        return order.status != "invalid"

    async def _follow(self, authority: Authority, document: OrderDocument) -> Pair:
        """Do the steps of an order until there is a certificate."""
        assert document.url is not None
        for polls in range(MOST_POLLS):
            await self._check_held()
            order = await authority.look_at_order(document.url)
            authorizations: Sequence[Authorization] = ()
            if order.status == "pending":
                authorizations = [await authority.look_at_authorization(url) for url in order.authorizations]
            step = next_step(order.status, [authorization.status for authorization in authorizations])
            if step is Step.GIVE_UP:
                raise _OrderLost from Refused(_why(order, authorizations))
            if step is Step.FETCH:
                return await self._fetch(authority, order, document)
            if step is Step.FINALIZE:
                order = await authority.finalize(order.finalize, make_request(document.key, document.domains))
                pass_failpoint("acme_finalized")
            if step is Step.PROVE:
                await self._prove(authority, authorizations)
            hints = [order.retry_after_s, *(authorization.retry_after_s for authorization in authorizations)]
            if order.status != "valid":
                await self._sleep(poll_pause_s(max(hints), polls))
        raise AuthorityAway("the authority has not decided about the order; it is gone on with later")

    async def _prove(self, authority: Authority, authorizations: Sequence[Authorization]) -> None:
        """Lay out the answers to all challenges, then tell the authority of those that it does not know of."""
        chosen = []
        for authorization in authorizations:
            if authorization.status != "pending":
                continue
            challenge = challenge_to_answer(authorization.challenges, self._plan.challenge)
            if challenge is None:
                raise _OrderLost from Refused(_not_offered(authorization, self._plan.challenge))
            chosen.append((authorization.name, challenge))
        await self._lay_out({name: str(challenge["token"]) for name, challenge in chosen})
        for _, challenge in chosen:
            if challenge.get("status") == "pending":
                await authority.accept(str(challenge["url"]))
                pass_failpoint("acme_accepted")

    async def _lay_out(self, tokens: Mapping[str, str]) -> None:
        """Put the answers where every process finds them; ``tokens``: of the challenges, by domain."""
        account = await load_document(self._shelf, self._plan.account_name, AccountDocument)
        if account is None:
            raise NotHeld("the account has gone from the shelf")
        key = AccountKey.read(account.key)
        in_handshakes = self._plan.challenge == HANDSHAKE
        document = TLS_CHALLENGES if in_handshakes else CHALLENGES
        answers = {name if in_handshakes else token: key.authorize(token) for name, token in tokens.items()}
        if not answers.items() <= (await load_challenges(self._shelf, document)).items():
            await self._shelf.save(document, msgspec.json.encode(answers))
        if in_handshakes:
            await self._sleep(SEEN_S)
            await self._check_held()

    async def _fetch(self, authority: Authority, order: Order, document: OrderDocument) -> Pair:
        chain = await authority.fetch(order.certificate)
        pass_failpoint("acme_fetched")
        try:
            pair = read_pair(document.key.encode("ascii") + chain)
            check_loads(pair)
        except UnusablePair as error:
            raise _OrderLost from UnusablePair(f"the authority's certificate: {error}")
        if missing := missing_names(pair.term.names, self._plan.domains):
            raise _OrderLost from UnusablePair(f"the authority's certificate lacks {', '.join(missing)}")
        await self._shelf.save(CERTIFICATE, write_certificate(pair, self._plan.directory))
        await self._forget_order()
        return pair

    async def _forget_order(self) -> None:
        for name in (ORDER, CHALLENGES, TLS_CHALLENGES):
            await self._shelf.remove(name)

    # --- shelf --------------------------------------------------------------------------------------------------

    async def _save(self, name: str, document: msgspec.Struct) -> None:
        await self._check_held()
        await save_document(self._shelf, name, document)

    async def _check_held(self) -> None:
        if not await self._shelf.hold():
            raise NotHeld("another process looks after the certificate now")


async def _register(authority: Authority, plan: Plan) -> str:
    try:
        return await authority.register(plan.email, plan.binding)
    except Refused as refused:
        problem = refused.problem
        if plan.binding is None or problem.type not in _WORDS_FOR_A_BAD_BINDING:
            raise
        words = f"{problem.detail} ({problem.type}, of the key id {plan.binding.kid})"
        raise Refused(msgspec.structs.replace(problem, type="bindingRefused", detail=words)) from refused


async def _order(authority: Authority, domains: Sequence[str], replaces: str) -> str:
    """A new order; one that the authority does not take as a successor is made without saying what it follows."""
    try:
        return await authority.order(domains, replaces)
    except Refused as refused:
        if not replaces or refused.problem.type not in ("alreadyReplaced", "malformed", "unauthorized"):
            raise
    return await authority.order(domains, "")


def _not_offered(authorization: Authorization, kind: str) -> Problem:
    offered = ", ".join(sorted({str(challenge.get("type")) for challenge in authorization.challenges}))
    return Problem(
        "challengeNotOffered", f"{authorization.name}: {kind} is not offered, but {offered or 'nothing'}"
    )


def _why(order: Order, authorizations: Sequence[Authorization]) -> Problem:
    """Why an order came to nothing, as exactly as the authority says it."""
    for authorization in authorizations:
        if authorization.status != "valid" and (problem := authorization.problem) is not None:
            return problem
    return order.problem or Problem("", f"the order is {order.status}, and the authority does not say why")
