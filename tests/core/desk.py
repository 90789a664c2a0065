"""What the tests of judging share: one network, one key ring, one masker, and a fixed clock."""

from __future__ import annotations

from typing import Any

from postbackd.core.click_id import EPOCH_MS, KeyRing
from postbackd.core.diagnosis import Reason
from postbackd.core.model import Channel, Network, Postback, Request, SigningKey
from postbackd.core.params import Received
from postbackd.core.privacy import Masker
from postbackd.core.rules import judge
from postbackd.core.terms import NetworkRules
from postbackd.core.verdicts import Verdict

NOW_MS = 1_750_000_000_000
"""2025-06-15, the time of every request unless a test says otherwise."""

SECOND = 1000 << 22
"""One second, in stamps."""

CAMPAIGN = 7
SIGNING_KEYS = (SigningKey(id=1, secret=b"k" * 32, active_from_ms=0),)
KEYS = KeyRing(SIGNING_KEYS)
MASKER = Masker(b"p" * 32)


def stamp_at(ms: int, sequence: int = 0) -> int:
    """A stamp of node 0."""
    return (ms - EPOCH_MS) << 22 | sequence


CLICK = stamp_at(NOW_MS - 60_000)
"""A click one minute before the request."""

CLICK_ID = KEYS.write(CLICK, CAMPAIGN)
REQUEST = stamp_at(NOW_MS)


def network(**settings: Any) -> NetworkRules:
    return NetworkRules(Network(id=1, name="net", key="key", **settings))


def request(channel: Channel = Channel.S2S, now_ms: int = NOW_MS) -> Request:
    return Request(stamp_at(now_ms), 1, channel, 100, now_ms)


def judge_query(query: str, rules: NetworkRules | None = None, **of_request: Any) -> Postback:
    rules = rules or network()
    return judge_received(rules.field_map.read_query(query), rules, **of_request)


def judge_received(received: Received, rules: NetworkRules, **of_request: Any) -> Postback:
    return judge(received, rules, KEYS, MASKER, request(**of_request))


def words(postback: Postback) -> tuple[str, str]:
    """Verdict and reason as people see them; an empty verdict is left to the database."""
    verdict = Verdict(postback.verdict).word if postback.verdict else ""
    reason = Reason(postback.reason or postback.click.reason)
    return verdict, "" if reason is Reason.NONE else reason.word
