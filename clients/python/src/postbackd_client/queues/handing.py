"""The shop's side: conversions go to a queue, and to the client's own spool while the queue is away.

Nothing here knows which queue it is.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from time import monotonic
from typing import Any, Callable, Protocol

from postbackd_client.payload import Conversion, PayloadError, encode

log = logging.getLogger("postbackd_client.queues")


class Keeper(Protocol):
    """What takes a conversion that the queue did not take: a ``Client`` with a spool."""

    def conversion(self, click_id: str, **fields: Any) -> None: ...

    def report(self, conversion: Conversion) -> bool: ...


@dataclass(frozen=True)
class HandOverStatistics:
    """What became of the calls since the start of the process."""

    handed_over: int
    fallen_back: int
    """The queue was away: kept by the client, which sends them itself."""


class HandOver:
    """Reports conversions through a queue.  May be shared by all threads of a process.

    >>> client = Client("https://track.example.com/p/KEY", spool="/var/lib/shop/postbacks")
    >>> orders = HandOver(RedisStream("redis://localhost/0"), otherwise=client)
    >>> orders.conversion(click_id, type="sale", value="12.50", currency="USD", transaction_id="A-1001")
    """

    def __init__(self, publish: Callable[[str], Any], *, otherwise: Keeper, rest_s: float = 5.0) -> None:
        """``publish``: hands over one text and raises when it was not taken.

        ``rest_s``: after a failure the queue is left alone for so long, so that not every caller waits for a time-out.
        """
        self._publish = publish
        self._otherwise = otherwise
        self._rest_s = rest_s
        self._rests_until = float("-inf")
        self._lock = threading.Lock()
        self._handed_over = 0
        self._fallen_back = 0

    def conversion(self, click_id: str, **fields: Any) -> None:
        """Report one; the arguments are those of ``Client.conversion``.  Never raises for what the queue does.

        Under one transaction id on either way: a queue that took it and could not say so leads to a duplicate, which
        is counted once.
        """
        try:
            conversion = Conversion(click_id, **fields)
        except (PayloadError, TypeError):
            self._otherwise.conversion(click_id, **fields)  # counts and logs what is wrong with it
            return
        if not self._hand_over(encode(conversion)):
            self._otherwise.report(conversion)

    def _hand_over(self, text: str) -> bool:
        taken = monotonic() >= self._rests_until and self._try(text)
        with self._lock:
            self._handed_over += taken
            self._fallen_back += not taken
        return taken

    def _try(self, text: str) -> bool:
        try:
            self._publish(text)
        except Exception as error:  # noqa: BLE001 - whatever a queue's library raises: the shop must not see it
            self._rests_until = monotonic() + self._rest_s
            log.warning("the queue did not take a conversion, the client keeps it: %s", _words(error))
            return False
        return True

    def statistics(self) -> HandOverStatistics:
        with self._lock:
            return HandOverStatistics(self._handed_over, self._fallen_back)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else repr(error)
