"""What is known of each row of a batch, on a small file beside it, so that a run that was killed can go on.

A row is noted, and the note synced, before it is sent ("unknown" from then on) and when it is answered.  A later run
sends what is not settled, under the same transaction id: what was counted already is a duplicate then.  Without the
first note a killed run could not tell what it had sent.

Notes of rows that are in flight together share a sync.  The last line of a file that was cut by a crash is dropped.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import secrets
from pathlib import Path

from postbackd.core.became import Became
from postbackd.store.sqlite_file import sync_names

_VERSION = 1


class JournalError(Exception):
    """The journal cannot be used; nothing was sent.  The message says what to do."""


class Noted:
    """What the journal knows of a row."""

    __slots__ = ("good", "reason", "settled", "word")

    def __init__(self, word: str, reason: str, *, settled: bool, good: bool) -> None:
        self.word = word
        self.reason = reason
        self.settled = settled
        self.good = good


UNKNOWN = Noted("unknown", "it was sent, perhaps, and no answer was noted", settled=False, good=False)


class Journal:
    """An open journal, locked against a second run."""

    def __init__(self, path: Path, endpoint: str, *, test: bool = False) -> None:
        """``endpoint``: to what the rows are sent.  Raises ``JournalError`` and ``OSError``."""
        self.path = path
        self.rows: dict[str, Noted] = {}
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None
        self._broken: OSError | None = None
        print_of = hashlib.sha256(f"{endpoint}\0{test}".encode()).hexdigest()[:16]
        is_new = not path.exists()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._lock()
            header = self._read()
            if header is not None and header.get("endpoint") != print_of and self._was_refused():
                os.ftruncate(self._file, 0)
                header, self.rows = None, {}
            if header is None:
                header = {"journal": _VERSION, "endpoint": print_of, "token": secrets.token_hex(4)}
                os.write(self._file, f"{json.dumps(header)}\n".encode())
                os.fsync(self._file)
                sync_names(path.parent)
            self._check(header, print_of)
        except BaseException:
            os.close(self._file)
            if is_new and not path.stat().st_size:
                path.unlink()
            raise
        self._token = str(header["token"])

    def transaction_id(self, key: str) -> str:
        """The transaction id of a row that has none: the same in every run."""
        return f"b{self._token}-{key}"

    def is_settled(self, key: str) -> bool:
        """Whether a row need not be sent again."""
        noted = self.rows.get(key)
        return noted is not None and noted.settled

    async def note_sending(self, key: str) -> None:
        """The row is about to be sent.  Raises ``OSError``: then it must not be."""
        self.rows[key] = UNKNOWN
        await self._write(["s", key])

    async def note_answer(self, key: str, became: Became) -> None:
        """What became of the row.  Raises ``OSError``: then it stays unknown, and is sent again by the next run."""
        noted = Noted(became.word, became.reason, settled=became.settled, good=became.good)
        await self._write(["a", key, int(became.settled), int(became.good), became.word, became.reason])
        self.rows[key] = noted

    def close(self) -> None:
        """Let another run have it."""
        os.close(self._file)

    # --- the file --------------------------------------------------------------------------------------------

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(
                f"{self.path} is in use: another run sends these rows; wait for its end"
            ) from None

    def _read(self) -> dict[str, object] | None:
        """Take in what is there; returns the first line."""
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._file, whole)
        lines = content[:whole].splitlines()
        if not lines:
            return None
        try:
            header = json.loads(lines[0])
            for line in lines[1:]:
                self._take(json.loads(line))
        except (ValueError, TypeError, IndexError, KeyError):
            raise JournalError(
                f"{self.path} is no journal of 'postbackd send', or it is damaged; move it away to begin anew "
                "(rows that were sent before are then sent again)"
            ) from None
        return header if isinstance(header, dict) else {}

    def _take(self, line: list[object]) -> None:
        if line[0] == "s":
            self.rows[str(line[1])] = UNKNOWN
        else:
            _, key, settled, good, word, reason = line
            self.rows[str(key)] = Noted(str(word), str(reason), settled=bool(settled), good=bool(good))

    def _was_refused(self) -> bool:
        """Whether all that was sent was answered 4xx: the URL was wrong, and may be mended."""
        return all(noted.word.startswith("HTTP 4") for noted in self.rows.values())

    def _check(self, header: dict[str, object], print_of: str) -> None:
        if header.get("journal") != _VERSION or not isinstance(header.get("token"), str):
            raise JournalError(
                f"{self.path} was not written by this version of 'postbackd send'; move it away"
            )
        if header.get("endpoint") != print_of:
            raise JournalError(
                f"{self.path} belongs to a run to another endpoint; name that one, or another file with --journal"
            )

    async def _write(self, line: list[object]) -> None:
        """On the disk when it returns."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append((f"{json.dumps(line, separators=(',', ':'))}\n".encode(), future))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        await future

    async def _flush(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._sync, b"".join(text for text, _ in taken))
                failure = None
            except OSError as error:
                failure = error
            for _, future in taken:
                if future.done():
                    continue  # whoever waited has gone
                if failure is not None:
                    future.set_exception(failure)
                else:
                    future.set_result(None)

    def _sync(self, text: bytes) -> None:
        """Raises ``OSError``, and from then on always: a sync that failed is not made good by one that does not."""
        if self._broken is not None:
            raise self._broken
        size = os.fstat(self._file).st_size
        try:
            while text:
                text = text[os.write(self._file, text) :]
            os.fdatasync(self._file)
        except OSError as error:
            self._broken = error
            os.ftruncate(self._file, size)  # half a line would spoil the next one
            raise
