"""Two ingest nodes on one database, beside one.

Nodes are machines, and there are two cores here.  So a node is given what a small machine would have: a fixed share of
a core (``bench.shares``), the same for both, and small enough that neither the database nor the load generators, which
have the other core to themselves, are the limit.  The load is the same for one node and for two: two generators of 64
connections each, which go to the same node or to one each.  What each core had left, and how much of its share each
node used, is noted with the results; where the machine may have been the limit, the two are not compared.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from bench import results as names
from bench.load import Load, Segment, closed_loop
from bench.machine import LOAD_CORE, SERVER_CORE, NotRun, Server, free_port, idle_s
from bench.parts_postgres import database
from bench.postgres import Postgres
from bench.run import Run, all_new
from bench.shares import share_of_core
from bench.stream import exponential
from bench.subjects import Stored, count_on_postgres, start_node

GENERATORS = 2
CONNECTIONS = 64
"""Of each generator."""

_WARM_UP_S = 2.0


@dataclass(frozen=True)
class _Node:
    server: Server
    port: int


@dataclass(frozen=True)
class _Nodes:
    """What a row is about: some nodes on one database."""

    name: str
    postgres: Postgres
    nodes: Sequence[_Node]

    def stored(self) -> Stored:
        return count_on_postgres(self.postgres)


def measure_nodes(run: Run) -> None:
    """New conversions a second through one node and through two, each with the same share of a core."""
    count = run.lines // 4
    lines = run.writer.postbacks("nodes", (1 + 2 * GENERATORS) * count, exponential)
    warm_up, *segments = [lines.take(count) for _load in range(1 + 2 * GENERATORS)]
    with ExitStack() as stack:
        postgres = stack.enter_context(database(run, "nodes", LOAD_CORE))
        nodes: list[_Node] = []
        for number in range(2):
            port = free_port()
            data = run.directory / f"node-{number}"
            server = start_node("ingest", postgres, data, port, run.directory / f"node-{number}.log")
            stack.callback(server.stop)
            stack.enter_context(share_of_core(str(number), names.NODE_SHARE, server.family))
            nodes.append(_Node(server, port))
        _load_all(nodes, _halve(warm_up), _WARM_UP_S)
        one = _measure(run, _Nodes(names.NODES[0], postgres, nodes[:1]), segments[:GENERATORS])
        two = _measure(run, _Nodes(names.NODES[1], postgres, nodes), segments[GENERATORS:])
    run.results.figures[names.NODES_IDLE] = least = min(one, two)
    if least < names.NODES_LEAST_IDLE_PERCENT:
        raise NotRun(
            f"a core was idle for {least:.0f} % of the time only: the machine may have been the limit"
        )


def _measure(run: Run, subject: _Nodes, segments: Sequence[Segment]) -> float:
    """One row; returns for how much of the time, in percent, the busier of the two cores was idle."""
    used: list[float] = []
    idle: list[float] = []

    def generate() -> Load:
        cores = (SERVER_CORE, LOAD_CORE)
        began, idle_before = time.monotonic(), [idle_s(core) for core in cores]
        cpu_before = [node.server.cpu_s() for node in subject.nodes]
        load = _load_all(subject.nodes, segments, run.seconds)
        # Until they have read their request lines, the generators send nothing: that time is no idleness.
        preparing_s = time.monotonic() - began - load.seconds
        for core, before in zip(cores, idle_before, strict=True):
            idle.append(100 * (idle_s(core) - before - preparing_s) / load.seconds)
        for node, before in zip(subject.nodes, cpu_before, strict=True):
            used.append(100 * (node.server.cpu_s() - before) / load.seconds / names.NODE_SHARE)
        return load

    run.add_row(subject, names.NEW_RECENT, GENERATORS * CONNECTIONS, generate, all_new)
    count = "one" if len(subject.nodes) == 1 else "two"
    for number, percent in enumerate(used, 1):
        run.results.figures[f"nodes_{count}_used_of_share_{number}_percent"] = percent
    for core, percent in zip(("server", "other"), idle, strict=True):
        run.results.figures[f"nodes_{count}_{core}_core_idle_percent"] = percent
    run.say(
        f"{subject.name}: used {', '.join(f'{percent:.0f} %' for percent in used)} of their shares; "
        f"idle: {idle[0]:.0f} % of the server's core, {idle[1]:.0f} % of the other"
    )
    return min(idle)


def _load_all(nodes: Sequence[_Node], segments: Sequence[Segment], seconds: float) -> Load:
    """All generators at the same time, shared out over the nodes."""
    with ThreadPoolExecutor(len(segments)) as beside:
        loads = [
            beside.submit(closed_loop, nodes[number % len(nodes)].port, segment, CONNECTIONS, seconds)
            for number, segment in enumerate(segments)
        ]
        return _together([load.result() for load in loads])


def _halve(segment: Segment) -> list[Segment]:
    half = segment.count // 2
    return [Segment(segment.file, segment.first + number * half, half) for number in range(2)]


def _together(loads: Sequence[Load]) -> Load:
    """Several loads of the same length as one; of latencies the worst."""
    return Load(
        requests=sum(load.requests for load in loads),
        seconds=max(load.seconds for load in loads),
        failed=sum(load.failed for load in loads),
        p50_ms=max(load.p50_ms for load in loads),
        p99_ms=max(load.p99_ms for load in loads),
        max_ms=max(load.max_ms for load in loads),
    )
