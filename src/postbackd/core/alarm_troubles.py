"""Checks of deliveries and of the machine: targets that are not served, certificate, disk, spool, backups."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from postbackd.core.alarm_rates import chance_below, span
from postbackd.core.alarms import DAY_MS, Judgement, Key, Kind, Scope, Sighting
from postbackd.core.certificates import Term

BROKEN_MS = 600_000
"""A target that fails for so long has more than a restart."""

OVERDUE_MS = 900_000
"""What should have been sent so long ago is not late because somebody else was served first."""

DELIVERY_LINE = 0.95
"""Share of the latest deliveries that should have been taken."""

SURE = 1e-4

DISK_BYTES = 512 * 1024 * 1024
DISK_SHARE = 0.05
"""Less room than both, or than ``DISK_DAYS`` of growth, is little."""
DISK_DAYS = 3.0

CERTIFICATE_SHARE = 1 / 6
"""The part of its life that a certificate has left when it should have been renewed long since."""

CERTIFICATE_URGENT_MS = 3 * DAY_MS

BACKUP_LATE = 1.5
"""Times the interval: one that takes long, or was tried again, is not late yet."""


class TargetFacts(Struct, frozen=True, kw_only=True):
    """What is known of one target."""

    id: int
    name: str
    state: str = ""
    """``paused``, ``broken``, ``slowed``; empty: it is served as usual."""
    since_ms: int = 0
    reason: str = ""
    dead: int = 0
    """Given up in the last day, and nothing has made up for it."""
    dead_reason: str = ""
    overdue: int = 0
    overdue_ms: int = 0
    """Since when the first of them should have been sent."""
    delivered: int = 0
    failed: int = 0
    """Of the latest deliveries that were tried."""


def check_target(facts: TargetFacts, now_ms: int) -> Sighting:
    """Everything that is wrong with one target, in one sighting."""
    problems = [problem for problem in _problems(facts, now_ms) if problem]
    key = Key(Kind.DELIVERY, Scope.TARGET, facts.id)
    if not problems:
        return Sighting(key, Judgement.GOOD)
    if facts.state == "paused":
        todo = f"when the target is well again, run 'postbackd target resume {facts.name}'; what waits is sent then"
    elif facts.dead and not facts.state:
        todo = (
            f"look with 'postbackd delivery list --state dead --target {facts.name}', mend what they say, then "
            "'postbackd delivery retry' with the same options"
        )
    elif facts.overdue and not facts.state:
        todo = "start 'postbackd serve' or 'postbackd deliver': nobody sends what is due"
    else:
        todo = f"'postbackd target show {facts.name}' has the latest answers; what waits is tried again by itself"
    return Sighting(
        key,
        Judgement.BAD,
        seen=f"target {facts.name}: {'; '.join(problems)}",
        normal="a target takes what it is sent, and nothing is given up",
        todo=todo,
        urgent=True,
    )


def _problems(facts: TargetFacts, now_ms: int) -> Sequence[str]:
    tried = facts.delivered + facts.failed
    failing = (
        facts.failed
        and facts.delivered / tried < DELIVERY_LINE
        and chance_below(facts.delivered, tried, DELIVERY_LINE) < SURE
    )
    in_trouble = facts.state == "paused" or (facts.state == "broken" and now_ms - facts.since_ms >= BROKEN_MS)
    because = f" ({facts.reason})" if facts.reason else ""
    late = facts.overdue and not facts.state and now_ms - facts.overdue_ms >= OVERDUE_MS
    return [
        f"it is {facts.state} for {span(now_ms - facts.since_ms)}{because}" if in_trouble else "",
        f"{facts.dead:,} deliveries were given up in the last day, {facts.dead_reason}" if facts.dead else "",
        f"{facts.overdue:,} deliveries wait for {span(now_ms - facts.overdue_ms)} longer than they should"
        if late
        else "",
        f"of the latest {tried:,} deliveries {facts.delivered / tried:.0%} were taken" if failing else "",
    ]


# --- the machine -------------------------------------------------------------------------------------------------


class Disk(Struct, frozen=True):
    """One disk."""

    what: str
    """What lies on it."""
    free: int
    size: int
    grows: float = 0.0
    """Bytes a day by which the free space shrinks; 0: it does not, or nobody knows."""


class Certificate(Struct, frozen=True):
    """The certificate of this server."""

    term: Term | None
    """``None``: there is none, or it cannot be read."""
    ours: bool
    """Whether it is renewed by us."""
    trouble: str = ""
    """Why it could not be renewed, or read."""


class Backups(Struct, frozen=True):
    """Backups that a server makes."""

    every_h: int
    newest_ms: int | None
    failure: str = ""


class MachineFacts(Struct, frozen=True, kw_only=True):
    """What is known of this machine.  ``None``: it does not apply here, and nothing is said of it."""

    disks: Sequence[Disk] = ()
    certificate: Certificate | None = None
    spool_bytes: int | None = None
    backups: Backups | None = None


def check_machine(facts: MachineFacts, now_ms: int) -> Sequence[Sighting]:
    found = [_check_disks(facts.disks)] if facts.disks else []
    if facts.certificate is not None:
        found.append(_check_certificate(facts.certificate, now_ms))
    if facts.spool_bytes is not None:
        found.append(_check_spool(facts.spool_bytes))
    if facts.backups is not None:
        found.append(_check_backups(facts.backups, now_ms))
    return found


def _of_server(kind: Kind) -> Key:
    return Key(kind, Scope.SERVER, 0)


def _check_disks(disks: Sequence[Disk]) -> Sighting:
    low = [disk for disk in disks if _is_low(disk)]
    if not low:
        return Sighting(_of_server(Kind.DISK), Judgement.GOOD)
    return Sighting(
        _of_server(Kind.DISK),
        Judgement.BAD,
        seen="; ".join(_describe(disk) for disk in low),
        normal=f"room for {DISK_DAYS:.0f} days, and at least {DISK_BYTES / 2**20:.0f} MiB or {DISK_SHARE:.0%} of it",
        todo="free some space or get a larger disk; 'postbackd purge --before 60d' deletes old clicks and log rows, "
        "and the keep_..._days settings keep less from now on",
        urgent=True,
    )


def _is_low(disk: Disk) -> bool:
    little = disk.free < DISK_BYTES or (disk.free < disk.size * DISK_SHARE and disk.free < 20 * DISK_BYTES)
    return little or bool(disk.grows and disk.free / disk.grows < DISK_DAYS)


def _describe(disk: Disk) -> str:
    days = f", and it fills up in {disk.free / disk.grows:.1f} days" if disk.grows else ""
    return f"the disk of {disk.what} has {disk.free / 2**30:.1f} of {disk.size / 2**30:.0f} GiB free{days}"


def _check_certificate(certificate: Certificate, now_ms: int) -> Sighting:
    key, term = _of_server(Kind.CERTIFICATE), certificate.term
    left_ms = term.until_ms - now_ms if term else 0
    if term is not None and left_ms > term.life_ms * CERTIFICATE_SHARE:
        return Sighting(key, Judgement.GOOD)
    lasts = f"{span(left_ms)} left" if left_ms > 0 else f"run out {span(-left_ms)} ago"
    seen = f"the certificate for {', '.join(term.names)} has {lasts}" if term else "there is no certificate"
    return Sighting(
        key,
        Judgement.BAD,
        seen=f"{seen}: {certificate.trouble}" if certificate.trouble else seen,
        normal="a certificate is renewed when a third of its life is left",
        todo="read what the authority says with 'postbackd doctor', then 'postbackd certificates --try-now'"
        if certificate.ours
        else "have whoever looks after the file of --cert renew it; it is read again when it changes",
        urgent=left_ms < CERTIFICATE_URGENT_MS,
    )


def _check_spool(spool_bytes: int) -> Sighting:
    if not spool_bytes:
        return Sighting(_of_server(Kind.SPOOL), Judgement.GOOD)
    return Sighting(
        _of_server(Kind.SPOOL),
        Judgement.BAD,
        seen=f"{spool_bytes / 2**20:.1f} MiB of requests lie in the spool of this machine, not in the database",
        normal="the spool is empty: requests go to the database at once",
        todo="look whether the database can be reached from this machine ('postbackd doctor'); the spool empties "
        "itself when it can, and nothing of it is lost until then",
        urgent=True,
    )


def _check_backups(backups: Backups, now_ms: int) -> Sighting:
    key, hour_ms = _of_server(Kind.BACKUP), DAY_MS // 24
    age_ms = None if backups.newest_ms is None else now_ms - backups.newest_ms
    late = age_ms is None or age_ms > BACKUP_LATE * backups.every_h * hour_ms
    if not late and not backups.failure:
        return Sighting(key, Judgement.GOOD)
    newest = "there is no backup" if age_ms is None else f"the newest backup is {span(age_ms)} old"
    return Sighting(
        key,
        Judgement.BAD,
        seen=f"{newest}; the last try failed: {backups.failure}" if backups.failure else newest,
        normal=f"one is made every {backups.every_h} hours",
        todo="look at the server's log, then run 'postbackd backup'",
    )
