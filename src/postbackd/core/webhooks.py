"""Signed JSON webhooks, by the Standard Webhooks specification (standardwebhooks.com).

The id is the delivery's: the same in every attempt, so that the receiver can tell a repeat.  The time is the
attempt's, and is signed with it.  While a secret is replaced, both sign: the header then holds two signatures.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from hashlib import sha256

import msgspec

from postbackd.core.deliveries import Delivery, Message, Outgoing
from postbackd.core.moments import write_moment
from postbackd.core.templates import clean_unicode

SECRET = "SECRET"  # noqa: S105 - a name
OLD_SECRET = "OLD_SECRET"  # noqa: S105 - a name
"""Names of the account values that sign; the old one only as long as the receiver may still check with it."""

TOLERANCE_S = 300
"""How far the time of a webhook may be from the receiver's clock."""

_PREFIX = "whsec_"
_SHORTEST, _LONGEST = 24, 64
_OWN_HEADERS = frozenset({"webhook-id", "webhook-timestamp", "webhook-signature", "content-type"})
_TYPES = {
    Message.CONVERSION: "conversion.created",
    Message.ADJUSTMENT: "conversion.adjusted",
    Message.RETRACTION: "conversion.retracted",
}

_SAID = (
    *(
        "conversion_id",
        "click_id",
        "source_click_id",
        "type",
        "goal",
        "status",
        "value",
        "currency",
        "transaction_id",
    ),
    *("time", "campaign", "source", "network", "offer", "country"),
)


class SignatureInvalid(ValueError):
    """A webhook that its receiver must not trust; the message says why."""


def write_secret(random: bytes) -> str:
    """The text of a secret.  ``random``: 24 to 64 bytes that nobody can guess."""
    if not _SHORTEST <= len(random) <= _LONGEST:
        raise ValueError(f"a webhook secret has {_SHORTEST} to {_LONGEST} bytes, not {len(random)}")
    return _PREFIX + base64.b64encode(random).decode("ascii")


def read_secret(text: str) -> bytes:
    """The bytes of a secret.  Raises ``ValueError`` without showing it."""
    try:
        secret = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not text.startswith(_PREFIX) or not _SHORTEST <= len(secret) <= _LONGEST:
        raise ValueError(
            f"a webhook secret is {_PREFIX} and the base64 text of {_SHORTEST} to {_LONGEST} bytes; make one with: "
            f"openssl rand -base64 32 | sed s/^/{_PREFIX}/"
        )
    return secret


def signing_secrets(accounts: Mapping[str, str]) -> tuple[bytes, ...]:
    """The secrets of a target, the new one first.  Raises ``ValueError`` when there is none or one is unusable."""
    if not accounts.get(SECRET):
        raise ValueError(f"a webhook target needs the account value {SECRET}; give it with the target")
    return tuple(read_secret(accounts[name]) for name in (SECRET, OLD_SECRET) if accounts.get(name))


def sign(secrets: Sequence[bytes], webhook_id: str, timestamp_s: int, body: bytes) -> str:
    """The header ``webhook-signature``: one signature a secret."""
    return " ".join(_signature(secret, webhook_id, str(timestamp_s), body) for secret in secrets)


def _signature(secret: bytes, webhook_id: str, timestamp: str, body: bytes) -> str:
    signed = b".".join((webhook_id.encode("utf-8", "replace"), timestamp.encode("utf-8", "replace"), body))
    return "v1," + base64.b64encode(hmac.digest(secret, signed, sha256)).decode("ascii")


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secrets: Sequence[bytes],
    now_s: float,
    tolerance_s: int = TOLERANCE_S,
) -> str:
    """The id of a webhook that one of the secrets signed.  Raises ``SignatureInvalid`` for every other.

    ``headers``: names in any case.  Whoever acts on webhooks must also remember the ids: a repeat has the same.
    """
    found = {name.lower(): value for name, value in headers.items()}
    webhook_id, timestamp, signatures = (
        found.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
    )
    if not (webhook_id and timestamp and signatures):
        raise SignatureInvalid("webhook-id, webhook-timestamp or webhook-signature is missing")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise SignatureInvalid("webhook-timestamp is not a time in seconds")
    age_s = now_s - int(timestamp)
    if abs(age_s) > tolerance_s:
        raise SignatureInvalid(
            f"webhook-timestamp is {abs(age_s):.0f} s {'too old' if age_s > 0 else 'in the future'}"
        )
    given = [signature.encode("utf-8", "replace") for signature in signatures.split(" ")]
    # Every pair is compared, and each takes the same time whatever differs.
    fits = [
        hmac.compare_digest(signature, _signature(secret, webhook_id, timestamp, body).encode("ascii"))
        for secret in secrets
        for signature in given
    ]
    if not any(fits):
        raise SignatureInvalid(
            "no signature fits; is the secret the target's, and the body as it was received?"
        )
    return webhook_id


def write_payload(delivery: Delivery, values: Mapping[str, str | None]) -> bytes:
    """The body: what happened, when, and the conversion.  What is not known is left out.

    The value is decimal text, because JSON numbers are floats to most readers.  Every attempt has the same body.
    """
    said: dict[str, object] = {name: clean_unicode(value) for name in _SAID if (value := values.get(name))}
    subs = {name: clean_unicode(value) for name, value in values.items() if value and name.startswith("sub")}
    if subs:
        said["subs"] = subs
    payload = {
        "type": _TYPES[Message(delivery.owed.message)],
        "timestamp": write_moment(delivery.owed.created_ms),
        "data": {**said, "delivery_id": delivery.id},
    }
    return msgspec.json.encode(payload)


def make_webhook(
    base: Outgoing,
    delivery: Delivery,
    values: Mapping[str, str | None],
    secrets: Sequence[bytes],
    now_ms: int,
) -> Outgoing:
    """The signed request.  ``base``: where to, with the target's own headers (its method and body do not count)."""
    body = write_payload(delivery, values)
    timestamp_s = now_ms // 1000
    own = tuple((name, value) for name, value in base.headers if name.lower() not in _OWN_HEADERS)
    headers = (
        ("Content-Type", "application/json"),
        ("webhook-id", delivery.id),
        ("webhook-timestamp", str(timestamp_s)),
        ("webhook-signature", sign(secrets, delivery.id, timestamp_s, body)),
    )
    return Outgoing("POST", base.url, own + headers, body)
