"""Looking after it: findings, settings, keys, backups, verification, purges."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from postbackd.admin.api import jobs
from postbackd.admin.api.health import Moment, read_period
from postbackd.admin.api.jobs import starts
from postbackd.admin.desk import Desk, SettingValue
from postbackd.admin.endpoints import Answered, Asked, Endpoint, Scope
from postbackd.admin.problems import Problem, not_found
from postbackd.backup.files import list_backups, read_failure
from postbackd.core.moments import write_moment
from postbackd.operations import keys

_WAIT_S = 30.0
"""So long a request waits for the doctor."""


class Found(Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    check: str
    ok: bool
    detail: str
    fix: str | None
    """What to do about it."""


class Findings(Struct, frozen=True, kw_only=True):
    """What a look at the whole installation has found."""

    at: str
    ok: bool
    findings: list[Found]


class DoctorQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """How old the findings may be."""

    max_age: Annotated[int, Meta(ge=0, le=86_400, description="Seconds; older ones are looked for anew.")] = (
        60
    )


class ShownKey(Struct, frozen=True, kw_only=True):
    """A key that signs click ids, without its secret."""

    id: int
    signs_from: str | None
    """Nothing: from the beginning."""
    state: str
    """``signs``, ``signs next``, ``verifies`` or ``retired``."""


class KeyRotation(Struct, frozen=True, forbid_unknown_fields=True):
    """How many keys go on."""

    keep: Annotated[
        int,
        Meta(ge=2, le=1000, description="So many of the newest go on verifying; older ids are refused then."),
    ] = 3


class ShownBackup(Struct, frozen=True, kw_only=True):
    """A backup."""

    name: str
    bytes: int
    made: str


class Backups(Struct, frozen=True, kw_only=True):
    """The backups, oldest first."""

    directory: str | None
    items: list[ShownBackup]
    failed: str | None
    """Why the newest scheduled one could not be made."""


class Verification(Struct, frozen=True, forbid_unknown_fields=True):
    """How to verify."""

    seal: Annotated[bool, Meta(description="Give a checksum to rows from before there were any.")] = False
    accept: Annotated[
        str | None,
        Meta(description="Take what the damaged rows of this conversion say for what they are to say."),
    ] = None
    because: Annotated[str | None, Meta(description="Why they are accepted, for the audit log.")] = None


class RollupCheck(Struct, frozen=True, forbid_unknown_fields=True):
    """How to check the roll-ups."""

    since: Annotated[Moment | None, Meta(description="From then on; everything, when it is not given.")] = (
        None
    )
    mend: Annotated[bool, Meta(description="Add up again what differs.")] = False


class Purge(Struct, frozen=True, forbid_unknown_fields=True):
    """What to delete."""

    before: Annotated[
        Moment | None,
        Meta(description="Clicks and log rows that are older; without it every class by its setting."),
    ] = None
    dry_run: Annotated[bool, Meta(description="Only say what would go.")] = True
    most: (
        Annotated[int, Meta(ge=0, description="Do it whatever the brake says, if no more would go.")] | None
    ) = None


async def doctor(asked: Asked[DoctorQuery, None]) -> Findings:
    """Looks at everything, as 'postbackd doctor' does; may take long on a large database."""
    work, now = jobs.jobs_of(asked.desk), asked.desk.now_ms()
    newest = next((job for job in work.list() if job.kind == "doctor"), None)
    fresh_from = now - asked.query.max_age * 1000
    if newest is None or (newest.ended_ms is not None and newest.started_ms < fresh_from):
        newest = work.start("doctor", ["doctor", "--json"])
    newest = await work.wait(newest.id, _WAIT_S)
    if newest.state == "running":
        raise Problem(503, "the doctor is still looking; ask again", headers={"Retry-After": "10"})
    if newest.result is None:
        raise Problem(503, f"the doctor could not look: {newest.problem}", headers={"Retry-After": "10"})
    found = msgspec.convert(newest.result, list[Found])
    return Findings(at=write_moment(newest.started_ms), ok=all(one.ok for one in found), findings=found)


async def list_settings(asked: Asked[None, None]) -> list[SettingValue]:
    """As this process was started with them; of a secret nothing is shown."""
    return [*asked.desk.settings]


async def list_keys(asked: Asked[None, None]) -> list[ShownKey]:
    """Oldest first."""
    catalog = await asked.desk.store.load_catalog()
    return msgspec.convert(keys.describe_keys(catalog.signing_keys, asked.desk.now_ms()), list[ShownKey])


async def rotate_keys(asked: Asked[None, KeyRotation]) -> list[ShownKey]:
    """A new random key signs a few seconds from now on."""
    now = asked.desk.now_ms()
    stored = await keys.rotate_keys(asked.desk.store, now, asked.body.keep)
    return msgspec.convert(keys.describe_keys(stored, now), list[ShownKey])


def _backup_dir(desk: Desk) -> Path | None:
    text = desk.setting("backup_dir", None)
    return Path(text) if text else None


async def show_backups(asked: Asked[None, None]) -> Backups:
    """In the directory that the setting backup_dir names."""
    directory = _backup_dir(asked.desk)
    failure = read_failure(asked.desk.data)
    failed = None if failure is None else f"{write_moment(failure.at_ms)}: {failure.reason}"
    if directory is None:
        return Backups(directory=None, items=[], failed=failed)
    try:
        files = list_backups(directory)
    except FileNotFoundError:
        files = ()
    except OSError as error:
        raise Problem(503, f"cannot use {directory}: {error.strerror}; check its owner") from error
    items = [
        ShownBackup(name=one.path.name, bytes=one.bytes, made=write_moment(one.made_ms)) for one in files
    ]
    return Backups(directory=str(directory), items=items, failed=failed)


async def make_backup(asked: Asked[None, None]) -> Answered:
    """Verified before it gets its name; older ones than the newest backup_keep are removed."""
    if _backup_dir(asked.desk) is None:
        raise Problem(409, "no directory for backups is set; set backup_dir and start the server again")
    return jobs.start(asked.desk, "backup", ["backup", "--json"])


async def verify_backup(asked: Asked[None, None]) -> Answered:
    """Restores it beside the data, verifies that, and removes it again."""
    directory, name = _backup_dir(asked.desk), asked.path["name"]
    found = () if directory is None else [one for one in _list(directory) if one.path.name == name]
    if not found:
        raise not_found("backup", name, "see /backups")
    return jobs.start(asked.desk, "backup verify", ["backup", "verify", "--json", "--", str(found[0].path)])


def _list(directory: Path) -> Any:
    try:
        return list_backups(directory)
    except OSError:
        return ()


async def verify(asked: Asked[None, Verification]) -> Answered:
    """Finds every damaged conversion and change of one, and names it."""
    order = ["--seal"] if asked.body.seal else []
    if asked.body.accept is not None:
        order.append(f"--accept={asked.body.accept}")
    if asked.body.because is not None:
        order.append(f"--because={asked.body.because}")
    return jobs.start(asked.desk, "verify", ["verify", "--json", "--progress", *order])


async def check_rollups(asked: Asked[None, RollupCheck]) -> Answered:
    """Compares what reports are read from with the rows that it was added up from; the keeper does so every night."""
    since_ms = read_period(asked.body.since, None, asked.desk.now_ms()).since_ms
    arguments = ["report", "check", "--json", *(["--mend"] if asked.body.mend else [])]
    if since_ms is not None:
        arguments += ["--since", write_moment(since_ms)]
    return jobs.start(asked.desk, "report check", arguments)


async def purge(asked: Asked[None, Purge]) -> Answered:
    """A server does the same every hour; a brake holds it when far more than usual would go."""
    body, now = asked.body, asked.desk.now_ms()
    arguments = ["purge", "--json"]
    if body.before is not None:
        before_ms = read_period(body.before, None, now).since_ms or 0
        if before_ms > now:
            raise Problem(
                422, "it lies in the future; name a time that has passed, such as 90d", field="before"
            )
        if body.most is not None:
            raise Problem(422, "it goes without 'before'", field="most")
        arguments += ["--before", write_moment(before_ms)]
    if body.dry_run:
        arguments.append("--dry-run")
    elif body.most is not None:
        arguments += ["--yes-delete", str(body.most)]
    else:
        arguments.append("--yes")
    return jobs.start(asked.desk, "purge", arguments)


async def check_secrets(asked: Asked[None, None]) -> Answered:
    """None of them is shown."""
    return jobs.start(asked.desk, "secrets check", ["secrets", "check", "--json"])


ENDPOINTS = (
    Endpoint(
        "GET", "/doctor", Scope.READ, "Upkeep", "Check the installation and say what to do.", doctor,
        query=DoctorQuery, answer=Findings, problems=(409,),
    ),
    Endpoint(
        "GET", "/settings", Scope.READ, "Upkeep", "List the settings.", list_settings,
        answer=list[SettingValue], own_data_only=True,
    ),
    Endpoint(
        "GET", "/keys", Scope.READ, "Upkeep", "List the keys that sign click ids.", list_keys,
        answer=list[ShownKey],
    ),
    Endpoint(
        "POST", "/keys/rotate", Scope.OPERATE, "Upkeep", "Let a new key sign click ids.", rotate_keys,
        body=KeyRotation, answer=list[ShownKey], problems=(409,), example={"keep": 3},
    ),
    Endpoint("GET", "/backups", Scope.READ, "Upkeep", "List the backups.", show_backups, answer=Backups),
    starts("/backups", "Upkeep", "Make a verified backup.", make_backup),
    starts(
        "/backups/{name}/verify", "Upkeep", "Prove that a backup can be restored.", verify_backup,
        problems=(404,),
    ),
    starts(
        "/verify", "Upkeep", "Verify every row that is money.", verify, body=Verification,
        example={"seal": False},
    ),
    starts(
        "/reports/check", "Reports", "Prove that reports equal the rows.", check_rollups, body=RollupCheck,
        example={"since": "1d"},
    ),
    starts(
        "/purge", "Upkeep", "Delete what is older than it has to be kept.", purge, body=Purge,
        example={"dry_run": True}, problems=(422,),
    ),
    starts("/secrets/check", "Upkeep", "Check whether every stored secret can be opened.", check_secrets),
)  # fmt: skip
