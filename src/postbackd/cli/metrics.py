"""``postbackd metrics``: what ``/metrics`` shows, without a server."""

from __future__ import annotations

import sys

import click

from postbackd.cli.options import as_moment, now_ms, takes_settings
from postbackd.cli.session import visit
from postbackd.reports.metrics import Metrics
from postbackd.settings import Settings

_DAY_MS = 86_400_000


@click.command()
@click.option(
    "--since",
    "since_ms",
    callback=as_moment,
    metavar="TIME",
    help="Count from then on: 2026-11-23, 2026-11-23T14:00 (UTC), 7d, 24h.  [default: 24h]",
)
@takes_settings("data", "store", "backup_dir", "domain", "cert", "key")
def metrics(since_ms: int | None, settings: Settings) -> None:
    """Print the metrics of this moment in the text format of Prometheus.

    A server's own counters begin when it starts; these begin at --since, and are counted anew each time.
    """
    from postbackd.measuring import surroundings_of

    now = now_ms()
    counting = Metrics(surroundings_of(settings), now - _DAY_MS if since_ms is None else min(since_ms, now))
    text = visit(settings, lambda session: counting.collect(session.store, now))
    sys.stdout.write(text.decode())
