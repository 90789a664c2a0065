"""``postbackd reconcile``: a partner's export against what is counted here, and the missing rows taken in."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from postbackd.catalog.documents import find_entry
from postbackd.cli.catalog import read_pairs
from postbackd.cli.options import as_json, as_moment, now_ms, takes_settings
from postbackd.cli.session import Session, print_json, visit
from postbackd.core.export_values import ORDERS, read_zone
from postbackd.core.exports import DELIMITERS, ENCODINGS, FIELDS, ExportError, Given
from postbackd.core.reconciling import Bucket
from postbackd.core.rulebook import Rulebook
from postbackd.reports.importing import Imported, Wish, take_in
from postbackd.reports.reconcile import Asked, reconcile
from postbackd.reports.reconcile_entries import write_bucket
from postbackd.reports.reconcile_shelf import Shelf
from postbackd.reports.table import format_table
from postbackd.settings import Settings
from postbackd.store.reconcile_file import ReconcileFile
from postbackd.upkeep.import_turns import ImportTurns

_DELIMITER_WORDS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}


@click.command("reconcile")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--network", required=True, metavar="N", help="The network whose export it is.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="FIELD=HEADER",
    help="Which column a field is in, by its header or as #3; nothing after = means none. "
    f"Fields: {', '.join(FIELDS)}.",
)
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="[THEIRS=]OURS",
    help="What their word for a type is here; without theirs, every row is of this type.",
)
@click.option(
    "--delimiter", metavar="CHARACTER", help="What stands between two cells, if it is guessed wrong."
)
@click.option(
    "--encoding", type=click.Choice(ENCODINGS), help="How the text is encoded, if it is guessed wrong."
)
@click.option("--decimal", type=click.Choice([".", ","]), help="The decimal sign of its amounts.")
@click.option("--dates", type=click.Choice(ORDERS), help="The order of year, month and day in its times.")
@click.option(
    "--time-zone",
    metavar="ZONE",
    help="Of its clock: UTC, +02:00, -5. It is found by itself from matched rows.",
)
@click.option("--since", "since_ms", callback=as_moment, metavar="TIME", help="Compare only from then on.")
@click.option(
    "--until", "until_ms", callback=as_moment, metavar="TIME", help="Compare only until then, not included."
)
@click.option(
    "--bucket", type=click.Choice([bucket.word for bucket in Bucket]), help="Write this bucket as CSV."
)
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Where --bucket writes.")
@click.option(
    "--import",
    "import_wanted",
    is_flag=True,
    help="Take in the rows that are missing here; shows what it would do.",
)
@click.option("--yes", is_flag=True, help="With --import: do it.")
@click.option("--deliver", is_flag=True, help="With --import: tell traffic sources of it, as of a postback.")
@click.option(
    "--doubtful",
    is_flag=True,
    help="With --import: also rows whose click is counted under a transaction id that is not in the file.",
)
@as_json
@takes_settings("data", "store", "node")
def reconcile_command(
    file: Path, network: str, settings: Settings, json_wanted: bool, **options: Any
) -> None:
    """Compare a partner's export, a CSV file, with what is counted here.

    Column names, delimiter, encoding, decimal sign, dates and time zone are found in the file, and shown.
    Nothing is changed without --import --yes; importing twice counts once.
    """
    given = _read_given(options)
    _check(options)

    async def work(session: Session) -> tuple[dict[str, Any], Imported | None]:
        with _scratch(Path(settings.data)) as scratch, _Bars() as bars:
            rulebook = Rulebook(await session.load())
            found = find_entry(rulebook.catalog.networks, network, "network")
            asked = Asked(
                network=found,
                file_name=file.name,
                given=given,
                since_ms=options["since_ms"],
                until_ms=options["until_ms"],
            )
            document = await reconcile(session.store, rulebook, asked, file, scratch, now_ms(), bars.show)
            bars.close()
            if options["bucket"]:
                _write(scratch, Bucket[options["bucket"].upper()], rulebook, options["output"])
            imported = None
            if options["import_wanted"]:
                wish = Wish(
                    network=found,
                    deliver=options["deliver"],
                    doubtful=options["doubtful"],
                    only_try=not options["yes"],
                )
                turns = ImportTurns(session.store, Path(settings.data), settings.node)
                imported = await take_in(
                    session.store, rulebook, scratch, wish, turns.take, now_ms, bars.show
                )
            return document, imported

    try:
        document, imported = visit(settings, work)
    except ExportError as error:
        raise click.ClickException(f"{file.name}: {error}") from error
    if json_wanted:
        print_json({**document, "import": None if imported is None else msgspec.to_builtins(imported)})
        return
    # What was written to standard output is a file of its own.
    aside = bool(options["bucket"]) and options["output"] is None
    click.echo(format_summary(document), err=aside)
    if imported is not None:
        click.echo(format_import(imported), err=aside)


def _read_given(options: Mapping[str, Any]) -> Given:
    columns = {}
    for field, header in read_pairs(options["columns"], "--column", "FIELD=HEADER").items():
        if field not in FIELDS:
            raise click.UsageError(f"--column {field!r} is no field; the fields are {', '.join(FIELDS)}")
        columns[field] = header
    types = {}
    for text in options["types"]:
        theirs, equals, ours = text.rpartition("=")
        if not ours.strip() or (equals and not theirs.strip()):
            raise click.UsageError(f"--type {text!r} is not usable; write it as THEIRS=OURS or OURS")
        types[theirs] = ours
    zone = options["time_zone"]
    shift_min = None if zone is None else read_zone(zone)
    if zone is not None and shift_min is None:
        raise click.UsageError(f"--time-zone {zone!r} is not usable; write UTC, +02:00 or -5")
    return Given(
        columns=columns,
        delimiter=_read_delimiter(options["delimiter"] or ""),
        encoding=options["encoding"] or "",
        decimal=options["decimal"] or "",
        dates=options["dates"] or "",
        shift_min=shift_min,
        types=types,
    )


def _read_delimiter(text: str) -> str:
    text = _DELIMITER_WORDS.get(text.lower(), text)
    if text and (len(text) != 1 or text in '"\r\n' or (text not in DELIMITERS and text.isalnum())):
        raise click.UsageError(f"--delimiter {text!r} is not usable; write one character, or tab")
    return text


def _check(options: Mapping[str, Any]) -> None:
    if options["output"] is not None and not options["bucket"]:
        raise click.UsageError("--output goes with --bucket; say which one to write")
    for name in ("yes", "deliver", "doubtful"):
        if options[name] and not options["import_wanted"]:
            raise click.UsageError(f"--{name} goes with --import")
    since, until = options["since_ms"], options["until_ms"]
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since must be earlier than --until")


@contextmanager
def _scratch(data: Path) -> Iterator[ReconcileFile]:
    """A file for as long as the command runs."""
    shelf, id_ = Shelf(data), secrets.token_hex(8)
    _, path = shelf.prepare(id_)
    try:
        file = ReconcileFile(path, create=True)
        try:
            yield file
        finally:
            file.close()
    finally:
        shelf.drop(id_)


class _Bars:
    """A progress bar a step, where somebody is looking."""

    def __init__(self) -> None:
        self._hidden = not sys.stderr.isatty()
        self._stage = ""
        self._bar: Any = None
        self._done = 0

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def show(self, stage: str, done: int, total: int) -> None:
        """See ``reports.reconcile.Progress``."""
        if self._hidden:
            return
        if stage != self._stage:
            self.close()
            self._stage, self._done = stage, 0
            if total:
                self._bar = click.progressbar(length=total, label=stage, file=sys.stderr)
                self._bar.__enter__()
            else:
                click.echo(f"{stage} ...", err=True)
        if self._bar is not None:
            self._bar.update(done - self._done)
            self._done = done

    def close(self) -> None:
        """End the bar of the last step."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
        self._stage = ""


