"""Connections to the admin role: whoever opens one asks something soon, or loses it.

There is room for so many connections only, and uvicorn waits for the head of a request for ever: some hundred clients
that were switched off in the middle of one, or that never mean to ask, would shut everybody else out.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_WITHIN_S = 15.0
"""So long the head of a request may take; bodies and answers may take longer."""


class PatientProtocol(HttpToolsProtocol):
    """Closes what has asked nothing in time."""

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head(HEAD_WITHIN_S)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # Where nothing comes uvicorn closes it before that; this is for a head that comes in part.
        self._await_head(self.timeout_keep_alive + HEAD_WITHIN_S)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget()

    def _await_head(self, seconds: float) -> None:
        self._forget()
        self._due = self.loop.call_later(seconds, self._close_unless_asked)

    def _forget(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _close_unless_asked(self) -> None:
        cycle = getattr(self, "cycle", None)  # none before the first request
        is_answering = cycle is not None and not cycle.response_complete
        if not is_answering and not self.transport.is_closing():
            self.transport.close()
