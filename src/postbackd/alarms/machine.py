"""What this machine says of itself: disks, certificate, spool, backups.  Quick, and read anew at every look."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from postbackd.backup.files import list_backups, read_failure, spool_bytes
from postbackd.core.alarm_troubles import Backups, Certificate, Disk, MachineFacts
from postbackd.tls.pair import UnusablePair, read_files

_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000

GROWTH_MS = _DAY_MS
"""So far back the free space is remembered, to see how fast it shrinks."""

_SHORTEST_MS = 6 * _HOUR_MS
"""Less says little: a backup is written and an older one removed within it."""

_EVERY_MS = _HOUR_MS // 4


class MachinePlaces(Struct, frozen=True, kw_only=True):
    """Where to look.  ``None``: there is no such thing here."""

    data: Path
    certificate: Path | None = None
    """Of ``--cert``."""
    key: Path | None = None
    spools: bool = False
    backups: Path | None = None
    backup_every_h: int = 24


class Machine:
    """Looks at the places, and remembers how much room there was."""

    def __init__(
        self,
        places: MachinePlaces,
        now_ms: Callable[[], int],
        certificate: Callable[[], Certificate | None] | None = None,
    ) -> None:
        """``certificate``: tells of a certificate that we look after ourselves."""
        self._places = places
        self._now_ms = now_ms
        self._certificate = certificate
        self._free: dict[Path, deque[tuple[int, int]]] = {}

    def look(self) -> MachineFacts:
        """Raises nothing: what cannot be read is not said, or is itself the trouble."""
        places = self._places
        disks = [self._look_at_disk("the data", places.data)]
        if places.backups is not None:
            disks.append(self._look_at_disk("the backups", places.backups))
        return MachineFacts(
            disks=[disk for disk in disks if disk is not None],
            certificate=self._look_at_certificate(),
            spool_bytes=spool_bytes(places.data) if places.spools else None,
            backups=self._look_at_backups(),
        )

    def _look_at_disk(self, what: str, path: Path) -> Disk | None:
        try:
            usage = shutil.disk_usage(path)
        except OSError:
            return None
        now_ms = self._now_ms()
        seen = self._free.setdefault(path, deque())
        if not seen or now_ms - seen[-1][0] >= _EVERY_MS:
            seen.append((now_ms, usage.free))
        while seen and now_ms - seen[0][0] > GROWTH_MS:
            seen.popleft()
        grows = 0.0
        if seen and now_ms - seen[0][0] >= _SHORTEST_MS:
            grows = max(0.0, (seen[0][1] - usage.free) / (now_ms - seen[0][0]) * _DAY_MS)
        return Disk(what, usage.free, usage.total, grows)

    def _look_at_certificate(self) -> Certificate | None:
        path = self._places.certificate
        if path is None:
            return self._certificate() if self._certificate is not None else None
        try:
            pair = read_files(path, self._places.key or path)
        except UnusablePair as error:
            return Certificate(None, ours=False, trouble=str(error))
        return Certificate(pair.term, ours=False)

    def _look_at_backups(self) -> Backups | None:
        places = self._places
        if places.backups is None:
            return None
        failure = read_failure(places.data)
        reason = failure.reason if failure else ""
        try:
            made = list_backups(places.backups)
        except OSError as error:
            return Backups(places.backup_every_h, None, reason or f"{places.backups}: {error.strerror}")
        return Backups(places.backup_every_h, made[-1].made_ms if made else None, reason)
