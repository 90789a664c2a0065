"""T28: forged and replayed signatures, by somebody who knows the key and has seen genuine requests.

Counted may be what the genuine sender sent, once each.  A forged request is answered like a key that nobody has, and
its row says why; the same bytes again are a duplicate.  Control: the same requests while the signature is only
observed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.trust.corpus.forgeries import Genuine, Secrets, forge
from tests.trust.corpus.stage import Stage, stage
from tests.trust.corpus.wire import Answer, Connection
from tests.trust.registry import Control, Result, Size, trust_test
from tests.trust.server import wait_until

_GENUINE = 50
_TOGETHER = 64
"""Requests that are sent before their answers are awaited."""

_AFRESH = 10_000
"""After so many the genuine ones are made anew: their time must stay inside the window."""

_SENDER_REASONS = (18, 19, 20, 21, 27, 28)
_SECRET = "pbs_only-the-genuine-sender-knows-this"
_OPTIONS = ("--signature", "hmac", "--secret", _SECRET)


@dataclass
class Seen:
    """What came back."""

    forged: int = 0
    let_in: Counter[str] = field(default_factory=Counter)
    """Kind of forgery -> how many were not answered like a key that nobody has."""
    replayed: int = 0
    counted_again: int = 0


@trust_test("T28", "forged and replayed signatures: none counted")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """So many forgeries: none let in, none counted, each with its row."""
    count = size.pick(ci=20_000, nightly=1_000_000, release=5_000_000)
    with stage(work_dir, network_options=(*_OPTIONS, "--enforce", "signature")) as server:
        genuine, seen = _attack(server, seed, count)
        rows = _logged(server, seen.forged)
        conversions = server.rows("SELECT count(*) FROM conversions")[0][0]
        tracebacks = server.tracebacks
    figures = {
        "n": count,
        "genuine": genuine,
        "counted": conversions,
        "let in": sum(seen.let_in.values()),
        "replayed": seen.replayed,
        "replayed and counted": seen.counted_again,
        "rows": rows,
        "tracebacks": tracebacks,
    }
    sound = conversions == genuine and not seen.let_in and not seen.counted_again and rows == seen.forged
    note = ", ".join(f"{kind}: {number}" for kind, number in seen.let_in.most_common(5))
    return Result(sound and not tracebacks, figures, (_control(seed, work_dir),), note)


def _control(seed: int, work_dir: Path) -> Control:
    with stage(work_dir, "observed", network_options=_OPTIONS) as server:
        genuine, seen = _attack(server, seed, 2_000)
        conversions = server.rows("SELECT count(*) FROM conversions")[0][0]
    figures = {"genuine": genuine, "counted": conversions, "let in": sum(seen.let_in.values())}
    return Control("the signature only observed", conversions > genuine, figures)


def _attack(server: Stage, seed: int, count: int) -> tuple[int, Seen]:
    """Genuine requests, what is made of them, and all of them again.  Returns how many were genuine."""
    rng, seen, made = random.Random(seed), Seen(), 0
    secrets = Secrets(server.catalog.key, _SECRET)
    for begin in range(0, count, _AFRESH):
        genuine = _make(server, secrets, made)
        made += len(genuine)
        tries = list(forge(rng, genuine, min(_AFRESH, count - begin)))
        asyncio.run(_send(server, genuine, tries, seen))
    return made, seen


def _make(server: Stage, secrets: Secrets, number: int) -> list[Genuine]:
    now, (click,) = int(time.time()), server.clicks(1)
    return [
        Genuine(secrets, (("click_id", click), ("txid", f"G-{number + n}"), ("value", "1.50")), now)
        for n in range(_GENUINE)
    ]


async def _send(server: Stage, genuine: list[Genuine], tries: list[tuple[str, bytes]], seen: Seen) -> None:
    connection = await Connection.open(server.address)
    try:
        for answer in await connection.ask([one.write() for one in genuine]):
            assert _verdict(answer) == "accepted", answer
        for begin in range(0, len(tries), _TOGETHER):
            part = tries[begin : begin + _TOGETHER]
            answers = await connection.ask([raw for _, raw in part])
            for (kind, _), answer in zip(part, answers, strict=True):
                seen.forged += 1
                if (answer.status, answer.body) != (404, b'{"error":"not found"}'):
                    seen.let_in[kind] += 1
        for answer in await connection.ask([one.write() for one in genuine]):
            seen.replayed += 1
            seen.counted_again += _verdict(answer) != "duplicate"
    finally:
        connection.close()


def _verdict(answer: Answer) -> str | None:
    return answer.header("Postbackd-Verdict")


def _logged(server: Stage, expected: int) -> int:
    """Rows that say that a sender was refused, and requests that were counted because no row could be written."""

    def look() -> int:
        reasons = ", ".join(map(str, _SENDER_REASONS))
        (rows,) = server.rows(f"SELECT count(*) FROM postbacks WHERE verdict = 6 AND reason IN ({reasons})")
        ((counted,),) = server.rows(
            "SELECT coalesce(sum(count), 0) FROM refusals WHERE kind IN ('sender_refused', 'not_found')"
        )
        return int(rows[0] + counted)

    try:
        wait_until(lambda: look() >= expected, 20, "the rows of the refused")
    except TimeoutError:
        pass  # the figure says it
    return look()
