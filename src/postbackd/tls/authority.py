"""An authority that speaks ACME (RFC 8555) and tells when to renew (RFC 9773): requests and what they mean.

Our own and small, because the usual library would bring eight distributions for what is done here with ``cryptography``
(docs/decisions/0009-acme.md).  Nothing is decided here and nothing is kept but nonces.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from time import time
from typing import Any

from msgspec import Struct

from postbackd.core.acme_steps import Problem
from postbackd.core.certificates import Window
from postbackd.core.replies import excerpt, read_retry_after
from postbackd.tls.call import AuthorityAway, Caller, Reply
from postbackd.tls.documents import Binding
from postbackd.tls.jose import AccountKey, encode

MOST_NONCES_TRIED = 20
"""An authority that has lost its nonces refuses a few; only one that is broken refuses this many."""

_MOST_NONCES_KEPT = 8
_LONGEST_DETAIL = 400


class Refused(Exception):
    """The authority answered with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.type}: {problem.detail}")
        self.problem = problem


class Order(Struct, frozen=True):
    """An order as the authority describes it."""

    status: str
    authorizations: Sequence[str]
    finalize: str
    certificate: str
    problem: Problem | None
    retry_after_s: float


class Authorization(Struct, frozen=True):
    """What the authority wants to see proved for one name."""

    name: str
    status: str
    challenges: Sequence[Mapping[str, Any]]
    retry_after_s: float

    @property
    def problem(self) -> Problem | None:
        """Why it is not valid, in the authority's words."""
        for challenge in self.challenges:
            if challenge.get("error"):
                return read_problem(challenge["error"], 0, f"{self.name}: ")
        return None


class Suggestion(Struct, frozen=True):
    """When to renew, and when to ask again (0: it did not say)."""

    window: Window
    retry_after_ms: int
    explanation: str


class Authority:
    """One authority, spoken to with one key."""

    def __init__(self, directory: str, caller: Caller, key: AccountKey, account: str | None = None) -> None:
        """``directory``: the address where it all begins; ``account``: of the key, once it is registered."""
        self._directory_url = directory
        self._caller = caller
        self._key = key
        self.account = account
        self._directory: Mapping[str, Any] = {}
        self._nonces: list[str] = []

    # --- what is asked ------------------------------------------------------------------------------------------

    async def register(self, email: str | None, binding: Binding | None = None) -> str:
        """The address of the key's account, which is made when there is none; agrees to the authority's terms."""
        url = await self._address("newAccount")
        document: dict[str, Any] = {"termsOfServiceAgreed": True}
        if email:
            document["contact"] = [f"mailto:{email}"]
        if binding is not None:
            document["externalAccountBinding"] = self._key.bind(binding.kid, binding.key, url)
        reply = await self._post(url, document, by_key=True)
        self.account = _location(reply)
        return self.account

    async def order(self, domains: Sequence[str], replaces: str) -> str:
        """The address of a new order; ``replaces``: the certificate that it is to follow (RFC 9773 section 5)."""
        document: dict[str, Any] = {"identifiers": [{"type": "dns", "value": name} for name in domains]}
        if replaces and await self.suggests():
            document["replaces"] = replaces
        return _location(await self._post(await self._address("newOrder"), document))

    async def look_at_order(self, url: str) -> Order:
        reply = await self._post(url, None)
        return _read_order(reply)

    async def look_at_authorization(self, url: str) -> Authorization:
        reply = await self._post(url, None)
        document = _read_json(reply)
        return Authorization(
            str(document.get("identifier", {}).get("value", "")),
            str(document.get("status", "")),
            [challenge for challenge in document.get("challenges", ()) if isinstance(challenge, dict)],
            _retry_after_s(reply),
        )

    async def accept(self, challenge_url: str) -> None:
        """Say that the answer to a challenge can be looked at."""
        await self._post(challenge_url, {})

    async def finalize(self, url: str, request: bytes) -> Order:
        """Hand in the request (DER) for the certificate."""
        return _read_order(await self._post(url, {"csr": encode(request)}))

    async def fetch(self, url: str) -> bytes:
        """The certificates in PEM, the server's own first."""
        return (await self._post(url, None, accept="application/pem-certificate-chain")).body

    async def suggests(self) -> bool:
        """Whether this authority tells when to renew."""
        return "renewalInfo" in await self._read_directory()

    async def suggest(self, certificate_id: str) -> Suggestion:
        """When to renew.  Raises ``AuthorityAway`` also when the answer makes no sense."""
        base = (await self._address("renewalInfo")).rstrip("/")
        reply = await self._caller.call("GET", f"{base}/{certificate_id}")
        _check(reply)
        document = _read_json(reply)
        try:
            window = document["suggestedWindow"]
            start, end = (int(_read_time(window[name]) * 1000) for name in ("start", "end"))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise AuthorityAway("the authority's suggestion when to renew cannot be read") from error
        wait_ms = read_retry_after(reply.headers.get("retry-after", ""), int(time() * 1000))
        return Suggestion(Window(start, end), wait_ms, excerpt(str(document.get("explanationURL", "")), 200))

    # --- how ----------------------------------------------------------------------------------------------------

    async def _address(self, name: str) -> str:
        address = (await self._read_directory()).get(name)
        if not isinstance(address, str):
            raise AuthorityAway(f"{self._directory_url} offers no {name}; check --acme-directory")
        return address

    async def _read_directory(self) -> Mapping[str, Any]:
        if not self._directory:
            reply = await self._caller.call("GET", self._directory_url)
            _check(reply)
            self._directory = _read_json(reply)
        return self._directory

    async def _post(
        self, url: str, payload: Mapping[str, Any] | None, *, by_key: bool = False, accept: str = ""
    ) -> Reply:
        """A signed request; again with another nonce when the authority does not know the one we had."""
        for _ in range(MOST_NONCES_TRIED):
            nonce = self._nonces.pop() if self._nonces else await self._ask_nonce()
            body = self._key.sign(url, nonce, payload, None if by_key else self.account)
            reply = await self._caller.call("POST", url, body, accept)
            self._keep_nonce(reply)
            try:
                _check(reply)
            except Refused as refused:
                if refused.problem.type != "badNonce":
                    raise
                last = refused
            else:
                return reply
        raise last

    async def _ask_nonce(self) -> str:
        reply = await self._caller.call("HEAD", await self._address("newNonce"))
        _check(reply)
        nonce = reply.headers.get("replay-nonce")
        if not nonce:
            raise AuthorityAway("the authority gives out no nonce; check --acme-directory")
        return nonce

    def _keep_nonce(self, reply: Reply) -> None:
        if nonce := reply.headers.get("replay-nonce"):
            self._nonces = [*self._nonces, nonce][-_MOST_NONCES_KEPT:]


