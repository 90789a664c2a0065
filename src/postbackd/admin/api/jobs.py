"""Long work: how far it is, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from postbackd.admin.desk import Desk
from postbackd.admin.endpoints import Answered, Asked, Endpoint, Scope
from postbackd.admin.jobs import Job, Jobs, State
from postbackd.admin.problems import Problem, not_found
from postbackd.reports.period import write_moment


class ShownJob(Struct, frozen=True, kw_only=True):
    """A piece of long work; it is remembered until this process ends, or fifty later ones have."""

    id: str
    kind: str
    """``verify``, ``backup``, ``purge``, ``erase``, ``doctor`` and so on."""
    state: State
    started: str
    ended: str | None
    done: int
    """Rows that it is through with."""
    expected: int | None
    """Of how many, where that is known."""
    step: str | None
    result: Any
    """What the command prints with ``--json``."""
    problem: str | None
    """Why it failed, or what it found that needs somebody."""


def show(job: Job) -> ShownJob:
    """As an answer."""
    fields = {field: getattr(job, field) for field in ("id", "kind", "state", "done", "expected", "step")}
    ended = None if job.ended_ms is None else write_moment(job.ended_ms)
    return ShownJob(
        **fields, started=write_moment(job.started_ms), ended=ended, result=job.result, problem=job.problem
    )


def jobs_of(desk: Desk) -> Jobs:
    """Raises ``Problem`` where none can be started."""
    if desk.jobs is None:
        raise Problem(503, "long work cannot be started here; use the command line")
    return desk.jobs


def start(desk: Desk, kind: str, arguments: Sequence[str], given: str = "") -> Answered:
    """Answer that it has begun, and where to look."""
    job = jobs_of(desk).start(kind, arguments, given)
    return Answered(show(job), {"Location": f"/api/v1/jobs/{job.id}"})


def starts(
    path: str, topic: str, does: str, run: Any, *, body: Any = None, example: Any = None, problems: Any = ()
) -> Endpoint:
    """An endpoint that begins long work."""
    return Endpoint(
        "POST", path, Scope.OPERATE, topic, does, run, body=body, example=example, answer=ShownJob, status=202,
        problems=(409, *problems),
    )  # fmt: skip


async def list_jobs(asked: Asked[None, None]) -> list[ShownJob]:
    """The newest first."""
    return [show(job) for job in jobs_of(asked.desk).list()]


async def show_job(asked: Asked[None, None]) -> ShownJob:
    """How far it is, or what came of it."""
    job = jobs_of(asked.desk).find(asked.path["id"])
    if job is None:
        raise not_found("job", asked.path["id"], "it is forgotten when the server is started again")
    return show(job)


ENDPOINTS = (
    Endpoint("GET", "/jobs", Scope.READ, "Jobs", "List long work.", list_jobs, answer=list[ShownJob]),
    Endpoint(
        "GET", "/jobs/{id}", Scope.READ, "Jobs", "Show one piece of long work.", show_job, answer=ShownJob,
        problems=(404,),
    ),
)  # fmt: skip
