"""The options of ``postbackd network add`` and ``set`` that say who may send."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from msgspec.structs import replace

from postbackd.catalog.senders import Made, SendersChange, Step, needs_secret, read_ranges
from postbackd.cli.account_values import ask_values, read_value
from postbackd.cli.options import as_duration
from postbackd.core.senders import STEPS, Mode, Senders

_STEP = click.Choice([*STEPS, "all"])

_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option(
        "--token/--no-token",
        "token",
        default=None,
        help="Have a token made, which is shown once; or take all tokens away.",
    ),
    click.option(
        "--allow-ip",
        "allowed",
        multiple=True,
        metavar="ADDRESS",
        help="An address or range it sends from, such as 203.0.113.0/24 or 2001:db8::/48; added to the list.",
    ),
    click.option(
        "--forbid-ip",
        "forbidden",
        multiple=True,
        metavar="ADDRESS",
        help="Take one off that list; 'all' of them.",
    ),
    click.option(
        "--signature",
        metavar="SCHEME",
        help="How it signs: hmac (our own), the name of a known sender, HASH:TEMPLATE such as "
        "md5:{sub_id}{txid}{secret}, hmac-HASH:TEMPLATE, url:HASH, query:HASH, or none.",
    ),
    click.option("--signature-parameter", metavar="NAME", help="The parameter that holds the signature."),
    click.option(
        "--signed-url",
        metavar="URL",
        help="For url:HASH: what the addresses begin with that the network calls.  [default: as in its postback URL]",
    ),
    click.option(
        "--window",
        "window_s",
        callback=as_duration,
        metavar="TIME",
        help="How far a signed time may be from ours.  [default: 300s]",
    ),
    click.option(
        "--secret",
        metavar="SECRET",
        help="The signing secret that the network gave you; sealed at once. Others on this machine can read a command "
        "line: write - to be asked for it, or to have a line of standard input read. With hmac one is made.",
    ),
    click.option(
        "--observe",
        "observed",
        multiple=True,
        type=_STEP,
        help="Refuse nobody at this step, but note what it would refuse; how a step begins.",
    ),
    click.option(
        "--enforce", "enforced", multiple=True, type=_STEP, help="Refuse whoever fails at this step."
    ),
    click.option("--off", "left_out", multiple=True, type=_STEP, help="Do not look at this step."),
    click.option(
        "--pixel",
        type=click.Choice(["checked", "open"]),
        help="Whether the browser pixel has to pass the steps too; browsers cannot.  [default: checked]",
    ),
)

NAMES = (
    *(
        "token",
        "allowed",
        "forbidden",
        "signature",
        "signature_parameter",
        "signed_url",
        "window_s",
        "secret",
    ),
    *("observed", "enforced", "left_out", "pixel"),
)
"""The arguments that these options become."""


def sender_options(command: Any) -> Any:
    """The options that ``add`` and ``set`` share; ``None`` and an empty list are not given."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_senders(stored: Senders, options: Mapping[str, Any]) -> SendersChange:
    """The given options as a change; what is missing is asked for on a terminal."""
    plain = ("token", "signature", "signature_parameter", "signed_url", "pixel")
    given = {name: options[name] for name in plain if options[name] is not None}
    if options["window_s"] is not None:
        given["window"] = f"{options['window_s']}s"
    if options["allowed"] or options["forbidden"]:
        given["allow_ip"] = _change_ips(stored, options["allowed"], options["forbidden"])
    modes: dict[Step, Mode] = {}
    wanted: tuple[tuple[Mode, Sequence[Step]], ...] = (
        ("off", options["left_out"]), ("observe", options["observed"]), ("enforce", options["enforced"]),
    )  # fmt: skip
    for mode, steps in wanted:
        modes |= dict.fromkeys(steps, mode)
    if options["secret"] is not None:
        given["secret"] = read_secret(options["secret"])
    change = SendersChange(**given, modes=modes)
    if needs_secret(stored, change):
        change = replace(change, secret=ask_values(["SECRET"], "--secret", hidden=True)["SECRET"])
    return change


def _change_ips(stored: Senders, allowed: Sequence[str], forbidden: Sequence[str]) -> list[str]:
    """The whole list, with some added and some taken off."""
    field = "--allow-ip or --forbid-ip"
    gone = read_ranges([text for text in forbidden if text != "all"], field)
    kept = () if "all" in forbidden else stored.ips
    unknown = sorted(set(gone) - set(kept))
    if unknown:
        raise click.UsageError(
            f"--forbid-ip {unknown[0]}: it is not on the list ({', '.join(kept) or 'empty'})"
        )
    return [*(ip for ip in kept if ip not in gone), *read_ranges(allowed, field)]


def read_secret(given: str) -> str:
    """A signing secret that was given; ``-`` is read first."""
    return read_value("the signing secret") if given == "-" else given


def print_made(made: Made) -> None:
    """What is shown this once, for people."""
    if made.token:
        click.echo(
            "\nThe token, which is not shown again; the network sends it as token=, or in the header "
            f"X-Postback-Token:\n\n  {made.token}\n"
        )
    if made.secret:
        click.echo(f"\nThe signing secret, which is not shown again:\n\n  {made.secret}\n")