# --- reading -----------------------------------------------------------------------------------------------------


def _check(reply: Reply) -> None:
    """Raises ``Refused`` for a problem, ``AuthorityAway`` for what no authority answers."""
    if 200 <= reply.status < 300:
        return
    retry_after_s = _retry_after_s(reply)
    try:
        document = json.loads(reply.body)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict) and "type" in document:
        problem = read_problem(document, reply.status)
    else:
        text = excerpt(reply.body.decode("utf-8", "replace"), 100)
        problem = Problem("", f"HTTP {reply.status} {text}".strip(), reply.status)
    raise Refused(Problem(problem.type, problem.detail, reply.status, retry_after_s))


def read_problem(document: Any, status: int, prefix: str = "") -> Problem:
    """A problem document; its subproblems are told in the detail."""
    if not isinstance(document, dict):
        return Problem("", prefix + excerpt(str(document), _LONGEST_DETAIL), status)
    details = [str(document.get("detail", ""))]
    for below in document.get("subproblems") or ():
        if isinstance(below, dict):
            name = (below.get("identifier") or {}).get("value", "")
            details.append(f"{name}: {below.get('detail', '')}")
    kind = excerpt(str(document.get("type", "")), 100).rpartition(":")[2]
    return Problem(kind, excerpt(prefix + "; ".join(filter(None, details)), _LONGEST_DETAIL), status)


def _read_order(reply: Reply) -> Order:
    document = _read_json(reply)
    error = document.get("error")
    return Order(
        str(document.get("status", "")),
        [str(url) for url in document.get("authorizations", ())],
        str(document.get("finalize", "")),
        str(document.get("certificate", "")),
        read_problem(error, 0) if error else None,
        _retry_after_s(reply),
    )


def _read_json(reply: Reply) -> dict[str, Any]:
    try:
        document = json.loads(reply.body)
    except (ValueError, RecursionError) as error:
        raise AuthorityAway("the authority's answer is not JSON; check --acme-directory") from error
    if not isinstance(document, dict):
        raise AuthorityAway("the authority's answer is no JSON object; check --acme-directory")
    return document


def _location(reply: Reply) -> str:
    location = reply.headers.get("location")
    if not location:
        raise AuthorityAway("the authority did not say where what it made is (no Location)")
    return location


def _retry_after_s(reply: Reply) -> float:
    return read_retry_after(reply.headers.get("retry-after", ""), int(time() * 1000)) / 1000


def _read_time(text: str) -> float:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.timestamp()
