"""Decisions of a client of RFC 8555: the next step of an order, how long to wait after a failure, what to tell.

What an order looks like comes from the authority each time; nothing is remembered here, so that a process that was
killed goes on where the authority says that it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from msgspec import Struct

_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3600.0, 86_400.0


class Step(Enum):
    """What to do about an order."""

    PROVE = "answer the challenges"
    WAIT = "wait for the authority"
    FINALIZE = "send the request for the certificate"
    FETCH = "fetch the certificate"
    GIVE_UP = "begin a new order another time"


def next_step(order_status: str, authorization_statuses: Sequence[str]) -> Step:
    """The next step of an order (RFC 8555 section 7.1.6).

    ``authorization_statuses``: of its authorizations; looked at only while the order is pending.
    """
    if order_status == "valid":
        return Step.FETCH
    if order_status == "ready":
        return Step.FINALIZE
    if order_status == "processing":
        return Step.WAIT
    if order_status != "pending":  # invalid, or a word that we do not know
        return Step.GIVE_UP
    if any(status not in ("pending", "valid") for status in authorization_statuses):
        return Step.GIVE_UP
    return Step.PROVE if "pending" in authorization_statuses else Step.WAIT


HTTP, HANDSHAKE = "http-01", "tls-alpn-01"
"""Challenges that are answered: by plain HTTP on port 80; with a certificate in a handshake on port 443 (RFC 8737)."""


def challenge_to_answer(challenges: Sequence[Mapping[str, object]], kind: str) -> Mapping[str, object] | None:
    """The challenge of an authorization that is of a kind; ``None``: the authority offers none."""
    return next((challenge for challenge in challenges if challenge.get("type") == kind), None)


# --- failures ----------------------------------------------------------------------------------------------------


class Kind(Enum):
    """Sorts of failure, by how soon another try makes sense."""

    AWAY = "away"
    """The authority does not answer, or answers nonsense or 5xx."""
    LIMITED = "limited"
    """It says that we ask too often."""
    UNPROVEN = "unproven"
    """It could not see the answer to its challenge."""
    REFUSED = "refused"
    """It does not want what we ask: an operator has to act."""
    LOCAL = "local"
    """This machine is in the way: disk, clock, database."""


_PAUSES: Mapping[Kind, tuple[float, float]] = {
    Kind.AWAY: (10.0, _HOUR_S),
    Kind.LIMITED: (10 * _MINUTE_S, 6 * _HOUR_S),
    # Let's Encrypt lets an account fail 5 validations of a name an hour: never nearer than 15 minutes.
    Kind.UNPROVEN: (15 * _MINUTE_S, 6 * _HOUR_S),
    Kind.REFUSED: (15 * _MINUTE_S, 6 * _HOUR_S),
    Kind.LOCAL: (10.0, _HOUR_S),
}
"""The first pause and the longest; each is twice the one before."""

CLOCK_PAUSE_S = _DAY_S
"""After a certificate that our clock calls old at birth: the next one would be called the same."""

_JITTER = 0.2


def pause_s(kind: Kind, failures: int, retry_after_s: float, draw: float) -> float:
    """How long to wait after a failure; never shorter than the authority asked for, and up to a fifth longer.

    ``failures``: how many there were in a row, this one included.  ``draw``: random, from 0 up to 1.
    """
    first, longest = _PAUSES[kind]
    own: float = min(first * 2.0 ** min(failures - 1, 20), longest)
    return max(own, retry_after_s) * (1 + _JITTER * draw)


def poll_pause_s(retry_after_s: float, polls: int) -> float:
    """How long to wait before an order is looked at again: what the authority says within reason, else 0.5 to 5 s."""
    own: float = min(0.5 * 1.5 ** min(polls, 20), 5.0)
    return min(max(own, retry_after_s), 60.0)


class Problem(Struct, frozen=True):
    """A problem document (RFC 7807, RFC 8555 section 6.7), as far as it is used."""

    type: str
    """The last part of the URN."""
    detail: str
    status: int = 0
    retry_after_s: float = 0.0


_KINDS: Mapping[str, Kind] = {
    "rateLimited": Kind.LIMITED,
    "badNonce": Kind.AWAY,
    "serverInternal": Kind.AWAY,
    "orderNotReady": Kind.AWAY,
    **dict.fromkeys(("connection", "dns", "tls", "incorrectResponse", "unauthorized", "caa"), Kind.UNPROVEN),
}


def kind_of(problem: Problem) -> Kind:
    """Which sort of failure a problem is."""
    if problem.status == 429:
        return Kind.LIMITED
    if problem.type in _KINDS:
        return _KINDS[problem.type]
    return Kind.AWAY if problem.status >= 500 else Kind.REFUSED


_ADVICE: Mapping[str, str] = {
    "rateLimited": "nothing to do but wait; try things out with --acme-directory staging, which has wide limits",
    "connection": "let port 80 of this machine be reached from the Internet: firewall, port forwarding, cloud rules",
    "dns": "point the A and AAAA records of the domain to this machine, and wait until they are seen",
    "tls": "port 80 redirects to an https address that the authority cannot use; let port 80 reach postbackd",
    "incorrectResponse": "another program answers on port 80 of the domain: let the path /.well-known/acme-challenge/ "
    "reach postbackd, and check the A and AAAA records",
    "unauthorized": "another program answers on port 80 of the domain: let the path /.well-known/acme-challenge/ "
    "reach postbackd, and check the A and AAAA records",
    "caa": "the domain's CAA record forbids this authority: allow it in the DNS, or choose another --acme-directory",
    "rejectedIdentifier": "the authority gives out no certificate for this name: check --domain for typing errors",
    "unsupportedIdentifier": "the authority gives out no certificate for this kind of name: check --domain",
    "challengeNotOffered": "choose another --acme-challenge (http-01, tls-alpn-01) or another --acme-directory",
    "malformed": "check --domain and --email for typing errors",
    "invalidContact": "check --email",
    "unsupportedContact": "check --email",
    "externalAccountRequired": "this authority wants the account to be bound to one of yours: get a key id and an HMAC "
    "key from its site, and give them as --acme-eab-kid and POSTBACKD_ACME_EAB_HMAC_KEY",
    "bindingRefused": "check --acme-eab-kid and its HMAC key: they belong together, are of this authority, and if "
    "they are good once only, they have to be new",
    "userActionRequired": "the authority has new terms that need your agreement; see the address in its words",
    "accountDoesNotExist": "the authority has forgotten the account; another is registered at the next try",
    "badNonce": "nothing to do; if it goes on, a proxy in between answers for the authority",
}


_IN_THE_WAY = (
    "another program, a front end or a CDN answers on port 443 of the domain: let its connections reach postbackd as "
    "they are, check the A and AAAA records, or use --acme-challenge http-01"
)

_HANDSHAKE_ADVICE: Mapping[str, str] = {
    "connection": "let port 443 of this machine be reached from the Internet: firewall, port forwarding, cloud rules",
    **dict.fromkeys(("tls", "incorrectResponse", "unauthorized"), _IN_THE_WAY),
}
"""Where ``tls-alpn-01`` wants something else."""


def advice(problem: Problem, challenge: str = HTTP) -> str:
    """What an operator does about a problem; ``challenge``: of which kind the settings want."""
    known = (_HANDSHAKE_ADVICE if challenge == HANDSHAKE else _ADVICE).get(problem.type)
    known = known or _ADVICE.get(problem.type)
    if known is not None:
        return known
    if problem.status == 429:
        return _ADVICE["rateLimited"]
    if problem.status >= 500:
        return "nothing to do but wait: the authority has trouble of its own"
    return "read the authority's words; if they say nothing, try --acme-directory staging"
