"""What the deliverer knows of a platform, and what the platforms share.

A platform takes conversions by an API of its own instead of a postback URL.  One is an object without state: what it
needs comes from the options and account values of a target.  None of them could be tried against the real service
from where this was written; each says what it was written from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from postbackd.core.click_id import stamp_ms, write_stamp
from postbackd.core.deliveries import Answer, Delivery, Message, Outgoing
from postbackd.core.model import How
from postbackd.core.money import write_micros
from postbackd.core.replies import Judged, Outcome, judge_answer
from postbackd.core.templates import clean_unicode, header_value

Values = Mapping[str, str | None]

DAY_MS = 86_400_000
SENDING_MS = 60_000
"""How long before an age limit a delivery counts as too old: it has to be sent and received."""

ACCESS_TOKEN = "ACCESS_TOKEN"  # noqa: S105 - a name
_PLAIN = How()


class Token(Struct, frozen=True, gc=False):
    """An access token that was asked for."""

    text: str
    expires_ms: int


class TokenRefused(Exception):
    """No access token was given; the message says why."""


class Platform(Protocol):
    """One API.

    A request that fails as a whole fails for every delivery in it.  So a delivery that failed before should be
    sent alone: one bad event then cannot keep its neighbours from being told.
    """

    @property
    def most(self) -> int:
        """How many deliveries one request may hold."""

    @property
    def answer_bytes(self) -> int:
        """How much of an answer ``read`` needs; row errors of a full request are longer than a usual answer."""

    def cannot(self, options: Mapping[str, str]) -> Mapping[Message, str]:
        """What cannot be told to a target with these options, and why."""

    def check_options(self, options: Mapping[str, str], secrets: Collection[str]) -> None:
        """Raise ``ValueError`` that names what is missing, wrong or unknown.  ``secrets``: names of account values."""

    def check_delivery(self, delivery: Delivery, options: Mapping[str, str], now_ms: int) -> str:
        """Why it can never be sent, empty when it can."""

    def ask_token(self, accounts: Mapping[str, str]) -> Outgoing | None:
        """The request for an access token; ``None`` when the account value ``ACCESS_TOKEN`` does as it is.

        The token that comes back (``read_token``) is handed to ``make`` as that account value.
        """

    def read_token(self, answer: Answer, now_ms: int) -> Token:
        """The token in the answer.  Raises ``TokenRefused``."""

    def make(
        self,
        deliveries: Sequence[Delivery],
        values: Sequence[Values],
        options: Mapping[str, str],
        accounts: Mapping[str, str],
        now_ms: int,
    ) -> Outgoing:
        """One request for up to ``most`` deliveries of one kind of message that pass ``check_delivery``.

        ``values``: macro values of each (``core.outgoing.delivery_values``).  For people, call it with account
        values like ``(ACCESS_TOKEN)``.
        """

    def read(self, answer: Answer, deliveries: Sequence[Delivery], now_ms: int) -> list[Judged]:
        """What became of each of the deliveries, in order."""


def check_names(
    given: Mapping[str, str],
    needed: Collection[str],
    allowed: Collection[str],
    secrets: Collection[str],
    *asked: str,
) -> None:
    """Raise ``ValueError`` for options that are missing or unknown, and for account values (``asked``) missing."""
    missing = [name for name in needed if not given.get(name)]
    if missing:
        raise ValueError(f"option {', '.join(missing)} is missing; give it with the target")
    unknown = [name for name in given if name not in needed and name not in allowed]
    if unknown:
        known = ", ".join([*needed, *allowed])
        raise ValueError(f"unknown option {', '.join(unknown)}; known are {known}")
    absent = [name for name in asked if name not in secrets]
    if absent:
        raise ValueError(f"account value {', '.join(absent)} is missing; give it with the target")


def converted_ms(delivery: Delivery) -> int:
    """When the conversion was counted."""
    return stamp_ms(delivery.owed.conversion_id)


def clicked_ms(delivery: Delivery) -> int:
    return stamp_ms(delivery.owed.click_id)


def conversion_id(delivery: Delivery) -> str:
    """The id by which a platform recognises a repeat."""
    return write_stamp(delivery.owed.conversion_id)


def amount(delivery: Delivery) -> msgspec.Raw:
    """The value as a JSON number, exact: no float comes near it."""
    return msgspec.Raw(write_micros(delivery.owed.value_micros).encode("ascii"))


def source_id(delivery: Delivery) -> str:
    """The click identifier of the source; empty when none was stored."""
    return clean_unicode(delivery.owed.facts.source_click_id or "")


def untellable(cannot: Mapping[Message, str], delivery: Delivery, missing: str) -> str:
    """Why it can never be told: it is a message that the platform ``cannot`` take, or the click's id is ``missing``."""
    return cannot.get(Message(delivery.owed.message)) or ("" if source_id(delivery) else missing)


def event_name(delivery: Delivery, values: Values) -> str:
    """The platform's word for the type of the conversion."""
    return clean_unicode(values.get("goal") or delivery.owed.type)


def post_json(url: str, document: Any, headers: Sequence[tuple[str, str]] = ()) -> Outgoing:
    safe = [(name, header_value(value)) for name, value in headers]
    return Outgoing("POST", url, (("Content-Type", "application/json"), *safe), msgspec.json.encode(document))


def read_json(answer: Answer) -> dict[str, Any]:
    """The object in the body; empty when there is none, or when it was cut off."""
    try:
        return as_object(msgspec.json.decode(answer.body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def as_object(node: Any) -> dict[str, Any]:
    """An object of a JSON document, empty when it is something else."""
    return node if isinstance(node, dict) else {}


def part(node: Any, name: str) -> dict[str, Any]:
    """A member that is an object, empty when it is something else."""
    return as_object(as_object(node).get(name))


def items(node: Any, name: str) -> list[Any]:
    """A member that is a list, empty when it is something else."""
    found = as_object(node).get(name)
    return found if isinstance(found, list) else []


def judge_http(answer: Answer, now_ms: int) -> Judged:
    """What the HTTP status says."""
    return judge_answer(answer, _PLAIN, now_ms)


def with_reason(judged: Judged, reason: str, *, slow_down: bool = False) -> Judged:
    """The same with a better reason, and slower if asked."""
    outcome = Outcome.FAILED if judged.outcome is Outcome.DELIVERED else judged.outcome
    return msgspec.structs.replace(
        judged, outcome=outcome, reason=reason, slow_down=judged.slow_down or slow_down
    )


class FixedToken:
    """A platform whose access token is an account value and lasts."""

    def ask_token(self, accounts: Mapping[str, str]) -> Outgoing | None:
        return None

    def read_token(self, answer: Answer, now_ms: int) -> Token:
        raise TokenRefused("this platform has no tokens that are asked for")
