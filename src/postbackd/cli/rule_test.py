"""``postbackd rule test``: which rules fire for a conversion, and the exact requests that they would send.

Nothing is stored or sent, and no secret is opened: what stands for one is its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from postbackd.cli.options import as_json, now_ms, takes_data
from postbackd.cli.session import Session, print_json, visit
from postbackd.operations.rule_tests import SAMPLE, Asked, describe_tests, find_conversions, make_sample
from postbackd.settings import Settings


@click.command("test")
@click.argument("id_", metavar="[ID]", required=False)
@click.option(
    "--sample",
    metavar="FIELD=VALUE,...",
    help="A made-up conversion instead, such as type=sale,value=12.50,currency=USD,status=approved,country=DE,"
    f"campaign=NAME. Fields: {', '.join(SAMPLE[:10])}, sub1 to sub10.",
)
@as_json
@takes_data
def test_rules(id_: str | None, sample: str | None, settings: Settings, json_wanted: bool) -> None:
    """Show which rules fire for a conversion, and the exact requests they would send; nothing is sent.

    ID is a conversion id, a click id, or the request id of a postback. Rules are asked as if it were counted now.
    Exit code 1 when there is no conversion under the ID.
    """
    if (id_ is None) == (sample is None):
        raise click.UsageError("name one: the ID of a conversion, click or request, or --sample")

    async def work(session: Session) -> list[dict[str, Any]]:
        catalog = await session.load()
        if sample is not None:
            asked = [Asked(make_sample(catalog, _read_sample(sample), now_ms()))]
        else:
            asked = await find_conversions(session.store, catalog, (id_ or "").strip())
        return describe_tests(catalog, asked, now_ms())

    documents = visit(settings, work)
    if json_wanted:
        print_json(documents)
    elif documents:
        click.echo("\n\n".join(_format(document) for document in documents))
    if not documents:
        raise click.ClickException(
            f"there is no conversion under {id_!r}; 'postbackd why' says what became of an id"
        )


# --- a made-up conversion ----------------------------------------------------------------------------------------


def _read_sample(text: str) -> dict[str, str]:
    """``FIELD=VALUE`` pieces; a comma that no field follows belongs to the value before it."""
    given: dict[str, str] = {}
    last = ""
    for piece in text.split(","):
        name, equals, value = piece.partition("=")
        name = name.strip().lower()
        if equals and name in SAMPLE:
            last, given[name] = name, value.strip()
        elif last and not equals:
            given[last] += f",{piece}"
        else:
            raise click.UsageError(
                f"--sample: {piece.strip()!r} is not usable; write FIELD=VALUE with a field of "
                f"{', '.join(SAMPLE[:10])}, sub1 to sub10"
            )
    return given


# --- in words ----------------------------------------------------------------------------------------------------


def _format(document: Mapping[str, Any]) -> str:
    said = f"{document['type']} of {document['value']} {document['currency']}, {document['status']}"
    where = f"campaign {document['campaign']!r}, offer {document['offer']!r}"
    lines = [f"conversion {document['conversion']}: {said}, {where}"]
    for rule in document["rules"]:
        lines += _format_rule(rule)
    if not document["rules"]:
        lines.append("no rule is of this campaign or its source; add one with 'postbackd rule add'")
    lines += [f"! {problem}" for problem in document["problems"]]
    return "\n".join(lines)


def _format_rule(rule: Mapping[str, Any]) -> list[str]:
    sign, verb = ("+", "fires") if rule["fires"] else ("-", "does not fire")
    lines = [f"{sign} rule {rule['rule']!r} to target {rule['target']!r} {verb}: {rule['why']}"]
    if rule["now"]:
        lines.append(f"    if it happened again now: {rule['now']}")
    if rule.get("refusal"):
        lines.append(f"    but it would not be sent: {rule['refusal']}")
    request = rule.get("request")
    if request:
        after = "" if rule["delay"] == "0s" else f"after {rule['delay']}: "
        lines.append(f"    {after}{request['method']} {request['url']}")
        lines += [f"    {name}: {value}" for name, value in request["headers"].items()]
        lines += [f"    {line}" for line in request["body"].splitlines()]
    lines += [f"    cannot be told of a {what}: {why}" for what, why in rule.get("cannot", {}).items()]
    return lines
