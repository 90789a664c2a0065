"""What a source of jobs promises to the worker, and how its address is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Protocol, Tuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from postbackd_client.queues.loading import QueueError


class SourceAway(Exception):
    """The queue cannot be reached now; jobs that were taken and not settled come again."""


@dataclass(frozen=True)
class Job:
    """One text, and what its queue knows about it."""

    text: str
    handle: Any
    """By which the source settles it."""
    tries: int
    """How often it was tried before."""
    age_s: float
    """Since it was handed over first."""


class Source(Protocol):
    """A connection to a queue, for one thread.  Every method may raise ``SourceAway``.

    A job that was taken stays the queue's until it is settled, put off or put aside: when the worker is gone, or the
    connection, another one gets it.
    """

    def take(self, wait_s: float) -> List[Job]:
        """Some jobs; waits so long for the first."""

    def settle(self, job: Job) -> None:
        """It is done: forget it."""

    def put_off(self, job: Job, wait_s: float) -> None:
        """Give it again after ``wait_s``, with one more try; others are not held up."""

    def put_aside(self, job: Job, reason: str) -> None:
        """Keep it where a person looks, and give it no more."""

    def take_back(self) -> int:
        """Give all that was put aside again, as if it had never been tried; how many these were."""

    def depth(self) -> Mapping[str, int]:
        """How many are ``waiting``, put off (``later``) and put ``aside``, as far as the queue tells."""

    def close(self) -> None:
        """Give back what was taken and not settled."""


def split_options(url: str, known: Mapping[str, str]) -> Tuple[str, Dict[str, str]]:
    """An address without our own options, and those: what ``known`` names, with its default."""
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = {**known, **{name: text for name, text in pairs if name in known}}
    for name, text in options.items():
        if not text:
            raise QueueError(f"{name} is empty in the queue's address")
    rest = urlencode([pair for pair in pairs if pair[0] not in known])
    return urlunsplit(parts._replace(query=rest)), options


def read_seconds(name: str, text: str) -> float:
    """A number of seconds of an address.  Raises ``QueueError``."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise QueueError(f"{name}={text} in the queue's address: give seconds, such as {name}=60")
    return seconds
