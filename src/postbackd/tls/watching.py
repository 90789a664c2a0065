"""Where the certificate of the moment comes from: the shelf, or two files of the operator's.

Each source is looked at again and again, and shows what is new only after it has been tried out; what cannot be used
leaves the old certificate where it is, and is shouted about.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from postbackd.core.certificates import missing_names
from postbackd.store.base import StoreUnavailable
from postbackd.store.shelf import Shelf
from postbackd.tls.documents import CERTIFICATE, TLS_CHALLENGES, load_challenges, read_certificate
from postbackd.tls.pair import LARGEST_FILE, Pair, UnusablePair, read_files, read_pair
from postbackd.tls.serving import HandshakeChallenges, Showcase, check_loads

log = logging.getLogger("postbackd.tls")

LOOK_S = 1.0

_SHOUT_AFTER_LOOKS = 2
"""A certificate and its key are two files, and are replaced one after the other."""


class ShelfSource:
    """The certificate that an authority gave, from the shelf."""

    def __init__(
        self,
        shelf: Shelf,
        showcase: Showcase,
        domains: Sequence[str],
        challenges: HandshakeChallenges | None = None,
    ) -> None:
        """``challenges``: where answers to challenges are laid out, when the settings want them in handshakes."""
        self._shelf = shelf
        self._challenges = challenges
        self._showcase = showcase
        self._domains = domains
        self._seen: bytes | None = None
        self._failed = ""

    async def look(self) -> None:
        """Show a certificate that is new."""
        try:
            text = await self._shelf.load(CERTIFICATE)
            if text is None or text == self._seen:
                return
            self._seen = text
            held = read_certificate(text)
            assert held is not None
            check_loads(held.pair)
        except (StoreUnavailable, UnusablePair) as error:
            if str(error) != self._failed:
                log.error("the certificate cannot be used: %s", error)  # noqa: TRY400 - an operator, no stack
            self._failed = str(error)
            return
        self._failed = ""
        self._showcase.show(held.pair)
        missing = missing_names(held.pair.term.names, self._domains)
        log.info(
            "serving https with the certificate %s%s",
            held.pair.fingerprint[:16],
            f", which is not good for {', '.join(missing)}" if missing else "",
        )

    async def look_for_challenges(self) -> None:
        """Lay out the answers that are on the shelf; when it cannot be read, those of before stay."""
        if self._challenges is None:
            return
        try:
            self._challenges.lay_out(await load_challenges(self._shelf, TLS_CHALLENGES))
        except StoreUnavailable as error:
            log.warning("challenges could not be looked for (%s)", error)
        except (ValueError, UnusablePair):
            log.exception("a challenge cannot be answered")

    async def keep(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look_for_challenges()
            await self.look()


class FileSource:
    """A certificate and a key that somebody else looks after."""

    def __init__(self, certificate: Path, key: Path, showcase: Showcase, tray: int | None = None) -> None:
        """``tray``: a file in memory that outlives this process, for the pair that was shown last."""
        self._certificate = certificate
        self._key = key
        self._showcase = showcase
        self._tray = tray
        self._seen: object = None
        self._bad_looks = 0

    def start(self) -> None:
        """Show the pair, or, when it cannot be used, the one that a process before us showed last.

        Raises ``UnusablePair`` when there is none.
        """
        self._seen = self._state()
        try:
            self._show(read_files(self._certificate, self._key))
        except UnusablePair as error:
            last = _take_from(self._tray)
            if last is None:
                raise
            self._showcase.show(last)
            _shout(error)

    def look(self) -> None:
        """Show the pair if the files have changed; keep the old one if they cannot be used."""
        state = self._state()
        if state == self._seen and not self._bad_looks:
            return
        changed, self._seen = state != self._seen, state
        try:
            pair = read_files(self._certificate, self._key)
            if self._showcase.pair is None or pair.pem != self._showcase.pair.pem:
                self._show(pair)
                log.info("serving https with the certificate %s", pair.fingerprint[:16])
        except UnusablePair as error:
            self._bad_looks = 1 if changed else self._bad_looks + 1
            if self._bad_looks == _SHOUT_AFTER_LOOKS:
                _shout(error)
        else:
            self._bad_looks = 0

    async def keep(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def _show(self, pair: Pair) -> None:
        check_loads(pair)
        self._showcase.show(pair)
        _lay_on(self._tray, pair.pem)

    def _state(self) -> object:
        """What changes when one of the files does; certbot changes symbolic links."""
        found = []
        for path in (self._certificate, self._key):
            try:
                state = path.stat()
                found.append((state.st_ino, state.st_mtime_ns, state.st_size))
            except OSError as error:
                found.append((error.errno or 0, 0, 0))
        return found


def _shout(error: UnusablePair) -> None:
    log.error("THE NEW CERTIFICATE IS NOT USED, the old one stays: %s", error)


def _lay_on(tray: int | None, pem: bytes) -> None:
    if tray is not None:
        os.pwrite(tray, pem, 0)
        os.ftruncate(tray, len(pem))


def _take_from(tray: int | None) -> Pair | None:
    text = b"" if tray is None else os.pread(tray, LARGEST_FILE, 0)
    try:
        return read_pair(text) if text else None
    except UnusablePair:  # whoever laid it there died over it
        return None


class Challenges:
    """The answers to the challenges of an authority, which may ask any node a moment after they were laid out.

    Every question is answered by what was on the shelf after it came: what was read before may be too old, and a wrong
    answer costs an order.  Questions that come meanwhile share the next reading, so that any number of them costs one
    reading at a time.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._reading = asyncio.Lock()
        self._begun = self._ended = 0
        self._answers: dict[str, str] = {}

    async def find(self, token: str) -> str | None:
        """The key authorization, or ``None``: not ours, or not any more.  Raises ``StoreUnavailable``."""
        wanted = self._begun + 1
        async with self._reading:
            if self._ended < wanted:
                self._begun += 1
                self._answers = await load_challenges(self._shelf)
                self._ended = self._begun
            return self._answers.get(token)
