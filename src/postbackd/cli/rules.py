"""``postbackd rule``: which conversions a target is told of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from postbackd.catalog.changes import RuleChange, change_rule, new_rule
from postbackd.catalog.documents import Describer, find_entry
from postbackd.catalog.entries import ON_CHANGE, ON_REVERSAL, doubts
from postbackd.cli.catalog import (
    list_entries,
    print_entry,
    print_warnings,
    remove_entry,
    show_entry,
)
from postbackd.cli.main import Family
from postbackd.cli.options import as_duration, as_json, takes_data
from postbackd.cli.rule_test import test_rules
from postbackd.cli.session import Session, visit
from postbackd.core.model import Catalog, Rule
from postbackd.settings import Settings

COLUMNS = ("name", "source", "campaign", "target", "when", "delay", "payout", "on_change", "on_reversal")

_WHEN_HELP = (
    'Which conversions, such as "type = sale and (country = DE, AT or value >= 10 USD) and first". It can test type, '
    "status, value, currency, country, offer, network, campaign and first.  [default: every approved conversion]"
)


@click.group(cls=Family)
def rule() -> None:
    """Which conversions a target is told of.

    A rule is of a source, or of a campaign; a campaign that has rules of its own follows these instead of its source's.
    """


rule.add_command(test_rules)


def _options(command: Any) -> Any:
    """The options that ``add`` and ``set`` share; ``None`` is not given."""
    for option in reversed(
        [
            click.option("--source", metavar="S", help="Conversions of all campaigns of this source."),
            click.option(
                "--campaign",
                metavar="C",
                help="Conversions of this campaign; its source's rules then do not count.",
            ),
            click.option("--when", metavar="CONDITION", help=_WHEN_HELP),
            click.option(
                "--delay",
                "delay_s",
                callback=as_duration,
                metavar="TIME",
                help="Tell it so much later, such as 10m.  [default: 0s]",
            ),
            click.option(
                "--payout",
                metavar="PAYOUT",
                help="What it is told a conversion is worth: 'fixed 2.50 USD' or 80%; empty for the value as received.",
            ),
            click.option(
                "--on-change",
                type=click.Choice(ON_CHANGE),
                help="When the value changes of what it was told.  [default: adjust if the target can, else ignore]",
            ),
            click.option(
                "--on-reversal",
                type=click.Choice(ON_REVERSAL),
                help="When the conversion is none any more.  [default: what the target can, retract before adjust]",
            ),
        ]
    ):
        command = option(command)
    return command


@rule.command("add")
@click.argument("name")
@click.option("--target", required=True, metavar="T", help="Which target is told.")
@_options
@as_json
@takes_data
def add_rule(name: str, settings: Settings, json_wanted: bool, **options: Any) -> None:
    """Add a rule: a target is told of the conversions of a source or campaign."""

    async def work(session: Session) -> tuple[Catalog, Rule]:
        catalog = await session.load()
        if (options["source"] is None) == (options["campaign"] is None):
            raise click.UsageError("name one: --source S for all its campaigns, or --campaign C")
        entry = new_rule(catalog, _read(name, options))
        await session.change([entry])
        return catalog, entry

    _print_saved(*visit(settings, work, create=True), json_wanted)


@rule.command("list")
@as_json
@takes_data
def list_rules(settings: Settings, json_wanted: bool) -> None:
    """All rules."""
    list_entries(settings, "", "rule", COLUMNS, json_wanted)


@rule.command("show")
@click.argument("name")
@as_json
@takes_data
def show_rule(name: str, settings: Settings, json_wanted: bool) -> None:
    """One rule."""
    show_entry(settings, "", "rule", name, json_wanted)


@rule.command("set")
@click.argument("name")
@click.option("--name", "new_name", metavar="NAME", help="A new name.")
@click.option("--target", metavar="T", help="Another target.")
@_options
@as_json
@takes_data
def set_rule(name: str, new_name: str | None, settings: Settings, json_wanted: bool, **options: Any) -> None:
    """Change a rule; what is not named stays. It holds for what happens from now on."""

    async def work(session: Session) -> tuple[Catalog, Rule]:
        catalog = await session.load()
        entry = find_entry(catalog.rules, name, "rule")
        entry = change_rule(catalog, entry, _read(new_name, options))
        await session.change([entry])
        return catalog, entry

    _print_saved(*visit(settings, work), json_wanted)


@rule.command("remove")
@click.argument("name")
@as_json
@takes_data
def remove_rule(name: str, settings: Settings, json_wanted: bool) -> None:
    """Take a rule out of the catalog; what follows from it already is still delivered."""
    remove_entry(settings, "rule", name, json_wanted)


def _read(name: str | None, options: Mapping[str, Any]) -> RuleChange:
    """The options as a change; ``None`` is not given."""
    given = {
        "name": name,
        **options,
        "delay": None if options["delay_s"] is None else f"{options['delay_s']}s",
    }
    del given["delay_s"]
    return RuleChange(**{field: value for field, value in given.items() if value is not None})


def _print_saved(catalog: Catalog, entry: Rule, json_wanted: bool) -> None:
    print_entry(Describer(catalog, "").describe(entry), json_wanted)
    print_warnings(doubts(catalog, entry))
