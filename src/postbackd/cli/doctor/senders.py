"""What the doctor says of senders: what the steps found, former keys that end, secrets that cannot be opened."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from postbackd.cli.options import now_ms
from postbackd.cli.session import Session
from postbackd.core.diagnosis import Reason
from postbackd.core.finding import Finding
from postbackd.core.model import Network
from postbackd.core.moments import write_moment
from postbackd.core.sender_rules import read_observed
from postbackd.core.senders import STEPS, modes
from postbackd.reports.period import Period

_DAY_MS = 86_400_000
_MOST_SENDERS = 3

_STEP_OF = {
    Reason.TOKEN_MISSING: "token",
    Reason.TOKEN_INVALID: "token",
    Reason.SENDER_IP_NOT_ALLOWED: "ip",
}
"""The step that finds it; everything else is found by the signature."""


def _say(network: Network, detail: str, fix: str, *, ok: bool = True) -> Finding:
    return Finding(check=f"senders of {network.name}", ok=ok, detail=detail, fix=fix)


async def look_at_senders(
    session: Session, networks: Sequence[Network], open_secret: Callable[[str], str]
) -> list[Finding]:
    """A line for each network that looks at more than the key; nothing for the others."""
    now = now_ms()
    seen = [line for network in networks for line in _look_at_secrets(network, open_secret, now)]
    observing = [network for network in networks if "observe" in modes(network.senders).values()]
    if observing:
        rows = await session.store.query("observed_senders", **Period(now - _DAY_MS, None).stamps())
        seen += [
            _look_at_observed(network, [row for row in rows if row["network"] == network.id])
            for network in observing
        ]
    enforcing = [network for network in networks if "enforce" in modes(network.senders).values()]
    if enforcing:
        rows = await session.store.query("refused_senders", **Period(now - _DAY_MS, None).stamps())
        seen += [
            _look_at_refused(network, [row for row in rows if row["network"] == network.id])
            for network in enforcing
        ]
    return seen


def _look_at_refused(network: Network, rows: Sequence[Mapping[str, Any]]) -> Finding:
    """Strangers are refused every day; that the network itself is has no other sign."""
    steps = " and ".join(step for step in STEPS if modes(network.senders)[step] == "enforce")
    if not rows:
        return _say(network, f"{steps} enforced; nothing was refused in the last day", "")
    counts: Counter[Reason] = Counter()
    places: Counter[str] = Counter()
    for row in rows:
        counts[Reason(row["reason"])] += row["count"]
        places[row["sender"] or "an unknown address"] += row["count"]
    fixes = " ".join(dict.fromkeys(reason.fix for reason in counts))
    return _say(
        network, f"in the last day were refused: {_count(counts, places)}", f"If it was the network: {fixes}"
    )


def _count(counts: Counter[Reason], places: Counter[str]) -> str:
    found = ", ".join(f"{count} {reason.word}" for reason, count in counts.most_common())
    whence = ", ".join(f"{count} from {place}" for place, count in places.most_common(_MOST_SENDERS))
    return f"{found} ({whence})"


def _look_at_secrets(network: Network, open_secret: Callable[[str], str], now: int) -> Iterator[Finding]:
    senders = network.senders
    try:
        for secret in senders.secrets:
            open_secret(secret.sealed)
    except ValueError as error:
        detail = f"its signing secret cannot be opened: {error}"
        fix = "Its postbacks are answered 503 until the key is there."
        yield _say(network, detail, fix, ok=False)
    former = {
        "key": [one.until_ms for one in senders.former_keys],
        "token": [one.until_ms for one in senders.tokens],
        "signing secret": [one.until_ms for one in senders.secrets],
    }
    for what, ends in former.items():
        for until_ms in ends:
            if now < until_ms <= now + _DAY_MS:
                detail = f"the former {what} ends at {write_moment(until_ms)}"
                yield _say(network, detail, "Make sure that the network uses the new one.")


def _look_at_observed(network: Network, rows: Sequence[Mapping[str, Any]]) -> Finding:
    steps = [step for step in STEPS if modes(network.senders)[step] == "observe"]
    counts: Counter[Reason] = Counter()
    places: Counter[str] = Counter()
    for row in rows:
        for reason in read_observed(row["observed"]):
            if _STEP_OF.get(reason, "signature") in steps:
                counts[reason] += row["count"]
                places[row["sender"] or "an unknown address"] += row["count"]
    if not counts:
        enforce = " ".join(f"--enforce {step}" for step in steps)
        detail = f"{' and '.join(steps)} only observed; nothing would have been refused in the last day"
        step = f"postbackd network set {shlex.quote(network.name)} {enforce}"
        return _say(network, detail, f"When that has been so for long enough, run: {step}")
    fixes = " ".join(dict.fromkeys(reason.fix for reason in counts))
    return _say(network, f"in the last day would have been refused: {_count(counts, places)}", fixes)
