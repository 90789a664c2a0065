"""Reconciliations: a partner's export is uploaded, its buckets are looked at, and missing rows are imported.

What an upload came to is a file in the data directory, kept for a day (see ``reports.reconcile_shelf``).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from starlette.responses import Response, StreamingResponse

from postbackd.admin.api.health import read_period
from postbackd.admin.desk import Desk
from postbackd.admin.endpoints import Asked, Endpoint, Scope
from postbackd.admin.pages import MAX_ITEMS, Page, read_cursor, write_cursor
from postbackd.admin.problems import Problem, not_found
from postbackd.catalog.documents import find_entry
from postbackd.core.csv_text import MEDIA_TYPE
from postbackd.core.export_values import read_zone
from postbackd.core.exports import FIELDS, ExportError, Given
from postbackd.core.moments import write_moment
from postbackd.core.reconciling import Bucket
from postbackd.core.rulebook import Rulebook
from postbackd.reports import reconcile as reconciling
from postbackd.reports.importing import Imported, Wish, take_in
from postbackd.reports.reconcile_entries import describe_entry, write_bucket
from postbackd.reports.reconcile_shelf import Kept, NotKept, Shelf
from postbackd.store.reconcile_file import ReconcileFile
from postbackd.upkeep.import_turns import ImportTurns

MAX_BYTES = 512 << 20
"""Of an upload: five million rows are some 400 MB."""

Header = Annotated[str | None, Meta(description="Header of the column, or #3; empty: there is none.")]


class ReconcileQuery(Struct, frozen=True, forbid_unknown_fields=True):
    network: Annotated[str, Meta(description="The network whose export it is.")]
    name: Annotated[str, Meta(description="The name of the file, to show.", max_length=255)] = "export.csv"
    transaction_id: Header = None
    click_id: Header = None
    type: Header = None
    value: Header = None
    currency: Header = None
    status: Header = None
    time: Header = None
    types: Annotated[
        str,
        Meta(
            description="Their word for a type and ours: Sale=sale,Lead=lead; or one word for all.",
            max_length=2000,
        ),
    ] = ""
    delimiter: Annotated[str, Meta(max_length=1, description="What stands between two cells.")] = ""
    encoding: Literal["", "utf-8", "utf-16-le", "utf-16-be", "cp1252"] = ""
    decimal: Literal["", ".", ","] = ""
    dates: Literal["", "ymd", "dmy", "mdy", "epoch"] = ""
    time_zone: Annotated[str | None, Meta(description="Of its clock: UTC, +02:00, -5; found by itself.")] = (
        None
    )
    since: str | None = None
    until: str | None = None


class BucketFigures(Struct, frozen=True):
    """One bucket; money by currency is what is pending or approved, as decimal text."""

    bucket: str
    sentence: str
    rows: int
    conversions: int
    theirs: dict[str, str]
    ours: dict[str, str]


class UnusableRows(Struct, frozen=True):
    """Rows that could not be used for one reason, and on which lines the first of them are."""

    reason: str
    sentence: str
    rows: int
    lines: list[int]


class ExportForm(Struct, frozen=True):
    """How the file was read: guessed, or as it was said."""

    encoding: str
    delimiter: str
    columns: dict[str, str | None]
    time_of_day_column: str | None
    click_id_by_content: bool
    other_candidates: dict[str, list[str]]
    unused_columns: list[str]
    decimal: str | None
    currency: str | None
    dates: str | None
    time_zone: str | None


class ExportClock(Struct, frozen=True):
    """By how much the clock of the file is ahead of UTC."""

    sentence: str
    shift_minutes: int | None
    later_shift_minutes: int | None
    later_from: str | None
    later_from_ms: int | None
    share: float | None
    rows: int


class ExportPeriod(Struct, frozen=True):
    since: str | None
    until: str | None


class Reconciliation(Struct, frozen=True, kw_only=True):
    """What an export and our conversions came to.  The rows of all buckets are the rows of the file."""

    id: str
    network: str
    file: str
    rows: int
    conversions: int
    theirs: dict[str, str]
    ours: dict[str, str]
    period: ExportPeriod
    format: ExportForm
    clock: ExportClock
    buckets: list[BucketFigures]
    unusable: list[UnusableRows]
    types: list[str]
    notes: list[str]


class KeptReconciliation(Struct, frozen=True, kw_only=True):
    id: str
    made: str
    bytes: int
    network: str
    file: str
    rows: int


class Entry(Struct, frozen=True):
    """What the file says (``line`` to ``time``), and what we say; times are UTC."""

    line: int | None
    transaction_id: str | None
    click_id: str | None
    type: str | None
    value: str | None
    currency: str | None
    status: str | None
    time: str | None
    our_conversion: str | None
    our_transaction_id: str | None
    our_click_id: str | None
    our_type: str | None
    our_value: str | None
    our_currency: str | None
    our_status: str | None
    our_time: str | None
    note: str | None


class EntryQuery(Struct, frozen=True, forbid_unknown_fields=True):
    cursor: str | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_ITEMS)] = 100


class ImportWish(Struct, frozen=True, forbid_unknown_fields=True):
    dry_run: bool = False
    """Only say what would be counted."""
    deliver: bool = False
    """Tell traffic sources, as of a postback."""
    doubtful: bool = False
    """Also rows whose click is counted under a transaction id that is not in the file."""


async def upload(asked: Asked[ReconcileQuery, None]) -> Reconciliation:
    """The body is the file, as it came from the partner."""
    query, desk = asked.query, asked.desk
    rulebook = await desk.rulebook()
    network = find_entry(rulebook.catalog.networks, query.network, "network")
    period = read_period(query.since, query.until, desk.now_ms())
    about = reconciling.Asked(
        network=network,
        file_name=Path(query.name).name or "export.csv",
        given=_read_given(query),
        since_ms=period.since_ms,
        until_ms=period.until_ms,
    )
    shelf, id_ = Shelf(desk.data), secrets.token_hex(8)
    kept = False
    try:
        source, target = shelf.prepare(id_)
        await _receive(asked, source)
        async with desk.reconciling:
            document = await _compare(desk, rulebook, about, source, target)
        kept = True
    except ExportError as error:
        raise Problem(422, str(error)) from error
    except OSError as error:
        raise Problem(
            503, f"cannot write to {desk.data}: {error.strerror}; free some space, then try again"
        ) from error
    finally:
        shelf.drop_export(id_)
        if not kept:
            shelf.drop(id_)
    return _answer(id_, document)


async def _receive(asked: Asked[ReconcileQuery, None], source: Path) -> None:
    size = 0
    with source.open("wb") as file:
        async for chunk in asked.request.stream():
            size += len(chunk)
            if size > MAX_BYTES:
                raise Problem(413, f"the file is over {MAX_BYTES} bytes; split it by date")
            file.write(chunk)


async def _compare(
    desk: Desk, rulebook: Rulebook, about: reconciling.Asked, source: Path, target: Path
) -> dict[str, Any]:
    file = ReconcileFile(target, create=True)
    try:
        return await reconciling.reconcile(desk.store, rulebook, about, source, file, desk.now_ms())
    finally:
        file.close()


def _read_given(query: ReconcileQuery) -> Given:
    columns = {field: header for field in FIELDS if (header := getattr(query, field)) is not None}
    types = {}
    for text in filter(None, (part.strip() for part in query.types.split(","))):
        theirs, _, ours = text.rpartition("=")
        types[theirs.strip()] = ours.strip()
    shift_min = None if query.time_zone is None else read_zone(query.time_zone)
    if query.time_zone is not None and shift_min is None:
        raise Problem(400, "time_zone is not usable; write UTC, +02:00 or -5", field="time_zone")
    if query.delimiter and query.delimiter in '"\r\n':
        raise Problem(400, "no delimiter can be a quotation mark or a line break", field="delimiter")
    return Given(
        columns=columns,
        delimiter=query.delimiter,
        encoding=query.encoding,
        decimal=query.decimal,
        dates=query.dates,
        shift_min=shift_min,
        types=types,
    )


def _answer(id_: str, document: dict[str, Any]) -> Reconciliation:
    return msgspec.convert({"id": id_, **document}, Reconciliation)


@contextmanager
def _open(asked: Asked[Any, Any]) -> Iterator[ReconcileFile]:
    try:
        with Shelf(asked.desk.data).open(asked.path["id"]) as file:
            yield file
    except NotKept as error:
        raise Problem(404, str(error)) from error


def _bucket(asked: Asked[Any, Any]) -> Bucket:
    word = asked.path["bucket"]
    for bucket in Bucket:
        if bucket.word == word:
            return bucket
    raise not_found("bucket", word, f"there are {', '.join(bucket.word for bucket in Bucket)}")


async def list_kept(asked: Asked[None, None]) -> Page[KeptReconciliation]:
    """Those of the last day, the newest first."""
    shelf = Shelf(asked.desk.data)
    found = [_describe_kept(shelf, kept) for kept in shelf.list()]
    return Page([one for one in found if one is not None])


def _describe_kept(shelf: Shelf, kept: Kept) -> KeptReconciliation | None:
    """Nothing while it is still being written."""
    try:
        with shelf.open(kept.id) as file:
            document = file.summary()
    except NotKept:
        return None
    return KeptReconciliation(
        id=kept.id,
        made=write_moment(int(kept.at_s * 1000)),
        bytes=kept.size,
        network=document["network"],
        file=document["file"],
        rows=document["rows"],
    )


async def show(asked: Asked[None, None]) -> Reconciliation:
    """As the upload answered."""
    with _open(asked) as file:
        return _answer(asked.path["id"], file.summary())


async def show_bucket(asked: Asked[EntryQuery, None]) -> Page[Entry]:
    """Rows in the order of the file, then conversions that only we have."""
    bucket, query = _bucket(asked), asked.query
    after = 0 if query.cursor is None else read_cursor(query.cursor, tuple[int])[0]
    keys = (await asked.desk.rulebook()).keys
    with _open(asked) as file:
        entries = file.page(bucket, after, query.limit + 1)
    more = len(entries) > query.limit
    shown = entries[: query.limit]
    items = [msgspec.convert(describe_entry(entry, keys), Entry) for entry in shown]
    return Page(items, write_cursor(shown[-1]["place"]) if more else None)


async def download(asked: Asked[None, None]) -> Response:
    """A line an entry; no cell is a formula."""
    bucket = _bucket(asked)
    keys = (await asked.desk.rulebook()).keys
    with _open(asked):
        pass  # that it is there is known before the answer begins

    async def pages() -> AsyncIterator[str]:
        with _open(asked) as file:
            for text in write_bucket(file, bucket, keys):
                yield text
                await asyncio.sleep(0)

    name = f"{bucket.word}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingResponse(pages(), media_type=MEDIA_TYPE, headers=headers)


async def import_missing(asked: Asked[None, ImportWish]) -> Imported:
    """Through the same checks and the same unique key as postbacks: again, it counts nothing twice."""
    desk, wish = asked.desk, asked.body
    rulebook = await desk.rulebook()
    with _open(asked) as file:
        about = Wish(
            network=find_entry(rulebook.catalog.networks, file.summary()["network"], "network"),
            deliver=wish.deliver,
            doubtful=wish.doubtful,
            only_try=wish.dry_run,
        )
        turns = ImportTurns(desk.store, desk.data, int(desk.setting("node", 0)))
        return await take_in(desk.store, rulebook, file, about, turns.take, desk.now_ms)


async def drop(asked: Asked[None, None]) -> None:
    """What was imported from it stays."""
    with _open(asked):
        pass
    Shelf(asked.desk.data).drop(asked.path["id"])


_TOPIC = "Reconciliation"
_ONE = "/reconcile/{id}"

ENDPOINTS = (
    Endpoint("GET", "/reconcile", Scope.READ, _TOPIC, "List the reconciliations of the last day.", list_kept,
             answer=Page[KeptReconciliation]),
    Endpoint("POST", "/reconcile", Scope.OPERATE, _TOPIC, "Compare a partner's export with what is counted here.",
             upload, query=ReconcileQuery, body=bytes, answer=Reconciliation, status=201, takes="text/csv",
             streams=True, max_body_bytes=MAX_BYTES, problems=(404, 413, 415, 422)),
    Endpoint("GET", _ONE, Scope.READ, _TOPIC, "Show a reconciliation.", show, answer=Reconciliation, problems=(404,)),
    Endpoint("DELETE", _ONE, Scope.OPERATE, _TOPIC, "Throw a reconciliation away.", drop, problems=(404,)),
    Endpoint("POST", f"{_ONE}/import", Scope.OPERATE, _TOPIC, "Import what is missing here, or say what that does.",
             import_missing, body=ImportWish, answer=Imported, problems=(404, 409, 413, 415)),
    Endpoint("GET", f"{_ONE}/{{bucket}}.csv", Scope.READ, _TOPIC, "Download a bucket as CSV.", download,
             gives="text/csv", problems=(404,)),
    Endpoint("GET", f"{_ONE}/{{bucket}}", Scope.READ, _TOPIC, "Show the entries of a bucket, in pages.", show_bucket,
             query=EntryQuery, answer=Page[Entry], problems=(404,)),
)  # fmt: skip
