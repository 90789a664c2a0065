"""The oracle of deliveries: holds what was acknowledged against what the receiver noted.

    lost     owed, and never confirmed by the receiver (or a change that the source was not told of)
    double   one message under two delivery ids
    phantom  something that nobody owed
    wrong    one id for two messages; a message before, or again after, the one it must follow; a source that in the
             end believes what is not so; a delivery that is not settled; events that nobody has looked at

It knows the rule of the test (every approved conversion; changes are adjusted, reversals retracted) and works out by
itself what follows from it; no line of the program under test takes part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.trust.oracle import Tally, read_stamp
from tests.trust.receiver import CONFIRMED, HEARD, Note

APPROVED = 2
WAITING, DELIVERED, DEAD, CANCELLED = 1, 2, 3, 4
"""States of a delivery."""

Step = tuple[int, int]
"""Status and value in millionths that a postback says."""


@dataclass(slots=True)
class Story:
    """What is said about one conversion, a postback after the other, and how far that has been acknowledged."""

    steps: tuple[Step, ...]
    acknowledged: int = 0

    @property
    def owed(self) -> bool:
        """Whether the source is to be told anything."""
        return any(status == APPROVED for status, _ in self.steps[: self.acknowledged])

    @property
    def truth(self) -> int | None:
        """The value that the source must believe in the end, ``None`` when there must be no conversion."""
        status, value = self.steps[self.acknowledged - 1] if self.acknowledged else (0, 0)
        return value if status == APPROVED else None

    def may_say(self, word: str, value_micros: int) -> bool:
        """Whether such a message can follow from it."""
        said = any(status == APPROVED and value == value_micros for status, value in self.steps)
        return said and (word != "retraction" or self.steps[-1][0] != APPROVED)


@dataclass(frozen=True, slots=True)
class Row:
    """A delivery as the database has it in the end."""

    number: int
    request_id: int
    ref: str
    state: int
    reason: str


@dataclass(slots=True)
class _Heard:
    """What the receiver knows of one conversion."""

    messages: list[tuple[str, str, int]] = field(default_factory=list)
    """Delivery id, word and value, by first arrival."""
    taken: set[str] = field(default_factory=set)
    """Ids that took effect."""
    belief: int | None = None


class Judge:
    """Takes the notes one by one, then the rows."""

    def __init__(self, stories: Mapping[str, Story]) -> None:
        self.tally = Tally()
        self.requests = 0
        self.repeats = 0
        self._stories = stories
        self._heard: dict[str, _Heard] = {}
        self._contents: dict[str, str] = {}
        self._confirmed: set[str] = set()
        self._lost: set[str] = set()

    def take(self, note: Note) -> None:
        """The next note."""
        self.requests += 1
        story, tally = self._stories.get(note.ref), self.tally
        if story is None:
            tally.find("phantom", f"a delivery about {note.ref!r}, which was never sent")
            return
        heard = self._heard.setdefault(note.ref, _Heard())
        content = self._contents.get(note.delivery)
        if content is None:
            self._contents[note.delivery] = note.content
            self._take_new(story, heard, note)
        else:
            self.repeats += 1
            if content != note.content:
                tally.find("wrong", f"id {note.delivery} for two messages: {content} and {note.content}")
            elif heard.messages[-1][0] != note.delivery:
                tally.find("wrong", f"{note.ref}: a {note.word} again after the {heard.messages[-1][1]}")
        if note.answer in CONFIRMED:
            self._confirmed.add(note.delivery)
        if note.answer in HEARD and note.delivery not in heard.taken:
            heard.taken.add(note.delivery)
            self._believe(heard, note)

    def _take_new(self, story: Story, heard: _Heard, note: Note) -> None:
        message = (note.word, note.value_micros)
        if not story.may_say(*message):
            self.tally.find("phantom", f"{note.ref}: {note.word} of {note.value_micros}, of {story.steps}")
        # No story says the same thing twice.
        if message in [(word, value) for _, word, value in heard.messages]:
            self.tally.find("double", f"{note.ref}: the same {note.word} under two ids")
        elif note.word == "conversion" and heard.messages:
            self.tally.find("double", f"{note.ref}: a conversion after {heard.messages}")
        heard.messages.append((note.delivery, *message))

    def _believe(self, heard: _Heard, note: Note) -> None:
        if note.word != "conversion" and heard.belief is None:
            self.tally.find("wrong", f"{note.ref}: a {note.word} of what the source was never told")
        heard.belief = None if note.word == "retraction" else note.value_micros

    def close(self, rows: Iterable[Row], events: int) -> Tally:
        """After the last note: what the database says, and how many events are left in the outbox."""
        self.tally.n = sum(story.owed for story in self._stories.values())
        known = set()
        for row in rows:
            known.add(f"{row.request_id}-{row.number}")
            self._check_row(row)
        invented = [id_ for id_ in self._contents if _in_numbers(id_) not in known]
        for id_ in invented:
            self.tally.find("phantom", f"delivery {id_} is in no table")
        for ref, story in self._stories.items():
            self._check_end(ref, story, self._heard.get(ref) or _Heard())
        if events:
            self.tally.find("wrong", f"{events} events are left in the outbox", events)
        return self.tally

    def _check_row(self, row: Row) -> None:
        if row.state == WAITING:
            self.tally.find("wrong", f"{row.ref}: delivery {row.number} is not settled")
        elif row.state == DEAD:
            self._lose(row.ref, f"given up: {row.reason}")
        elif row.state == DELIVERED and not any(
            _in_numbers(id_) == f"{row.request_id}-{row.number}" and id_ in self._confirmed
            for id_, _, _ in (self._heard.get(row.ref) or _Heard()).messages
        ):
            self._lose(row.ref, f"delivery {row.number} is settled, and the receiver never confirmed it")

    def _check_end(self, ref: str, story: Story, heard: _Heard) -> None:
        truth = story.truth
        if truth is not None and (heard.belief != truth or heard.messages[-1][0] not in self._confirmed):
            self._lose(ref, f"the source believes {heard.belief}, and it is {truth}: {heard.messages}")
        elif truth is None and heard.belief is not None:
            self.tally.find(
                "wrong",
                f"{ref}: the source believes in what was taken back: {heard.messages} of {story.steps}",
            )

    def _lose(self, ref: str, detail: str) -> None:
        if ref not in self._lost:
            self._lost.add(ref)
            self.tally.find("lost", f"{ref}: {detail}")


def _in_numbers(delivery: str) -> str:
    """A delivery id with its stamp as the integer that the database stores."""
    stamp, _, number = delivery.rpartition("-")
    try:
        return f"{read_stamp(stamp)}-{number}"
    except KeyError:
        return delivery
