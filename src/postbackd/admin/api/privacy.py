"""Privacy: what is kept of people, what is held about one click, personal data that senders send, and erasures."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from postbackd.admin.api import jobs
from postbackd.admin.api.health import Moment, read_period
from postbackd.admin.api.jobs import starts
from postbackd.admin.desk import Desk
from postbackd.admin.endpoints import Answered, Asked, Endpoint, Scope
from postbackd.admin.problems import Problem
from postbackd.core.click_id import write_stamp
from postbackd.core.retention import Class, Keep
from postbackd.operations import erasures
from postbackd.operations.privacy import describe, export_click, hash_identity

Id = Annotated[str, Meta(min_length=1, max_length=200)]


class KeptColumn(Struct, frozen=True, kw_only=True):
    """One column of what is kept."""

    table: str
    column: str
    purpose: str
    form: str
    days: int | None
    """Nothing: for ever."""
    after_erasure: str


class Kept(Struct, frozen=True, kw_only=True):
    """All that is kept of people and requests."""

    kept: list[KeptColumn]
    without_people: dict[str, str]
    """Tables that hold nothing of a person or a request."""
    never: dict[str, str]
    policy: str
    """A paragraph for a privacy policy."""


class ExportQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which click."""

    click_id: Annotated[
        str, Meta(min_length=1, max_length=200, description="An id of ours, or a caller's own.")
    ]


class Identity(Struct, frozen=True, forbid_unknown_fields=True):
    """A value such as an e-mail address; it is neither stored nor logged."""

    value: Annotated[str, Meta(min_length=1, max_length=1000)]


class HashedIdentity(Struct, frozen=True):
    """What to erase by."""

    identity: str


class FindsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Of which time."""

    since: Moment = "24h"
    until: Moment | None = None


class PersonalDataFind(Struct, frozen=True, kw_only=True):
    """Personal data that somebody sent; it was not stored."""

    network: str | None
    """Nothing: in clicks."""
    field: str
    kind: str
    count: int


class ErasePreview(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose data: one of the three ids."""

    click_id: Id | None = None
    transaction_id: Id | None = None
    network: Annotated[str, Meta(min_length=1, max_length=100, description="With transaction_id.")] | None = (
        None
    )
    identity: Id | None = None


