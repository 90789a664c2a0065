"""The truth of one run, a JSON object a line: what is about to be sent is written first, what became of it after.

So a run that ends in the middle, however it ends, leaves a file in which whatever has no second line is unknown.
Lines are written by one system call each and never rewritten.  The file holds the keys of no network.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from postbackd.market.tracker import Message
from postbackd.simulating.plan import Plan


class Began(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="line", tag="began"):
    """The first line of every file."""

    plan: Plan
    server: str
    at_ms: int
    """Of this machine's clock."""
    version: str


class Click(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="line", tag="click"):
    """A visitor follows a link."""

    visit: int
    at_ms: int
    """Of this machine's clock, here and below."""
    market_ms: int
    """Of the market's."""
    campaign: str
    """As the catalog calls it, here and below."""
    kind: str


class ClickEnd(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="line", tag="click_end"):
    """What became of it."""

    visit: int
    status: int = 0
    """0: no answer."""
    click_id: str = ""
    """As the landing page was given it; empty: the visitor did not get there."""
    sent: bool = True
    """Without an answer: whether the server may have read the request."""
    error: str = ""
    took_us: int = 0


class Sale(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="line", tag="sale"):
    """A visitor has bought, whatever anybody hears of it."""

    sale: int
    visit: int
    market_ms: int
    network: str
    campaign: str
    type: str
    value_micros: int
    currency: str
    lost_by: str = ""
    no_pixel: str = ""


class Postback(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="line", tag="postback"):
    """A network, or the pixel in a browser, sends a postback."""

    postback: int
    turn: int
    """1, and one more for each further try."""
    twin: int = 0
    """1 for the second of two that are sent at the same moment."""
    at_ms: int
    market_ms: int
    network: str
    channel: int
    sale: int = 0
    """0: it is about nobody's sale."""
    query: str
    """``{id}``: the click id, in the form ``spelling``."""
    spelling: str
    fault: str = ""
    says: Message
    holds_repeats: bool = False


class PostbackEnd(
    Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="line", tag="postback_end"
):
    """What became of it."""

    postback: int
    turn: int
    twin: int = 0
    status: int = 0
    verdict: str = ""
    reason: str = ""
    conversion: str = ""
    request: str = ""
    sent: bool = True
    error: str = ""
    took_us: int = 0


class GivenUp(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="line", tag="given_up"):
    """A network will not send this postback again, or not at all."""

    postback: int
    network: str
    turns: int
    switched_off: bool = False
    """Whether it has switched our URL off, for good."""


class Ended(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="line", tag="ended"):
    """The last line of a run that was not killed."""

    at_ms: int
    why: str


Line = Began | Click | ClickEnd | Sale | Postback | PostbackEnd | GivenUp | Ended


class BadTruth(Exception):
    """The file cannot be read as the truth of a run; says where and what to do."""


class TruthWriter:
    """Appends lines to a new file."""

    def __init__(self, path: Path) -> None:
        """Raises ``BadTruth`` when there is such a file already, or it cannot be made."""
        self._path = path
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        except FileExistsError as error:
            raise BadTruth(
                f"{path} is there already, and holds the truth of another run; choose another --truth"
            ) from error
        except OSError as error:
            raise BadTruth(f"{path} cannot be written ({error.strerror}); choose another --truth") from error
        self._encoder = msgspec.json.Encoder()

    def write(self, line: Line) -> None:
        """One line, handed to the system before this returns.  Raises ``BadTruth``: then nothing must be sent."""
        text = self._encoder.encode(line) + b"\n"
        try:
            written = os.write(self._file, text)
        except OSError as error:
            raise BadTruth(f"{self._path} cannot be written any more ({error.strerror})") from error
        if written < len(text):
            raise BadTruth(f"{self._path} cannot be written any more (the disk is full)")

    def discard(self) -> None:
        """Take the file away: nothing of what it tells has arrived anywhere."""
        self._path.unlink()

    def close(self) -> None:
        os.close(self._file)


def read_truth(path: Path) -> Iterator[Line]:
    """The lines of a file; a last one that was cut off in the middle is left out.  Raises ``BadTruth``."""
    decoder = msgspec.json.Decoder(Line)
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if not text.endswith(b"\n"):
                    return
                try:
                    line: Line = decoder.decode(text)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise BadTruth(
                        f"{path}, line {number}: not the truth of a simulated market ({error})"
                    ) from error
                if (number == 1) != isinstance(line, Began):
                    raise BadTruth(f"{path}, line {number}: a run begins with the line 'began', once")
                yield line
    except OSError as error:
        raise BadTruth(f"{path} cannot be read ({error.strerror}); name what 'simulate run' wrote") from error
