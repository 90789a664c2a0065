"""What a request costs: processor time of the node and of the database, bytes of log, bytes of disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from bench.machine import NotRun
from bench.postgres import Postgres

_SIZES = """
SELECT t.name || '=' || sum(pg_total_relation_size(c.oid))::bigint
FROM unnest(ARRAY['conversions', 'postbacks', 'clicks']) AS t (name)
JOIN pg_class AS c ON c.relkind = 'r' AND c.relname ~ ('^' || t.name || '_[0-9]+$')
GROUP BY t.name
"""
"""Bytes of the partitions of each table, indexes included."""

_LOG_CONTENT = """
SELECT coalesce(sum(fpi_size), 0)::bigint,
       coalesce(sum(count) FILTER (WHERE "resource_manager/record_type" = 'Transaction/COMMIT'), 0)::bigint
FROM pg_get_wal_stats('{}', '{}', true)
"""
"""Bytes of whole pages, and number of commits, between two places of the log."""


@dataclass(frozen=True)
class _Reading:
    node_cpu_s: float
    database_cpu_s: float
    log_position: str
    sizes: Mapping[str, int]


class CostMeter:
    """Held while a load runs; afterwards it says what was spent between the two ends.

    Processor time is what the kernel charged to the processes, so that it does not matter who else runs.  It holds
    whatever they did in that time, upkeep included.  The log (WAL) is measured by its position.
    """

    def __init__(self, postgres: Postgres, node_cpu_s: Callable[[], float]) -> None:
        self._postgres = postgres
        self._node_cpu_s = node_cpu_s
        self._before: _Reading | None = None
        self._after: _Reading | None = None

    def __enter__(self) -> Self:
        sizes, position = self._sizes(), self._log_position()
        self._before = _Reading(self._node_cpu_s(), self._postgres.cpu_s(), position, sizes)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is None:
            node, database = self._node_cpu_s(), self._postgres.cpu_s()
            self._after = _Reading(node, database, self._log_position(), self._sizes())

    def figures(self, requests: int) -> dict[str, float]:
        """What one of so many requests cost; the unit is the end of each name."""
        before, after = self._before, self._after
        if before is None or after is None or not requests:
            return {}
        log = self._postgres.number(
            f"SELECT pg_wal_lsn_diff('{after.log_position}', '{before.log_position}')"
        )
        spent: dict[str, float] = {
            "node_cpu_us": (after.node_cpu_s - before.node_cpu_s) * 1e6,
            "database_cpu_us": (after.database_cpu_s - before.database_cpu_s) * 1e6,
            "wal_bytes": log,
        }
        images, commits = self._log_content(before.log_position, after.log_position)
        if commits:
            spent["wal_page_image_bytes"] = images
            spent["transactions"] = commits
        for table, size in after.sizes.items():
            if grown := size - before.sizes.get(table, 0):
                spent[f"{table}_disk_bytes"] = grown
        return {name: value / requests for name, value in spent.items()}

    def _sizes(self) -> dict[str, int]:
        pairs = (line.split("=") for line in self._postgres.psql(_SIZES).splitlines())
        return {table: int(size) for table, size in pairs}

    def _log_position(self) -> str:
        return self._postgres.psql("SELECT pg_current_wal_insert_lsn()")

    def _log_content(self, begin: str, end: str) -> tuple[int, int]:
        """Bytes of whole pages, and commits; nothing of both where the server's contributed modules are missing."""
        try:
            self._postgres.psql("CREATE EXTENSION IF NOT EXISTS pg_walinspect", database="postgres")
            images, commits = self._postgres.psql(_LOG_CONTENT.format(begin, end), database="postgres").split(
                "|"
            )
        except NotRun:
            return 0, 0
        return int(images), int(commits)
