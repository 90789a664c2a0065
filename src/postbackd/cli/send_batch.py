"""``postbackd send --batch``: progress, the file of failed rows, the summary."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import click
import uvloop

from postbackd.cli.options import now_ms
from postbackd.cli.send_options import Bodies, make_trust
from postbackd.cli.session import print_json, showing
from postbackd.core.became import Became
from postbackd.core.percentiles import Spread, spread_of, write_ms
from postbackd.exchanges.batch import Batch, Totals
from postbackd.exchanges.journal import UNKNOWN, Journal, JournalError, Noted
from postbackd.exchanges.postback import Endpoint
from postbackd.exchanges.rows import (
    LINE,
    REASON,
    TEXT,
    Others,
    Row,
    RowsError,
    count_lines,
    is_ndjson,
    read_rows,
    transaction_column,
)
from postbackd.exchanges.timed import Timer


class FailedRows:
    """The rows that somebody has to look at, in the form of the file they come from, with line and reason.

    It is written beside and put in its place at the end, so that an interrupted run leaves the last whole one.
    """

    def __init__(self, source: Path) -> None:
        self._ndjson = is_ndjson(source)
        self.path = source.with_name(f"{source.name}.failed.{'ndjson' if self._ndjson else 'csv'}")
        self._beside = self.path.with_name(f"{self.path.name}.new")
        self._file: TextIO | None = None
        self._writer: Any = None
        self._pending: list[dict[str, str]] = []
        self.count = 0

    def add(self, row: Row, reason: str, transaction_id: str) -> None:
        """One row; ``transaction_id``: under which it was sent, so that the next run sends it under the same."""
        self.count += 1
        cells = {name: text for name, text in row.cells.items() if name not in (LINE, REASON)}
        if transaction_id and TEXT not in cells:
            cells[transaction_column(list(cells))] = transaction_id
        self._write({**cells, LINE: str(row.line), REASON: reason})

    def _write(self, cells: dict[str, str]) -> None:
        if self._file is None:
            self._file = self._beside.open("w", encoding="utf-8", newline="")
        if self._ndjson:
            self._file.write(json.dumps(cells, ensure_ascii=False) + "\n")
        elif TEXT in cells:
            self._pending.append(cells)  # it has other columns than the rest
        else:
            self._write_cells(cells)

    def _write_cells(self, cells: Mapping[str, str]) -> None:
        if self._writer is None:
            assert self._file is not None
            names = [name for name in cells if name not in (LINE, REASON)]
            columns = dict.fromkeys([*names, transaction_column(names), LINE, REASON, TEXT])
            self._writer = csv.DictWriter(self._file, [*columns], restval="")
            self._writer.writeheader()
        self._writer.writerow(cells)

    def give_up(self) -> None:
        """The run did not see all rows: what the last whole one wrote stays."""
        if self._file is not None:
            self._file.close()
            self._beside.unlink(missing_ok=True)

    def finish(self) -> None:
        """Put the file in its place; without failed rows there is none.  Raises ``OSError``."""
        for cells in self._pending:
            self._write_cells(cells if self._writer else {"click_id": "", **cells})
        if self._file is None:
            self.path.unlink(missing_ok=True)
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._beside.replace(self.path)


def send_batch(endpoint: Endpoint, file: Path, options: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
    """Send the rows of a file; ends the command."""
    if not file.is_file():
        raise click.UsageError(f"--batch {file}: there is no such file; a batch cannot be read from a pipe")
    test = bool(options["test"])
    place = batch["journal"] or file.with_name(f"{file.name}{'.test' if test else ''}.journal")
    others: Others = batch["other_columns"] or "refuse"
    try:
        for row in read_rows(file, others, needs_click_id=not test):
            del row  # looked at as a whole before anything is sent
        journal = Journal(place, _identity(endpoint), test=test)
    except (RowsError, JournalError) as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"cannot use {error.filename or file}: {error.strerror}") from error
    failed = FailedRows(file)
    run = _Run(endpoint, file, journal, failed, options, batch, test=test)
    totals = _run(run, others, place)
    if totals.stopped == "interrupted":
        failed.give_up()
    else:
        _writing(failed, failed.finish)
    _print(totals, run.words, failed, run.lost(), as_json=bool(options["json_wanted"]))
    if totals.stopped == "interrupted":
        raise click.exceptions.Exit(130)
    if totals.stopped or failed.count:
        raise click.exceptions.Exit(1)


def _run(run: _Run, others: Others, place: Path) -> Totals:
    try:
        return run.run(others)
    except RowsError as error:  # it was looked through before: somebody changes it
        raise click.ClickException(f"{error}; run the same command again") from error
    except OSError as error:
        raise click.ClickException(
            f"the journal {place} cannot be written ({error.strerror}); nothing is sent that is not noted. "
            "Make room and run the same command again"
        ) from error
    finally:
        run.close()


def _writing(failed: FailedRows, work: Callable[[], None]) -> None:
    """Write to the file of failed rows: what goes wrong there is no fault of the journal."""
    try:
        work()
    except OSError as error:
        raise click.ClickException(
            f"{failed.path} cannot be written ({error.strerror}); what was sent is noted in the journal. "
            "Make room and run the same command again"
        ) from error


def _identity(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.url}"


class _Run:
    """What one run of the command needs beside the batch itself."""

    def __init__(
        self,
        endpoint: Endpoint,
        file: Path,
        journal: Journal,
        failed: FailedRows,
        options: Mapping[str, Any],
        batch: Mapping[str, Any],
        *,
        test: bool,
    ) -> None:
        self._endpoint = endpoint
        self._path = file
        self._journal = journal
        self._failed = failed
        self._options = options
        self._settings = batch
        self._test = test
        self._seen: set[str] = set()
        self.words: Counter[str] = Counter()
        """Of all runs: what became of the rows of the file."""

    def run(self, others: Others) -> Totals:
        """Raises ``OSError``."""
        return uvloop.run(self._work(others))

    async def _work(self, others: Others) -> Totals:
        tls, timeout_ms = make_trust(self._options)
        timer = Timer(tls, connect_ms=timeout_ms, total_ms=timeout_ms)
        bodies: Bodies = self._options["bodies"]
        batch = Batch(
            self._endpoint, self._journal, timer, now_ms, rate=self._settings["rate"] or 0,
            parallel=self._settings["parallel"] or 4, tries=self._settings["tries"] or 3, test=self._test,
            success=bodies.success, failure=bodies.failure,
        )  # fmt: skip
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, batch.stopping.set)
        try:
            with showing(count_lines(self._path), f"Sending {self._path.name}") as step:

                def done(row: Row, became: Became | None) -> None:
                    self._take(batch, row, became)
                    step(1)

                return await batch.run(read_rows(self._path, others, needs_click_id=not self._test), done)
        finally:
            timer.close()

    def _take(self, batch: Batch, row: Row, became: Became | None) -> None:
        """A row that is done with; ``None``: by an earlier run."""
        self._seen.add(row.key)
        noted: Noted | Became = self._journal.rows[row.key] if became is None else became
        self.words[noted.word] += 1
        if not noted.good:
            sent = "" if row.error else batch.postback_of(row).transaction_id
            _writing(self._failed, lambda: self._failed.add(row, noted.reason, sent))

    def close(self) -> None:
        """Let another run have the journal."""
        self._journal.close()

    def lost(self) -> int:
        """Rows that may have been sent, and no longer stand in the file."""
        rows = self._journal.rows
        return sum(1 for key, noted in rows.items() if noted is UNKNOWN and key not in self._seen)


def _print(totals: Totals, words: Counter[str], failed: FailedRows, lost: int, *, as_json: bool) -> None:
    spread = spread_of(totals.times_ms)
    if as_json:
        print_json(_document(totals, words, failed, lost, spread))
        return
    rate = f" ({totals.sent / totals.took_s:.0f}/s)" if totals.took_s and totals.sent > 1 else ""
    before = f", {totals.settled_before} were settled before" if totals.settled_before else ""
    click.echo(f"{totals.sent} requests in {totals.took_s:.1f} s{rate}{before}")
    click.echo(f"rows: {', '.join(f'{count} {word}' for word, count in words.most_common()) or 'none'}")
    if spread.tries:
        shown = ", ".join(
            f"p{percent} {write_ms(value, spread.tries, percent)}{' ms' if value is not None else ''}"
            for percent, value in ((50, spread.p50), (95, spread.p95), (99, spread.p99))
        )
        click.echo(f"an answer took: {shown} ({spread.tries} tries)")
    if failed.count and totals.stopped != "interrupted":
        click.echo(f"{failed.count} rows need a look, each with its reason: {failed.path}")
    if lost and not totals.stopped:
        click.echo(f"{lost} rows that may have been sent by an earlier run stand in the file no more")
    if totals.stopped:
        click.echo(f"stopped: {totals.stopped}. The same command goes on where this one stopped.")


def _document(
    totals: Totals, words: Mapping[str, int], failed: FailedRows, lost: int, spread: Spread
) -> dict[str, Any]:
    return {
        "requests": totals.sent,
        "seconds": round(totals.took_s, 3),
        "settled_before": totals.settled_before,
        "rows": dict(words),
        "failed": failed.count,
        "failed_file": str(failed.path) if failed.count and totals.stopped != "interrupted" else None,
        "gone_from_the_file": lost,
        "stopped": totals.stopped or None,
        "answers": {
            "tries": spread.tries,
            "p50_ms": spread.p50,
            "p95_ms": spread.p95,
            "p99_ms": spread.p99,
            "most_ms": spread.most,
        },
    }