class Erase(ErasePreview, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose data: one of the three ids."""

    rewrite: Annotated[
        bool, Meta(description="PostgreSQL: write the tables anew, because free space keeps old bytes.")
    ] = False
    confirm: Annotated[str, Meta(max_length=200, description="The 'reference' that /erase/preview answers.")]


class Erasable(Struct, frozen=True, kw_only=True):
    """What would be erased."""

    asked: str
    reference: str
    """Give it as 'confirm' to erase it."""
    clicks: list[str]
    log_rows: int
    """Rows of the log that name no click that is known."""


class Certificate(Struct, frozen=True, kw_only=True):
    """That something was erased."""

    id: int
    at: str
    asked: str
    reference: str
    erased: dict[str, int]
    completed: str | None
    """Nothing: run it again."""


def _keep(desk: Desk) -> Keep:
    days = {one.name: one.value for one in desk.settings}
    return Keep({class_: days[f"keep_{class_}_days"] for class_ in Class})


async def show_kept(asked: Asked[None, None]) -> Kept:
    """Field, purpose, form, how long, and what an erasure leaves."""
    return msgspec.convert(describe(_keep(asked.desk)), Kept)


async def export(asked: Asked[ExportQuery, None]) -> dict[str, Any]:
    """With the purpose of each field."""
    return dict(await export_click(asked.desk.store, asked.query.click_id))


async def hash_value(asked: Asked[None, Identity]) -> HashedIdentity:
    """The value is neither stored nor logged."""
    text = asked.body.value.strip()
    if not text:
        raise Problem(422, "the value is empty", field="value")
    return HashedIdentity(await hash_identity(asked.desk.store, text))


async def list_finds(asked: Asked[FindsQuery, None]) -> list[PersonalDataFind]:
    """By network, field and kind; the values were not stored."""
    period = read_period(asked.query.since, asked.query.until, asked.desk.now_ms())
    catalog = await asked.desk.store.load_catalog(removed=True)
    names = {network.id: network.name for network in catalog.networks}
    rows = await asked.desk.store.query("finds", **period.minutes())
    return [
        PersonalDataFind(
            network=names.get(row["network"]), field=row["field"], kind=row["kind"], count=row["count"]
        )
        for row in rows
    ]


async def check(asked: Asked[None, None]) -> Answered:
    """Names table, column and id of what it finds, never the value."""
    return jobs.start(asked.desk, "privacy check", ["privacy", "check", "--json"])


def _which(body: ErasePreview) -> tuple[Literal["click_id", "transaction_id", "identity"], str]:
    if body.network is not None and body.transaction_id is None:
        raise Problem(422, "it goes with transaction_id", field="network")
    kinds: tuple[Literal["click_id", "transaction_id", "identity"], ...]
    kinds = ("click_id", "transaction_id", "identity")
    given = [(kind, text) for kind in kinds if (text := getattr(body, kind)) is not None]
    if len(given) == 1:
        (kind, text) = given[0]
        return kind, text.strip()
    raise Problem(422, "name one of click_id, transaction_id and identity", field="click_id")


async def preview(asked: Asked[None, ErasePreview]) -> Erasable:
    """Nothing is changed."""
    kind, value = _which(asked.body)
    found = await erasures.look(asked.desk.store, kind, value, asked.body.network)
    return Erasable(
        asked=kind,
        reference=found.reference,
        clicks=[write_stamp(stamp) for stamp in found.clicks],
        log_rows=len(found.requests),
    )


async def erase(asked: Asked[None, Erase]) -> Answered:
    """Names, ids and texts; totals and deduplication stay. The result is the certificate."""
    body = asked.body
    kind, value = _which(body)
    found = await erasures.look(asked.desk.store, kind, value, body.network)
    if body.confirm != found.reference:
        raise Problem(
            409,
            "it is not confirmed: look at /erase/preview, and give its 'reference' as confirm",
            field="confirm",
        )
    arguments = ["erase", f"--{kind.replace('_', '-')}=-", "--yes", "--json"]
    if body.network is not None:
        arguments.append(f"--network={body.network}")
    if body.rewrite:
        arguments.append("--rewrite")
    return jobs.start(asked.desk, "erase", arguments, f"{value}\n")


async def list_certificates(asked: Asked[None, None]) -> list[Certificate]:
    """The latest first."""
    rows = await asked.desk.store.query("erasures")
    return [msgspec.convert(erasures.describe_certificate(row), Certificate) for row in rows]


ENDPOINTS = (
    Endpoint("GET", "/privacy", Scope.READ, "Privacy", "List what is kept of people.", show_kept, answer=Kept),
    Endpoint(
        "GET", "/privacy/export", Scope.OPERATE, "Privacy", "Show everything that is held about one click.", export,
        query=ExportQuery, answer=dict[str, Any], problems=(404,),
    ),
    Endpoint(
        "POST", "/privacy/hash", Scope.OPERATE, "Privacy", "Hash a value as it is kept.", hash_value, body=Identity,
        answer=HashedIdentity, problems=(404, 422), example={"value": "somebody@example.com"},
    ),
    starts(
        "/privacy/check", "Privacy", "Look through everything for personal data that should not be there.", check
    ),
    Endpoint(
        "GET", "/personal-data", Scope.READ, "Privacy", "List personal data that senders sent.", list_finds,
        query=FindsQuery, answer=list[PersonalDataFind],
    ),
    Endpoint(
        "POST", "/erase/preview", Scope.OPERATE, "Privacy", "Say what an erasure would erase.", preview,
        body=ErasePreview, answer=Erasable, problems=(404, 422), example={"transaction_id": "T-1001"},
    ),
    starts(
        "/erase", "Privacy", "Erase what is kept of a person, and certify it.", erase, body=Erase,
        problems=(404, 422), example={"transaction_id": "T-1001", "confirm": "REFERENCE"},
    ),
    Endpoint(
        "GET", "/erasures", Scope.READ, "Privacy", "List the certificates of erasures.", list_certificates,
        answer=list[Certificate],
    ),
)  # fmt: skip
