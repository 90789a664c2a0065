"""``postbackd presets``: what known networks and sources call things."""

from __future__ import annotations

import click
import msgspec

from postbackd.cli.catalog import print_entry
from postbackd.cli.main import Family
from postbackd.cli.options import as_json
from postbackd.cli.session import print_json
from postbackd.presets import find_preset, load_presets
from postbackd.reports.table import format_table


@click.group(cls=Family)
def presets() -> None:
    """What known networks and sources call things."""


@presets.command("list")
@click.option(
    "--role", type=click.Choice(["source", "network", "target"]), help="Only what can be added as this."
)
@as_json
def list_presets(role: str | None, json_wanted: bool) -> None:
    """All presets, with how well each is known."""
    chosen = [preset for preset in load_presets() if role is None or role in preset.roles]
    if json_wanted:
        print_json(
            [
                {
                    "id": preset.id,
                    "name": preset.name,
                    "kind": preset.kind,
                    "roles": preset.roles,
                    "grade": preset.grade,
                }
                for preset in chosen
            ]
        )
        return
    rows = [(preset.id, preset.name, ", ".join(preset.roles) or "-", preset.grade) for preset in chosen]
    click.echo(format_table(("id", "name", "add it as", "known from"), rows))


@presets.command("show")
@click.argument("name")
@as_json
def show_preset(name: str, json_wanted: bool) -> None:
    """One preset, by its id or name."""
    preset = find_preset(None, name)
    if preset is None:
        raise click.ClickException(f"there is no preset {name!r}; see 'postbackd presets list'")
    document = {
        field: value for field, value in msgspec.to_builtins(preset).items() if value not in (None, {}, [])
    }
    print_entry(document, json_wanted)
