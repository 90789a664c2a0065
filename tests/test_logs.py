"""The server's own log as JSON: whatever a message holds, one object a line."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from postbackd.core.model import How, RequestForm, Rule, Source, Target
from postbackd.role import JsonLines
from postbackd.store.sqlite import SqliteStore
from tests.trust.server import Server, run_cli, wait_until

ANYTHING = st.text(st.characters(codec=None), max_size=60) | st.text(
    '\n\r\x00\x85\u2028\u2029\udcff"\\{}%é', max_size=20
)


def write(
    level: int, message: str, *arguments: Any, name: str = "postbackd", error: Exception | None = None
) -> list[str]:
    """What the real handler writes for one record, to a stream that takes ASCII only."""
    raw = io.BytesIO()
    handler = logging.StreamHandler(io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    handler.setFormatter(JsonLines())
    raised = None if error is None else (type(error), error, None)
    handler.handle(logging.LogRecord(name, level, __file__, 1, message, arguments, raised))
    text = raw.getvalue().decode("utf-8")
    assert text.endswith("\n")
    return text.splitlines()


@given(ANYTHING, ANYTHING, ANYTHING, st.sampled_from([logging.INFO, logging.WARNING, logging.ERROR]))
def test_any_text_in_a_log_line_is_one_json_object_on_one_line(a: str, b: str, name: str, level: int) -> None:
    (line,) = write(level, "target %r cannot be served: %s", a, b, name=name or "postbackd")
    document = json.loads(line)
    assert document.keys() == {"time", "level", "logger", "message"}
    assert document["message"].startswith("target ")
    if b.isprintable():
        assert document["message"].endswith(f"cannot be served: {b}")
    line.encode("ascii")


@given(ANYTHING, ANYTHING)
def test_an_exception_in_a_log_line_stays_on_it(words: str, message: str) -> None:
    (line,) = write(logging.ERROR, "%s", message, error=ValueError(words))
    assert "ValueError" in json.loads(line)["message"]


@given(ANYTHING, st.lists(st.integers() | ANYTHING, max_size=3))
def test_a_message_whose_arguments_do_not_fit_is_said_all_the_same(
    message: str, arguments: list[Any]
) -> None:
    (line,) = write(logging.INFO, message, *arguments)
    assert json.loads(line)["level"] == "info"


NAMES = ['quote " and \\ back', "ünïcode \u2028 line\nfeed", "{%s} %d \x00\x1b[31m", "a\u200bb\x85"]


async def add_unservable_targets(data: Path) -> None:
    """Targets that the deliver role complains of by name: nobody gave their secret."""
    store = await SqliteStore.open(data, create=True)
    how = How(requests={"conversion": RequestForm(url="https://ads.example/?k={account.KEY}")})
    source = await store.save(Source(id=0, name="Ads"))
    for number, name in enumerate(NAMES):
        target = await store.save(Target(id=0, name=name, how=how))
        await store.save(Rule(id=0, name=f"rule {number}", source=source.id, target=target.id))
    await store.close()


def test_every_line_of_a_running_server_is_one_json_object(tmp_path: Path) -> None:
    data = tmp_path / "data"
    asyncio.run(add_unservable_targets(data))
    env = {"POSTBACKD_LOG_FORMAT": "json", "PYTHONIOENCODING": "ascii:backslashreplace"}
    with Server(data, env=env) as server:
        lines = wait_for_lines(server.stderr_path, len(NAMES))
        second = run_cli(data, "serve", "--listen", "127.0.0.1:0", env=env)
    for line in lines:
        assert json.loads(line).keys() == {"time", "level", "logger", "message"}
    messages = "".join(json.loads(line)["message"] for line in lines)
    assert all(f"target {name!r} cannot be served" in messages for name in NAMES)
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    assert "another postbackd server" in json.loads(line)["message"]


def wait_for_lines(path: Path, number: int) -> list[str]:
    def read() -> list[str]:
        return path.read_text("ascii").splitlines()

    wait_until(lambda: len(read()) >= number, 15, "log lines")
    return read()
