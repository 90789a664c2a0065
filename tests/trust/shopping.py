"""The victim of T37: a shop that reports conversions without end, alone or as a server that forks its workers.

``python -m tests.trust.shopping``: each call of ``conversion()`` is noted before it is made and after it has returned.
The value is the number of the call, so that a conversion is recognised however often, and under whatever key, it is
counted; every second call leaves the transaction id to the client.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import time
from dataclasses import replace
from pathlib import Path

from postbackd_client import Client, Schedule, endpoint, sender, spool
from postbackd_client.payload import Conversion, decode, encode
from postbackd_client.spool import Place

CALLS_A_PROCESS = 100_000
"""Numbers set aside for each."""

_PAUSE_S = 0.0004
_IMPATIENT = Schedule(first_s=0.05, longest_s=0.5)
_BUFFERED = 40
_SEGMENT_BYTES = 100_000
"""Small, so that one file follows another under every shop, and is killed at that too."""


def main() -> None:
    """Until it is killed."""
    logging.disable(logging.ERROR)
    parser = argparse.ArgumentParser()
    for name in ("url", "spool", "clicks", "notes"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--first", type=int, required=True, help="the number of the first call")
    parser.add_argument("--workers", type=int, default=0, help="fork so many after a first report")
    parser.add_argument("--without", choices=["spool", "key"], help="a guard to switch off")
    options = parser.parse_args()
    if options.without == "spool":
        _buffer_appends()
    elif options.without == "key":
        _make_up_keys()
    spool._LARGEST_SEGMENT = _SEGMENT_BYTES
    shop = Shop(options)
    shop.sell(options.first)
    for worker in range(options.workers):
        if os.fork() == 0:
            shop.run(options.first + (worker + 1) * CALLS_A_PROCESS)
    shop.run(options.first + 1)


class Shop:
    def __init__(self, options: argparse.Namespace) -> None:
        self._client = Client(options.url, spool=options.spool, schedule=_IMPATIENT, total_s=0.5)
        self._clicks = Path(options.clicks).read_text("ascii").split()
        self._notes = os.open(options.notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def run(self, number: int) -> None:
        while True:
            self.sell(number)
            number += 1
            time.sleep(_PAUSE_S)

    def sell(self, number: int) -> None:
        """One call; a note of a few bytes at the end of a file is written whole or not at all."""
        os.write(self._notes, f"b {number}\n".encode())
        self._client.conversion(
            self._clicks[number % len(self._clicks)],
            type="sale",
            value=number,
            currency="USD",
            transaction_id=f"A-{number}" if number % 2 else "",
        )
        os.write(self._notes, f"r {number}\n".encode())


# --- guards switched off -----------------------------------------------------------------------------------------


def _buffer_appends() -> None:
    """A spool that collects before it writes, as many queues in memory do."""
    waiting: list[tuple[int, str]] = []
    write = spool.Spool.append

    def append(self: spool.Spool, made_s: int, payload: str) -> Place | None:
        waiting.append((made_s, payload))
        if len(waiting) < _BUFFERED:
            return Place(None, 0)
        places = [write(self, *one) for one in waiting]
        waiting.clear()
        return places[-1]

    spool.Spool.append = append  # type: ignore[method-assign]


def _make_up_keys() -> None:
    """A sender that makes up the transaction id when it sends, instead of once."""

    def another(conversion: Conversion) -> Conversion:
        return replace(conversion, transaction_id=secrets.token_hex(8))

    batch = endpoint.Endpoint.batch
    endpoint.Endpoint.batch = lambda self, texts: batch(  # type: ignore[method-assign]
        self, [encode(another(decode(text))) for text in texts]
    )
    sender.decode = lambda text: another(decode(text))  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
