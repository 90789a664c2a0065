"""Requests kept in a file of this machine while the database is away: length, checksum, request, synced.

A record is a batch as it was judged.  Records lie in numbered segments; a segment is deleted when all of it has been
written to the database.  A process that is killed leaves a segment whose last record may be torn; that record was never
acknowledged, and reading goes on behind it where more follows.  After a failed write nothing is appended to the same
segment again: what reached the disk of it is not known.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import msgspec
from msgspec import Struct

from postbackd.core.model import Click, Postback
from postbackd.store.base import Batch
from postbackd.store.sqlite_file import sync_names

log = logging.getLogger("postbackd.ingest")

FOLDER = "spool"

_SEGMENT_BYTES = 16 * 1024 * 1024

_MARK = b"pbS1"
"""Begins every record, so that the next one can be found behind a torn one; the digit is the format's number."""

_HEAD_BYTES = len(_MARK) + 8


class SpoolFull(Exception):
    """No more may be kept until some has been written to the database."""


class SpoolOfAnother(Exception):
    """What is in the spool was kept for another database."""


class _Record(Struct, frozen=True):
    """What is kept of a batch."""

    clicks: list[Click]
    postbacks: list[Postback]


class _Position(NamedTuple):
    segment: int
    offset: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode


class Spool:
    """The records of one process, in order.  One object a directory; not for two at once."""

    def __init__(self, directory: Path, most_bytes: int, identity: str = "") -> None:
        """Finds what an earlier process left in ``directory``/spool, for the database with this ``identity``.

        Raises ``OSError``, or ``SpoolOfAnother``.
        """
        self._folder = directory / FOLDER
        self._most_bytes = most_bytes
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sizes = {
            int(path.stem): path.stat().st_size
            for path in sorted(self._folder.glob("*.spool"))
            if re.fullmatch(r"\d{10}", path.stem)
        }
        """Segment -> bytes in it that count."""
        self._writing: int | None = None
        self._file = -1
        self._begin = _Position(min(self._sizes, default=0), 0)
        """What lies before has been written to the database."""
        self._end_of_read = self._begin
        self._content_of = -1
        self._content = bytearray()
        """What has been read of the segment ``_content_of``."""
        self.unreadable_bytes = 0
        """Bytes in which no record could be found, torn ones included."""
        self._note_identity(identity)

    def _note_identity(self, identity: str) -> None:
        """Ids mean something else in another database."""
        note = self._folder / "database"
        known = note.read_text("ascii") if note.exists() else identity
        if known != identity and not self.empty:
            raise SpoolOfAnother
        if known != identity or not note.exists():
            note.write_text(identity, "ascii")

    @property
    def kept_bytes(self) -> int:
        return sum(self._sizes.values()) - self._begin.offset

    @property
    def empty(self) -> bool:
        return self.kept_bytes <= 0

    # --- keeping -------------------------------------------------------------------------------------------------

    def keep(self, clicks: Sequence[Click], postbacks: Sequence[Postback]) -> None:
        """Append a batch and sync it.  Raises ``SpoolFull``, or ``OSError`` when it is not known to be on the disk."""
        payload = _encode(_Record(list(clicks), list(postbacks)))
        record = _MARK + len(payload).to_bytes(4, "big") + crc32(payload).to_bytes(4, "big") + payload
        if self.kept_bytes + len(record) > self._most_bytes:
            raise SpoolFull(f"{self._most_bytes} bytes are kept in {self._folder} already")
        try:
            segment = self._open_segment()
            offset = self._sizes[segment]
            written = 0
            while written < len(record):
                written += os.pwrite(self._file, record[written:], offset + written)
            os.fdatasync(self._file)
        except OSError:
            self._abandon_segment()
            raise
        self._sizes[segment] = offset + len(record)

    def _open_segment(self) -> int:
        if self._writing is not None and self._sizes[self._writing] >= _SEGMENT_BYTES:
            self._close_segment()
        if self._writing is None:
            number = max(self._sizes, default=self._begin.segment) + 1
            self._file = os.open(self._path(number), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._writing = number
            self._sizes[number] = 0
            sync_names(self._folder)
        return self._writing

    def _abandon_segment(self) -> None:
        """What may lie behind the last record that was synced was not acknowledged, and is not read."""
        segment = self._writing
        self._close_segment()
        if segment is not None and not self._sizes[segment]:
            del self._sizes[segment]
            self._path(segment).unlink(missing_ok=True)

    def _close_segment(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._writing, self._file = None, -1

    # --- taking --------------------------------------------------------------------------------------------------

    def read(self, limit: int) -> Batch | None:
        """The oldest records, as one batch of up to ``limit`` rows, but one record at least; ``None`` when empty.

        They stay where they are until ``drop``.
        """
        clicks: list[Click] = []
        postbacks: list[Postback] = []
        position = self._begin
        while len(clicks) + len(postbacks) < limit:
            found = self._next(position)
            if found is None:  # whatever is left holds no record
                last = max(self._sizes, default=position.segment)
                position = _Position(last, self._sizes.get(last, 0))
                break
            record, position = found
            clicks += record.clicks
            postbacks += record.postbacks
        self._end_of_read = position
        if not clicks and not postbacks:
            self.drop()
            return None
        return Batch(clicks, postbacks)

    def drop(self) -> None:
        """What was read last is in the database: forget it."""
        self._begin = self._end_of_read
        for segment in sorted(self._sizes):
            done = segment < self._begin.segment or self._begin == (segment, self._sizes[segment])
            if not done:
                break
            if segment == self._writing:
                self._close_segment()
            self._path(segment).unlink(missing_ok=True)
            del self._sizes[segment]
            if segment == self._begin.segment:
                self._begin = _Position(min(self._sizes, default=segment), 0)
        self._end_of_read = self._begin

    def newest_stamp(self) -> int:
        """The largest stamp of a click or request that is kept, 0 when none is."""
        newest, position = 0, self._begin
        while (found := self._next(position)) is not None:
            record, position = found
            stamps = [click.stamp for click in record.clicks]
            stamps += [postback.request.request_id for postback in record.postbacks]
            newest = max(newest, *stamps, 0)
        return newest

    def _next(self, position: _Position) -> tuple[_Record, _Position] | None:
        """The first record at or behind a position, and where it ends."""
        for segment in sorted(number for number in self._sizes if number >= position.segment):
            offset = position.offset if segment == position.segment else 0
            found = self._find(segment, offset)
            if found is not None:
                return found
        return None

    def _find(self, segment: int, offset: int) -> tuple[_Record, _Position] | None:
        content = self._load(segment)
        start = offset
        while (start := content.find(_MARK, start)) >= 0:
            payload = _payload_at(content, start)
            if payload is not None:
                self._skipped(segment, start - offset)
                end = start + _HEAD_BYTES + len(payload)
                record = self._decode(segment, start, payload)
                if record is not None:
                    return record, _Position(segment, end)
                start = offset = end
                continue
            start += 1
        self._skipped(segment, len(content) - offset)
        return None

    def _decode(self, segment: int, start: int, payload: bytearray) -> _Record | None:
        """``None`` for a record of another version, which is put aside: it must not keep the others waiting."""
        try:
            return _decode(payload)
        except msgspec.MsgspecError as error:
            aside = self._folder / f"{segment:010}-{start}.unreadable"
            aside.write_bytes(payload)
            log.error("a record of the spool cannot be read (%s); it lies in %s", error, aside)  # noqa: TRY400
            return None

    def _load(self, segment: int) -> bytearray:
        if self._content_of != segment:
            self._content_of, self._content = segment, bytearray()
        missing = self._sizes[segment] - len(self._content)
        if missing:
            with self._path(segment).open("rb") as file:
                file.seek(len(self._content))
                self._content += file.read(missing)
        return self._content

    def _skipped(self, segment: int, count: int) -> None:
        if count > 0:
            self.unreadable_bytes += count
            log.warning("%d bytes of %s hold no whole record", count, self._path(segment))

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment:010}.spool"

    def close(self) -> None:
        self._close_segment()


def _payload_at(content: bytearray, start: int) -> bytearray | None:
    head = start + len(_MARK)
    length = int.from_bytes(content[head : head + 4], "big")
    payload = content[start + _HEAD_BYTES : start + _HEAD_BYTES + length]
    whole = len(payload) == length and crc32(payload) == int.from_bytes(content[head + 4 : head + 8], "big")
    return payload if whole and length else None
