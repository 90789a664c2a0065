"""How networks send: how long they wait for an answer, what they try again, how often, and when they stop for good.

Each habit is one that a real sender documents; ``source`` says whose.  Pauses are of the market's time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

MINUTE_S, DAY_S = 60, 86_400


class Habit(Struct, frozen=True, kw_only=True):
    """How one kind of sender behaves."""

    source: str
    timeout_s: float = 5.0
    """Of real time: it is the server that answers."""
    pauses_s: tuple[float, ...]
    """Before each further try."""
    on_timeout: bool = True
    """Whether no answer (none in time, no connection) is tried again."""
    on_errors: int = 500
    """The lowest status that is tried again."""
    only_200: bool = False
    """Anything but 200 is a failure, also 204."""
    wants_ok: bool = False
    """An answer has to begin with ``OK``."""
    off_after_row: int = 0
    """Failures in a row after which the URL is switched off; 0: never."""
    deaf: bool = False
    """No answer is a success to it, and none a failure that it would switch off for."""
    off_when_tired: bool = False
    """Whether the URL is switched off when the tries for one postback are used up."""


class Heard(Struct, frozen=True):
    """What a sender heard of one try."""

    status: int = 0
    """0: no answer."""
    said_ok: bool = False
    """Whether the body began with ``OK``."""


HABITS: Mapping[str, Habit] = {
    "branch": Habit(
        source="Branch: 2 s, one try more, at once, only without an answer",
        timeout_s=2.0, pauses_s=(0.0,), on_errors=1000,
    ),
    "appsflyer": Habit(
        source="AppsFlyer: 4 more tries on 5xx, 15 minutes apart", pauses_s=(15.0 * MINUTE_S,) * 4,
    ),
    "appmetrica": Habit(
        source="AppMetrica: 5 s, anything but 200 again every few minutes for 24 hours",
        pauses_s=(5.0 * MINUTE_S,) * (24 * 12), on_errors=201, only_200=True,
    ),
    "singular": Habit(
        source="Singular: 5 more tries on 5xx, after 1, 5, 15, 30 and 60 minutes",
        pauses_s=tuple(float(minutes * MINUTE_S) for minutes in (1, 5, 15, 30, 60)),
    ),
    "affise": Habit(
        source="Affise: 5 tries, seconds apart, on any 4xx and 5xx; only 200 is received",
        pauses_s=(3.0,) * 4, on_errors=400, only_200=True,
    ),
    "involve": Habit(
        source="Involve Asia: no retries, and the URL is off after 9 errors in a row",
        pauses_s=(), on_errors=400, off_after_row=9,
    ),
    "everflow": Habit(
        source="Everflow: up to 25 retries, then the URL is off", pauses_s=(10.0 * MINUTE_S,) * 25, on_errors=400,
        off_when_tired=True,
    ),
    "digistore": Habit(
        source="Digistore24: wants a body that begins with OK, else tries again",
        pauses_s=(MINUTE_S, 10.0 * MINUTE_S, 60.0 * MINUTE_S), on_errors=201, wants_ok=True,
    ),
}  # fmt: skip


def is_received(habit: Habit, heard: Heard) -> bool:
    """Whether the sender takes what it heard for a success."""
    if not 200 <= heard.status < 300 or (habit.only_200 and heard.status != 200):
        return False
    return (heard.said_ok or not habit.wants_ok) and not habit.deaf


def next_pause(habit: Habit, heard: Heard, tries: int) -> float | None:
    """Seconds until the next try after so many; ``None``: there is none."""
    if tries > len(habit.pauses_s) or is_received(habit, heard):
        return None
    again = habit.on_timeout if heard.status == 0 else heard.status >= habit.on_errors or habit.wants_ok
    return habit.pauses_s[tries - 1] if again else None


def make_deaf(habit: Habit) -> Habit:
    """The same sender when no answer is a success to it."""
    return replace(
        habit, pauses_s=_DEAF_PAUSES_S, on_errors=0, deaf=True, off_after_row=0, off_when_tired=False
    )


_DEAF_PAUSES_S = (MINUTE_S, 10.0 * MINUTE_S)


class Urls:
    """Which networks have switched our URL off: by failures in a row, or tired of one postback."""

    def __init__(self) -> None:
        self._in_a_row: Counter[str] = Counter()
        self.off: set[str] = set()

    def note(self, network: str, habit: Habit, heard: Heard, *, tired: bool) -> bool:
        """One more try is over; returns whether the network switches the URL off now."""
        if is_received(habit, heard):
            self._in_a_row[network] = 0
            return False
        self._in_a_row[network] += 1
        row = habit.off_after_row and self._in_a_row[network] >= habit.off_after_row
        if network in self.off or not (row or (tired and habit.off_when_tired)):
            return False
        self.off.add(network)
        return True
