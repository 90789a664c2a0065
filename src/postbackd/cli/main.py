"""The entry point: which commands there are, and how a failure ends.

Families are imported when they are used, so that ``postbackd --help`` reads none of them.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from postbackd import __version__

COMMANDS: Mapping[str, tuple[str, str]] = {
    "serve": ("serve:serve", "Run the server: clicks in, postbacks in, conversions counted once."),
    "network": ("networks:network", "Affiliate networks and advertisers: who sends postbacks."),
    "source": ("sources:source", "Traffic sources: who sends visitors."),
    "offer": ("offers:offer", "Destination URLs of a network."),
    "campaign": ("campaigns:campaign", "Tracked links: a source and one or more offers."),
    "target": ("targets:target", "Where traffic sources are told of conversions, and how."),
    "rule": ("rules:rule", "Which conversions a target is told of."),
    "delivery": ("deliveries:delivery", "What was sent to targets, what waits, and what was given up."),
    "lint": ("lint:lint", "Find what is wrong with a URL before it is pasted anywhere."),
    "presets": ("presets:presets", "What known networks and sources call things."),
    "report": ("report:report", "Clicks, postbacks, conversions, and how well they match."),
    "metrics": ("metrics:metrics", "Print what /metrics shows to Prometheus."),
    "log": ("log:log", "The postback log, newest first."),
    "alarm": ("alarms:alarm", "What is wrong, by itself, and who is told."),
    "why": ("why:why", "What became of one id, and why."),
    "unmatched": ("unmatched:unmatched", "What broke on the way of postbacks that were not counted."),
    "replay": ("replay:replay", "Run postbacks that were not counted through today's settings again."),
    "reconcile": ("reconcile:reconcile_command", "Compare a partner's export with what is counted here."),
    "apply": ("apply:apply", "Make the catalog match a file."),
    "export": ("export:export", "Write the catalog as a file that apply reads."),
    "doctor": ("doctor:doctor", "Check the installation and say what to do."),
    "settings": ("settings:settings", "Each setting, its value and where it comes from."),
    "verify": ("verify:verify_command", "Find every damaged money row, and name it."),
    "backup": ("backup:backup", "Make a verified backup beside a running server."),
    "restore": ("backup:restore", "Put a backup back, to a new place."),
    "user": ("users:user", "People who may sign in to the dashboard."),
    "token": ("tokens:token", "Tokens of programs that use the API."),
    "audit": ("audit:audit", "Who changed what, newest first."),
    "keys": ("keys:keys", "Keys that sign click ids."),
    "secrets": ("secrets:secrets", "What is stored sealed, and the key that opens it."),
    "purge": ("purge:purge", "Delete what is older than it has to be kept."),
    "privacy": ("privacy:privacy", "What is kept of people, why and how long; checks, hashes and exports."),
    "erase": ("erase:erase", "Erase what is kept of a person, and certify it."),
    "db": ("db:db", "The tables of a PostgreSQL database, and the way into it."),
    "completion": ("completion:completion", "Print the completion script of a shell."),
    "version": ("version:version", "Print the version."),
    "ingest": ("serve:ingest", "Run the front door alone, one of many on a PostgreSQL database."),
    "deliver": ("serve:deliver", "Run the deliver role alone: traffic sources are told of conversions."),
    "admin": ("serve:admin", "Run the dashboard and the API alone: 'serve' does it itself."),
    "certificates": (
        "serve:certificates",
        "Look after the certificate alone: 'serve' and 'ingest' do it themselves.",
    ),
    "demo": ("demo:demo", "Make a simulated month to look at, apart from everything that is real."),
    "simulate": (
        "simulate:simulate",
        "Play a market against a running server, and check the server by its truth.",
    ),
    "receiver": ("receiver:receiver", "Receive deliveries on this machine, print and verify them."),
    "send": ("send:send", "Send one postback or a file of them to any endpoint, with verdict and timing."),
    "probe": ("probe:probe", "Measure an endpoint from here, phase by phase, and look at its certificate."),
    "compare": ("compare:compare", "Compare several endpoints under the same schedule of conversions."),
}
"""Command -> where it is (module of this package and attribute), and its line in the help."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Run it": ("serve", "ingest", "deliver", "admin", "certificates", "receiver", "demo", "simulate"),
    "Set it up": ("network", "source", "offer", "campaign", "target", "rule", "presets", "apply", "export"),
    "See what happened": (
        "report",
        "metrics",
        "alarm",
        "log",
        "why",
        "unmatched",
        "replay",
        "reconcile",
        "delivery",
    ),
    "Try URLs": ("lint", "send", "probe", "compare"),
    "Look after it": ("doctor", "settings", "verify", "backup", "restore", "keys", "secrets", "db"),
    "Who may use it": ("user", "token", "audit"),
    "Privacy": ("privacy", "erase", "purge"),
    "More": ("completion", "version"),
}
"""Heading in the help -> the commands below it."""


class Family(click.Group):
    """A group that prints its help when it is called without a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Say which commands there are when none was named."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)


class Root(Family):
    """The families, imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of ``COMMANDS``."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the family of one command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command = getattr(import_module(f"postbackd.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; click itself would end with 1 when the output is read no further."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise click.exceptions.Exit(_leave_quietly()) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        width = max(map(len, COMMANDS))
        for heading, names in GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), COMMANDS[name][1]) for name in names])


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="postbackd %(version)s")
def root() -> None:
    """Records clicks, receives conversion postbacks, and counts each conversion exactly once."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 wrongly called, 130 interrupted."""
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    if (unreadable := _find_unreadable(given)) is not None:
        _complain(unreadable)
        return 2
    try:
        result = root.main(given, prog_name="postbackd", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "postbackd"
        _complain(f"{_one_line(error.format_message())} Run '{path} --help'.")
        return 2
    except click.ClickException as error:
        _complain(_one_line(error.format_message()))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        return _leave_quietly()
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        _complain(f"PostgreSQL needs asyncpg ({error}); pip install -r requirements-postgres.txt.")
        return 1


def _find_unreadable(arguments: Sequence[str]) -> str | None:
    """What is wrong with an argument that is no text.  It may hold a secret, and is not shown."""
    for number, argument in enumerate(arguments, 1):
        try:
            argument.encode()
        except UnicodeEncodeError:
            return f"argument number {number} is not UTF-8 text; write it as UTF-8 (LANG says what the terminal uses)."
    return None


def _leave_quietly() -> int:
    """Whoever read our output has seen enough: what is left of it goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _one_line(message: str) -> str:
    line = " ".join(message.split())
    return line if line.endswith((".", "!", "?")) else f"{line}."


def _complain(line: str) -> None:
    """On standard error; a server that writes JSON there does so to its end."""
    role = sys.modules.get("postbackd.role")  # loaded where anything logs
    if role is not None and role.logs_json():
        logging.getLogger("postbackd").error("%s", line)
    else:
        click.echo(f"postbackd: {line}", err=True)
