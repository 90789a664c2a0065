"""What had been acknowledged at one moment, to be held against a copy of that moment."""

from __future__ import annotations

from copy import copy
from pathlib import Path

import apsw

from tests.trust.ledger import Entry, Ledger
from tests.trust.oracle import Tally, check


class Promised:
    """The acknowledgements until now; what was sent later may be in a copy, and need not be."""

    def __init__(self, ledger: Ledger) -> None:
        self._answered = ledger.answered
        self._counts = {
            key: (len(entry.acknowledged), len(entry.changes_acknowledged))
            for key, entry in ledger.entries.copy().items()  # in one go: a load goes on
        }

    def as_ledger(self, ledger: Ledger, path: Path) -> Ledger:
        """A ledger that knows all that was sent until now, and the acknowledgements of that moment."""
        then = Ledger(path)
        then.answered = self._answered
        for key, entry in ledger.entries.items():
            first, changes = self._counts.get(key, (0, 0))
            known: Entry = copy(entry)
            known.acknowledged = entry.acknowledged[:first]
            known.changes_acknowledged = entry.changes_acknowledged[:changes]
            then.entries[key] = known
        return then

    def judge(self, ledger: Ledger, database: Path, scratch: Path) -> Tally:
        """What the oracle says of a copy; one that cannot be read is wrong.  ``scratch``: a file of its own."""
        then = self.as_ledger(ledger, scratch)
        try:
            return check(then, database)
        except apsw.Error as error:
            tally = Tally(n=then.answered)
            tally.find("wrong", f"cannot be read: {error}")
            return tally
        finally:
            then.close()