def _write(file: ReconcileFile, bucket: Bucket, rulebook: Rulebook, output: Path | None) -> None:
    pages = write_bucket(file, bucket, rulebook.keys)
    if output is None:
        for page in pages:
            click.echo(page, nl=False)
        return
    try:
        with output.open("w", encoding="utf-8", newline="") as writer:
            writer.writelines(pages)
    except OSError as error:
        raise click.ClickException(
            f"cannot write {output}: {error.strerror}; choose another --output"
        ) from error
    click.echo(f"{bucket.word} written to {output}", err=True)


# --- for people ------------------------------------------------------------------------------------------------------


def format_summary(document: Mapping[str, Any]) -> str:
    """The summary as text."""
    form, period = document["format"], document["period"]
    columns = ", ".join(
        f"{field} = {header!r}" for field, header in form["columns"].items() if header is not None
    )
    delimiter = {"\t": "tab"}.get(form["delimiter"], form["delimiter"])
    head = f"{document['file']} against network {document['network']}: {document['rows']} rows"
    read = (
        f"{form['encoding']}, delimiter {delimiter}, decimal sign {form['decimal'] or 'not known'}, "
        f"dates {form['dates'] or 'none'}"
    )
    parts = [
        f"{head}, {period['since'] or '?'} to {period['until'] or '?'}",
        f"columns   {columns}\nread as   {read}\nclock     {document['clock']['sentence']}",
        format_table(
            ("bucket", "rows", "conversions", "theirs", "ours"),
            [
                (
                    bucket["bucket"],
                    str(bucket["rows"]),
                    str(bucket["conversions"]),
                    _money(bucket["theirs"]),
                    _money(bucket["ours"]),
                )
                for bucket in (*document["buckets"], {**document, "bucket": "all"})
            ],
        ),
    ]
    parts += [_format_problems(document["unusable"])] if document["unusable"] else []
    parts += ["\n".join(f"note: {note}" for note in document["notes"])] if document["notes"] else []
    return "\n\n".join(parts)


def _format_problems(problems: Sequence[Mapping[str, Any]]) -> str:
    lines = ["could not be used:"]
    for problem in problems:
        shown = ", ".join(map(str, problem["lines"])) + (
            " ..." if problem["rows"] > len(problem["lines"]) else ""
        )
        lines.append(f"  {problem['rows']} x {problem['reason']}: {problem['sentence']} Lines {shown}")
    return "\n".join(lines)


def _money(amounts: Mapping[str, str]) -> str:
    return ", ".join(f"{amount} {code}" for code, amount in amounts.items()) or "-"


def format_import(imported: Imported) -> str:
    """What an import did or would do, as text."""
    verb = "would be counted" if imported.tried else "counted"
    lines = [
        f"import: {imported.counted} of {imported.rows} missing rows {verb}, worth {_money(imported.value)}"
    ]
    lines += [f"  not counted: {count} {what}" for what, count in imported.refused.items()]
    lines += [f"  left out: {count} {_LEFT_OUT[why]}" for why, count in imported.left_out.items()]
    if not imported.transaction_ids:
        lines.append("  without transaction ids, as this network's postbacks carry none")
    lines.append(
        "  traffic sources are told" if imported.deliver else "  traffic sources are not told (--deliver)"
    )
    if imported.tried:
        lines.append("nothing was changed; run it again with --yes")
    return "\n".join(lines)


_LEFT_OUT = {
    "no_click": "without a click id, so there is nothing to attribute them to",
    "other_transaction": "whose click is counted under another transaction id: is it the right column? (--doubtful)",
    "type_unknown": "whose type is not known here: say it with --type",
}
