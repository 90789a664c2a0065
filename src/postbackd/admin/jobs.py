"""Work that takes longer than a request may: a command of this program in a process of its own, and what it prints.

Few run at once, and those that have ended are remembered for a while; nothing of it outlives this process, and what is
unfinished when it stops is stopped too (every command may be run again).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from secrets import token_hex
from typing import Any, Literal

import msgspec
from msgspec import Struct

from postbackd.admin.problems import Problem

Run = Callable[[Sequence[str]], Awaitable[asyncio.subprocess.Process]]
"""Starts ``postbackd ARGUMENTS`` with pipes for input, output and errors."""

MOST_RUNNING = 2
_MOST_REMEMBERED = 50
_PROGRESS = b"progress "
_LONGEST_MESSAGE = 2000

State = Literal["running", "done", "failed"]


class Job(Struct, frozen=True, kw_only=True):
    """One piece of long work."""

    id: str
    kind: str
    state: State
    started_ms: int
    ended_ms: int | None = None
    done: int = 0
    """Rows that it is through with."""
    expected: int | None = None
    """Of how many, where that is known."""
    step: str | None = None
    result: Any = None
    """What the command prints with ``--json``."""
    problem: str | None = None
    """Why it failed, or what it found that needs somebody."""


class _Progress(Struct):
    """A line of a command that was asked to say how far it is."""

    done: int
    expected: int | None = None
    step: str | None = None


class Jobs:
    """The jobs of one desk."""

    def __init__(self, run: Run, now_ms: Callable[[], int]) -> None:
        self._run = run
        self._now_ms = now_ms
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def list(self) -> list[Job]:
        """The newest first."""
        return [*reversed(self._jobs.values())]

    def find(self, id_: str) -> Job | None:
        return self._jobs.get(id_)

    def start(self, kind: str, arguments: Sequence[str], given: str = "") -> Job:
        """``given``: what the command reads from its standard input.

        Raises ``Problem`` while one of this kind, or too many of others, run.
        """
        running = [job for job in self._jobs.values() if job.state == "running"]
        if len(running) >= MOST_RUNNING or any(job.kind == kind for job in running):
            names = ", ".join(f"{job.kind} ({job.id})" for job in running)
            raise Problem(
                409,
                f"there is long work going on: {names}; wait for it, see /jobs",
                headers={"Retry-After": "5"},
            )
        job = Job(id=token_hex(8), kind=kind, state="running", started_ms=self._now_ms())
        self._jobs[job.id] = job
        self._tasks[job.id] = asyncio.create_task(self._work(job.id, arguments, given))
        self._forget()
        return job

    async def wait(self, id_: str, timeout_s: float) -> Job:
        """The job when it has ended, or as it is after the time."""
        if id_ in self._tasks:
            await asyncio.wait([self._tasks[id_]], timeout=timeout_s)
        return self._jobs[id_]

    async def close(self) -> None:
        """Stop what runs."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _forget(self) -> None:
        ended = [job.id for job in self._jobs.values() if job.state != "running"]
        for id_ in ended[: max(0, len(self._jobs) - _MOST_REMEMBERED)]:
            del self._jobs[id_]

    def _change(self, id_: str, **changes: Any) -> None:
        self._jobs[id_] = msgspec.structs.replace(self._jobs[id_], **changes)

    async def _work(self, id_: str, arguments: Sequence[str], given: str) -> None:
        changes: dict[str, Any]
        try:
            changes = await self._follow(id_, arguments, given)
        except OSError as error:
            changes = {"state": "failed", "problem": f"it could not be started: {error}"}
        except asyncio.CancelledError:
            self._change(id_, state="failed", problem="stopped", ended_ms=self._now_ms())
            raise
        finally:
            self._tasks.pop(id_, None)
        self._change(id_, ended_ms=self._now_ms(), **changes)

    async def _follow(self, id_: str, arguments: Sequence[str], given: str) -> dict[str, Any]:
        process = await self._run(arguments)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdin.write(given.encode())
            process.stdin.close()
            printed, complaint = await asyncio.gather(
                process.stdout.read(), self._read_progress(id_, process.stderr)
            )
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
        # A check that finds something prints it and ends with 1: that is a result, and a problem.
        try:
            result = msgspec.json.decode(printed)
        except msgspec.DecodeError:
            result = None
        if code == 0:
            return {"state": "done", "result": result}
        problem = complaint or f"exit code {code}"
        return {"state": "failed" if result is None else "done", "result": result, "problem": problem}

    async def _read_progress(self, id_: str, stream: asyncio.StreamReader) -> str:
        """Follow what it says of itself; returns the last line that is something else."""
        last = ""
        async for line in stream:
            if line.startswith(_PROGRESS):
                try:
                    said = msgspec.json.decode(line.removeprefix(_PROGRESS), type=_Progress)
                except msgspec.DecodeError:  # cut off, by a command that was killed
                    continue
                self._change(id_, done=said.done, expected=said.expected, step=said.step)
            elif line.strip():
                last = line.decode(errors="replace").strip().removeprefix("postbackd: ")[:_LONGEST_MESSAGE]
        return last
