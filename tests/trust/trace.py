"""Reads what ``strace -f -y -xx`` wrote: the writes, syncs and answers of one server, in order.

``-xx`` prints every byte, so a trace holds the whole content of the run; ``-y`` prints the path of every descriptor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SYSCALLS = (
    "openat,open,creat,unlink,unlinkat,rename,renameat,renameat2,pwrite64,pwritev,pwritev2,write,writev,"
    "fsync,fdatasync,sync_file_range,ftruncate,fallocate,sendto,sendmsg"
)
_LONGEST_WRITE = 1 << 20


def tracer(trace: Path, inject: Sequence[str] = ()) -> list[str]:
    """The words before the command that make strace write ``trace``; ``inject``: its fault expressions."""
    words = ["strace", "-f", "-y", "-xx", "-s", str(_LONGEST_WRITE), "-o", str(trace)]
    extra = "".join(f",{expression.split(':')[0]}" for expression in inject)
    words += ["--seccomp-bpf", "-e", f"trace={SYSCALLS}{extra}", "-e", "signal=none"]
    for expression in inject:
        words += ["-e", f"inject={expression}"]
    return words


@dataclass(frozen=True, slots=True)
class Event:
    """One system call.  ``begin`` and ``end`` are line numbers: calls of several threads may overlap."""

    call: str
    begin: int
    end: int
    path: str
    """Of the file, or ``socket:[…]``."""
    content: bytes = b""
    """What was really written: cut to the returned count."""
    offset: int = 0
    error: str = ""
    injected: bool = False
    creates: bool = False
    """``openat`` with ``O_CREAT``."""
    target: str = ""
    """New name of a rename."""

    @property
    def failed(self) -> bool:
        return bool(self.error)


_LINE = re.compile(r"(\d+) +(.*)", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)", re.DOTALL)
_RESULT = re.compile(r"\)\s*= (-?\d+|\?)(?:<([^>]*)>)?(?: (E\w+))?")
_DESCRIPTOR = re.compile(r"(\d+)<([^>]*)>")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_ESCAPED = re.compile(r"(?:\\x[0-9a-f]{2})+")
_OFFSET = re.compile(r", (\d+)\)\s*=")
_OFFSET_V2 = re.compile(r", (\d+), [^,]*\)\s*=")
_WRITES = frozenset({"pwrite64", "pwritev", "pwritev2", "write", "writev", "sendto", "sendmsg"})
_SYNCS = frozenset({"fsync", "fdatasync", "sync_file_range"})
_NAMES = frozenset({"unlink", "unlinkat", "rename", "renameat", "renameat2"})


def read_trace(path: Path) -> list[Event]:
    """All calls that tell of a file or a socket, in the order of their effects.

    A write or an answer may have left as soon as it began; a sync has done its work only when it returned.
    """
    with path.open(encoding="latin-1") as lines:
        return sorted(_events(lines), key=lambda event: event.end if event.call in _SYNCS else event.begin)


def _events(lines: Iterable[str]) -> Iterator[Event]:
    open_calls: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines):
        match = _LINE.match(line.rstrip("\n"))
        if match is None:
            continue
        thread, text = match.groups()
        begin = number
        resumed = _RESUMED.match(text)
        if resumed:
            begin, first = open_calls.pop(thread, (number, f"{resumed[1]}("))
            text = first + resumed[2]
        elif text.endswith("<unfinished ...>"):
            open_calls[thread] = (number, text.removesuffix("<unfinished ...>").rstrip(" "))
            continue
        event = _event(text, begin, number)
        if event is not None:
            yield event
    # What was killed before it returned may have happened: writes count, syncs do not.
    for begin, text in open_calls.values():
        event = _event(f"{text}) = ?", begin, begin)
        if event is not None and event.call not in _SYNCS:
            yield event


def _event(text: str, begin: int, end: int) -> Event | None:
    call, _, arguments = text.partition("(")
    results = list(_RESULT.finditer(arguments))
    if not results:
        return None
    result = results[-1]
    error, injected = result[3] or "", text.endswith("(INJECTED)")
    if call in _WRITES:
        return _write(call, arguments, begin, end, result[1], error, injected)
    if call in _SYNCS or call in ("ftruncate", "fallocate"):
        descriptor = _DESCRIPTOR.match(arguments)
        path = _decode(descriptor[2]).decode("utf-8", "replace") if descriptor else ""
        size = int(re.findall(r", (\d+)", arguments)[-1]) if call in ("ftruncate", "fallocate") else 0
        return Event(call, begin, end, path, offset=size, error=error, injected=injected)
    if call in ("openat", "open", "creat"):
        creates = "O_CREAT" in arguments or call == "creat"
        return Event(
            call,
            begin,
            end,
            _decode(result[2] or "").decode("utf-8", "replace"),
            error=error,
            creates=creates,
        )
    if call in _NAMES:
        names = [_decode(name).decode("utf-8", "replace") for name in _TEXT.findall(arguments)]
        return Event(call, begin, end, names[0], error=error, target=names[-1]) if names else None
    return None


def _write(
    call: str, arguments: str, begin: int, end: int, result: str, error: str, injected: bool
) -> Event | None:
    descriptor = _DESCRIPTOR.match(arguments)
    if descriptor is None:
        return None
    content = b"".join(_decode(part) for part in _TEXT.findall(arguments[descriptor.end() :]))
    count = len(content) if result == "?" else max(0, int(result))
    offset = 0
    if call.startswith("pwrite"):
        tail = _TEXT.sub("", arguments)
        offset = int(re.findall(_OFFSET_V2 if call == "pwritev2" else _OFFSET, tail)[-1])
    path = _decode(descriptor[2]).decode("utf-8", "replace")
    kept = b"" if error else content[:count]
    return Event(call, begin, end, path, kept, offset, error, injected)


def _decode(text: str) -> bytes:
    """``\\x41B`` as bytes; strace escapes all or nothing of a word."""
    if "\\x" not in text:
        return text.encode("latin-1")
    return b"".join(bytes.fromhex(run[0].replace("\\x", "")) for run in _ESCAPED.finditer(text))
