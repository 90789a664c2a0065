"""A worker of a queue that acknowledges a job before it has sent it: the mistake that ``postbackd-client work`` avoids.

python -m tests.trust.corpus.eager_worker URL QUEUE
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping

from postbackd_client import Client
from postbackd_client.commands.work import open_source
from postbackd_client.queues.sources import Job, Source
from postbackd_client.queues.work import Plan, Worker

_BETWEEN_S = 0.02
"""Between the acknowledgement and the request, as on a machine that is busy: a few kills then lose some for certain."""


class Eager:
    """A source whose jobs are settled as soon as they are taken."""

    def __init__(self, real: Source) -> None:
        self._real = real
        self._never = threading.Event()

    def take(self, wait_s: float) -> list[Job]:
        jobs = self._real.take(wait_s)
        for job in jobs:
            self._real.settle(job)
        if jobs:
            self._never.wait(_BETWEEN_S)
        return jobs

    def settle(self, job: Job) -> None:
        """Done already."""

    def put_off(self, job: Job, wait_s: float) -> None:
        """Too late."""

    def put_aside(self, job: Job, reason: str) -> None:
        """Too late."""

    def take_back(self) -> int:
        return self._real.take_back()

    def depth(self) -> Mapping[str, int]:
        return self._real.depth()

    def close(self) -> None:
        self._real.close()


def main() -> None:
    url, queue = sys.argv[1:]
    opened = open_source(queue)
    Worker(lambda: Eager(opened()), Client(url), Plan(), lambda line: None).run(threading.Event())


if __name__ == "__main__":
    main()
