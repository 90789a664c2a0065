"""What a shop calls."""

from __future__ import annotations

import threading
from typing import List, Optional, Union

from postbackd_client.answers import Outcome
from postbackd_client.courier import Courier, Route
from postbackd_client.endpoint import Tracker, read_endpoint
from postbackd_client.payload import Conversion


class Client:
    """Reports conversions to one tracker.  May be shared by all threads of a process."""

    def __init__(
        self,
        tracker: Union[str, Tracker],
        *,
        secret: str = "",
        connect_s: float = 0.5,
        total_s: float = 2.0,
        ca_file: Optional[str] = None,
        allow_http: bool = False,
    ) -> None:
        """``tracker``: the URL of postbackd's endpoint, a template (``endpoint``), or a ``preset``."""
        endpoint = read_endpoint(tracker, allow_http=allow_http)
        self._route = Route(endpoint, secret, connect_s, total_s, ca_file)
        self._lock = threading.Lock()
        self._idle: List[Courier] = []

    def deliver(self, conversion: Conversion) -> Outcome:
        """Send one conversion now, wait for the answer, and say what became of it.  For workers of queues.

        Never raises for what the tracker or the network does: then the outcome's kind is ``retry``.
        """
        with self._lock:
            courier = self._idle.pop() if self._idle else Courier(self._route)
        try:
            return courier.deliver(conversion)
        finally:
            with self._lock:
                self._idle.append(courier)
