"""How a page of SQLite's file is laid out, as far as it tells which of its bytes are in use.

Decisions over bytes alone; who reads and writes them is ``sqlite_scrub``.  The format is that of fileformat2.html,
sections 1.5 and 1.6.  Any bytes may be given: of what does not fit, nothing is called unused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import apsw
from msgspec import Struct

_TREE_HEADERS = {2: 12, 5: 12, 10: 8, 13: 8}
"""First byte of a page of a tree -> length of its header."""

_TABLE_LEAF, _INDEX_INTERIOR, _INDEX_LEAF = 13, 2, 10

_PAGES = "SELECT name, path, pageno, pagetype = 'overflow', unused FROM dbstat"
"""Every page of every tree, each before what hangs on it; the path of an overflow page begins with its owner's."""


class Layout(Struct, frozen=True):
    """Of one file."""

    page_size: int
    reserved: int

    @property
    def usable(self) -> int:
        """Bytes of a page that SQLite uses."""
        return self.page_size - self.reserved

    def is_tree(self, number: int, page: bytes) -> bool:
        """Whether the page could be one of a table or an index."""
        return page[100 if number == 1 else 0] in _TREE_HEADERS

    def may_be_last(self, page: bytes) -> bool:
        """Whether a page that is none of a tree could be the last overflow page of a row, with something in it."""
        return not any(page[:4]) and any(page[4:])

    def blank_trunk(self, page: bytes) -> bytes:
        """A page that lists free pages, with zeros behind the list."""
        used = 8 + 4 * int.from_bytes(page[4:8], "big")
        return page[:used] + bytes(max(0, len(page) - used))

    def blank_tree(self, number: int, page: bytes) -> bytes:
        """A page of a table or an index, with zeros between its cells."""
        head = 100 if number == 1 else 0
        header = _TREE_HEADERS.get(page[head])
        if header is None:
            return page
        cells = int.from_bytes(page[head + 3 : head + 5], "big")
        begin = int.from_bytes(page[head + 5 : head + 7], "big") or 65_536
        end = head + header + 2 * cells
        if not end <= begin <= self.usable:
            return page
        blank = bytearray(page)
        blank[end:begin] = bytes(begin - end)
        free, seen = int.from_bytes(page[head + 1 : head + 3], "big"), begin - 1
        while free > seen:
            length = int.from_bytes(page[free + 2 : free + 4], "big")
            if length < 4 or free + length > self.usable:
                return page
            blank[free + 4 : free + length] = bytes(length - 4)
            free, seen = int.from_bytes(page[free : free + 2], "big"), free
        return bytes(blank)

    def used_of_tail(self, number: int, owner: int, read: Callable[[int], bytes]) -> int | None:
        """How many bytes of a row's last overflow page are in use; ``None``: no row of page ``owner`` ends there."""
        room = self.usable - 4
        for first, length in self._overflowing(read(owner), 100 if owner == 1 else 0):
            page, left = first, length
            while left > room and page:
                page, left = int.from_bytes(read(page)[:4], "big"), left - room
            if page == number:
                return 4 + left
        return None

    def _overflowing(self, page: bytes, head: int) -> Iterator[tuple[int, int]]:
        """(first overflow page, bytes that are there and behind it) of each cell that has any."""
        kind = page[head]
        if kind not in (_TABLE_LEAF, _INDEX_INTERIOR, _INDEX_LEAF):
            return
        least = (self.usable - 12) * 32 // 255 - 23
        most = self.usable - 35 if kind == _TABLE_LEAF else (self.usable - 12) * 64 // 255 - 23
        places = head + _TREE_HEADERS[kind]
        for cell in range(int.from_bytes(page[head + 3 : head + 5], "big")):
            at = int.from_bytes(page[places + 2 * cell : places + 2 * cell + 2], "big")
            payload, at = _read_varint(page, at + 4 if kind == _INDEX_INTERIOR else at)
            if payload <= most:
                continue
            if kind == _TABLE_LEAF:
                _, at = _read_varint(page, at)
            fits = least + (payload - least) % (self.usable - 4)
            local = fits if fits <= most else least
            yield int.from_bytes(page[at + local : at + local + 4], "big"), payload - local


def _read_varint(page: bytes, at: int) -> tuple[int, int]:
    """The number, and where it ends."""
    number = 0
    for byte in page[at : at + 8]:
        at += 1
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            return number, at
    return number << 8 | page[at], at + 1


def find_tails(db: apsw.Connection) -> dict[int, int]:
    """Overflow pages with room behind their end -> the page of the row that each belongs to."""
    found: dict[int, int] = {}
    branch: dict[int, int] = {}
    for _, path, number, overflows, unused in db.execute(_PAGES):
        depth = path.count("/")
        if not overflows:
            branch[depth] = number
        elif unused:
            found[number] = branch[depth]
    return found
