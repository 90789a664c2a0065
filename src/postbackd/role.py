"""What every role process does, whatever its role: hear signals, write a log, take what the system gives it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import signal
import sys
import threading

_NICENESS = 15


def hear_signals(lifeline: int | None) -> asyncio.Event:
    """Set when the process is told to stop, or when whoever started it is gone."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if lifeline is not None:
        loop.add_reader(lifeline, stop.set)
    return stop


class JsonLines(logging.Formatter):
    """One JSON object a line, whatever a message holds.

    In ASCII: the terminal's encoding cannot break it, and no program takes a character in it for the end of a line.
    What is no Unicode (a lone surrogate: bytes of a file name, say) is written as ``\\udcff``.
    """

    def format(self, record: logging.LogRecord) -> str:
        message = _message_of(record)
        if record.exc_info and record.exc_info[1] is not None:
            message += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
        line = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": _readable(record.name),
            "message": _readable(message),
        }
        return json.dumps(line)


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # its arguments do not fit: better said badly than not at all
        return f"{record.msg} {record.args!r}"


def _readable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def logs_json() -> bool:
    """Whether this process writes JSON on standard error."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)


def start_logging(log_format: str) -> None:
    """The process's own log, on standard error: starts, stops and failures, never a request."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else logging.Formatter("postbackd: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("asyncio").setLevel(logging.ERROR)


def raise_file_limit() -> None:
    """As many connections as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def stand_back() -> None:
    """Let whoever answers requests on this machine come first."""
    os.nice(_NICENESS)


def let_thread_stand_back() -> None:
    """The same for the thread that calls it alone."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
