"""Brings conversions to the tracker and says what became of each: request, signature, answer, meaning.

One courier has one connection, and serves one thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Sequence

from postbackd_client.answers import REFUSED, Outcome, no_answer, read_answer, read_batch
from postbackd_client.endpoint import Endpoint, Request
from postbackd_client.payload import Conversion
from postbackd_client.signing import HEADER, write_signature
from postbackd_client.transport import Answer, Connection, NoAnswer

_ONE_BYTES = 16_384
"""Of an answer to one conversion; postbackd's has 200, and what a page of HTML says matters to nobody."""
_BYTES_AN_ITEM = 1_024
"""Of an answer to a batch, for each of its conversions."""


@dataclass(frozen=True)
class Route:
    """Where to, and how."""

    endpoint: Endpoint
    secret: str = field(default="", repr=False)
    """Signs each request as postbackd verifies it; empty: requests are not signed."""
    connect_s: float = 0.5
    total_s: float = 2.0
    ca_file: Optional[str] = None
    """Certificates to trust instead of the system's."""


class Courier:
    def __init__(self, route: Route) -> None:
        self.route = route
        self._connection = Connection(route.endpoint, route.connect_s, route.total_s, route.ca_file)

    def deliver(self, conversion: Conversion) -> Outcome:
        """What became of one conversion.  Never raises for what the tracker or the network does."""
        try:
            answer = self._send(self.route.endpoint.request(conversion), _ONE_BYTES)
        except NoAnswer as error:
            return no_answer(str(error))
        return read_answer(
            answer.status, answer.headers, answer.body, time.time(), self.route.endpoint.meaning
        )

    def deliver_batch(self, texts: Sequence[str]) -> List[Outcome]:
        """What became of several, in their order: an outcome each, or one for all when the batch failed as a whole."""
        try:
            answer = self._send(self.route.endpoint.batch(texts), _BYTES_AN_ITEM * (len(texts) + 4))
        except NoAnswer as error:
            return [no_answer(str(error))]
        if 200 <= answer.status < 300:
            told = "the tracker does not answer batches as postbackd does"
            outcomes = read_batch(answer.status, answer.body, len(texts))
            return outcomes or [Outcome(REFUSED, answer.status, reason=told)]
        return [
            read_answer(answer.status, answer.headers, answer.body, time.time(), self.route.endpoint.meaning)
        ]

    def _send(self, request: Request, body_bytes: int) -> Answer:
        return self._connection.send(request, self._headers(request), body_bytes)

    def _headers(self, request: Request) -> Dict[str, str]:
        if not self.route.secret:
            return {}
        now_s = int(time.time())
        signature = write_signature(
            self.route.secret, request.method, request.path, request.query, request.body, now_s
        )
        return {HEADER: signature}

    def close(self) -> None:
        self._connection.close()

    def forget(self) -> None:
        """In a forked child: leave the parent's connection alone."""
        self._connection.forget()
