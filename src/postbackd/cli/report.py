"""``postbackd report``: the figures of a period."""

from __future__ import annotations

import click

from postbackd.cli.options import as_json, is_left_to_another, takes_data, takes_period
from postbackd.cli.report_explore import check_command, explore_command
from postbackd.cli.session import print_json, visit
from postbackd.reports.period import Period
from postbackd.reports.report import GROUPED_BY, build_report
from postbackd.reports.table import format_report
from postbackd.settings import Settings


@click.group(invoke_without_command=True)
@click.option("--by", type=click.Choice(GROUPED_BY), help="Also the figures of each of these.")
@takes_period
@as_json
@takes_data
@click.pass_context
def report(ctx: click.Context, by: str | None, period: Period, settings: Settings, json_wanted: bool) -> None:
    """Clicks, postbacks, conversions, how well they match, and how deliveries fare.

    All times are UTC. The match rate is healthy at 90 % or more. Conversions are all that were counted, also those
    that were rejected or reversed since, with how many have each status; 'report explore' counts only those that stand.
    """
    if is_left_to_another(ctx):
        return
    document = visit(settings, lambda session: build_report(session.store, period, by))
    if json_wanted:
        print_json(document)
    else:
        click.echo(format_report(document))


report.add_command(explore_command)
report.add_command(check_command)
