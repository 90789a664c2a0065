"""One request: reads what a visitor carries, applies the decision, and says what goes back with the answer.

The frameworks' modules hand in header texts and, where ids are kept in it, the session; they know nothing else of
how ids are kept.  What a visitor sends never raises here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from typing import Any, Callable, Optional

from postbackd_client.capture import cookies
from postbackd_client.capture.cookies import SetCookie
from postbackd_client.capture.decisions import DENIED, GRANTED, STORE, Capture, Captured, CaptureError
from postbackd_client.capture.tokens import Record

_LOG = logging.getLogger("postbackd_client.capture")

KEY = "postbackd_client.capture"
"""Where a request carries its visit (WSGI environ, ASGI scope, META of Django)."""

Session = MutableMapping[str, Any]


class Visit:
    """One request of a visitor: made before the shop's code runs, asked by it, and again when the answer leaves."""

    def __init__(
        self,
        capture: Capture,
        request: object,
        *,
        query: Optional[str],
        cookie: Optional[str],
        gpc: Optional[str],
        session: Optional[Callable[[], Session]] = None,
    ) -> None:
        """``request`` is what `consent` is asked with; the next three are header texts, absent ones ``None``.

        ``session`` is called only when something is read from it or written to it: in most frameworks a session
        that was touched makes an answer vary by cookie.
        """
        self._capture = capture
        self._cookie = cookie
        self._session = session if capture.storage == "session" else None
        self._now = capture.now()
        self._record: Optional[Record] = None
        self.set_cookie: Optional[SetCookie] = None
        """What the answer must carry."""
        self.is_personal = False
        """Whether the answer is this visitor's alone, by the cookie or by a session that was written."""
        permission = capture.permission(request, gpc)
        if permission == GRANTED:
            self._land(query)
        else:
            self._record = {}
            if permission == DENIED:
                self._forget()

    def captured(self) -> Optional[Captured]:
        """What is known of the visitor's click, also of one that this very request brought."""
        if self._record is None:
            self._record = self._held()
        return self._capture.captured(self._record)

    def click_id(self) -> Optional[str]:
        """The click id, or ``None``."""
        captured = self.captured()
        return captured.click_id if captured else None

    def _land(self, query: Optional[str]) -> None:
        landed = self._capture.landing(query)
        for parameter, reason in dict.fromkeys(landed.refused):
            _LOG.info("the parameter %s of a landing page is no click id: %s", parameter, reason)
        if not landed.found:
            return  # what is held is read only when somebody asks
        decision = self._capture.decide(self._held(), landed, self._now)
        self._record = decision.record
        if decision.change == STORE:
            self._store(decision.record)

    def _held(self) -> Record:
        if self._session is not None:
            return self._capture.decode(self._session().get(self._capture.cookie), self._now)
        for value in cookies.values(self._cookie, self._capture.cookie):
            record = self._capture.decode(value, self._now)
            if record:
                return record
        return {}

    def _store(self, record: Record) -> None:
        text = self._capture.encode(record)
        self.is_personal = True
        if self._session is not None:
            self._session()[self._capture.cookie] = text
            return
        newest = max(entry.at for entry in record.values())
        self._set(text, newest + self._capture.lasts_s - self._now)

    def _forget(self) -> None:
        if self._session is not None:
            session = self._session()
            if self._capture.cookie in session:
                self.is_personal = True
                del session[self._capture.cookie]
        elif next(cookies.values(self._cookie, self._capture.cookie), None) is not None:
            self.is_personal = True
            self._set("", 0)

    def _set(self, value: str, max_age_s: int) -> None:
        capture = self._capture
        self.set_cookie = SetCookie(capture.cookie, value, max_age_s, capture.domain, capture.secure)


def visit_of(holder: Mapping[str, Any]) -> Visit:
    """The visit that a request carries.  Raises ``CaptureError`` when no middleware put one there."""
    visit = holder.get(KEY)
    if not isinstance(visit, Visit):
        raise CaptureError("this request did not pass CaptureMiddleware: add it to the application")
    return visit
