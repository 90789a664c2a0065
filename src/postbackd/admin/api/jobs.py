"""Long work: how far it is, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from postbackd.admin.desk import Desk
from postbackd.admin.endpoints import Answered, Asked, Endpoint, Scope
from postbackd.admin.jobs import Job, Jobs, State
from postbackd.admin.problems import Problem, not_found
from postbackd.core.moments import write_moment


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


class JobQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """How long to wait for its end."""

    wait: Annotated[int, Meta(ge=0, le=30, description="Seconds; the answer comes sooner when it ends.")] = 0


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


async def run_once(desk: Desk, arguments: Sequence[str]) -> Any:
    """What a command prints that takes well under a second.  Raises ``Problem`` with what it complains of."""
    if "run" not in desk.tools:
        raise Problem(503, "commands cannot be started here; use the command line")
    process = await desk.tools["run"](arguments)
    printed, complaint = await process.communicate(b"")
    if process.returncode:
        lines = complaint.decode(errors="replace").strip().splitlines()
        said = lines[-1].removeprefix("postbackd: ") if lines else "it failed"
        raise Problem(422, said)
    return msgspec.json.decode(printed)


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


async def show_job(asked: Asked[JobQuery, None]) -> ShownJob:
    """How far it is, or what came of it."""
    jobs = jobs_of(asked.desk)
    job = jobs.find(asked.path["id"])
    if job is None:
        raise not_found("job", asked.path["id"], "it is forgotten when the server is started again")
    return show(await jobs.wait(job.id, asked.query.wait) if asked.query.wait else job)


ENDPOINTS = (
    Endpoint("GET", "/jobs", Scope.READ, "Jobs", "List long work.", list_jobs, answer=list[ShownJob]),
    Endpoint(
        "GET", "/jobs/{id}", Scope.READ, "Jobs", "Show one piece of long work.", show_job,
        query=JobQuery, answer=ShownJob,
        problems=(404,),
    ),
)  # fmt: skip
