"""Rules: which conversions a target is told of, and what they would do."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from postbackd.admin.api import entries
from postbackd.admin.endpoints import Answered, Asked, Endpoint, Scope
from postbackd.admin.pages import Page
from postbackd.admin.problems import Problem
from postbackd.catalog.changes import Name, RuleChange, change_rule, new_rule
from postbackd.catalog.documents import Describer
from postbackd.catalog.entries import doubts
from postbackd.catalog.errors import NoEntry
from postbackd.core.model import Catalog, Rule
from postbackd.operations.rule_tests import SAMPLE, describe_tests, find_conversions, make_sample
from postbackd.operations.rule_tests import Asked as Tested


class NewRule(RuleChange, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule that is to be added; it is of a source or of a campaign."""

    name: Name
    target: Name


class ShownRule(Struct, frozen=True, kw_only=True):
    """A rule."""

    id: int
    name: str
    source: str | None
    campaign: str | None
    target: str | None
    when: str
    """Which conversions; empty: every approved one."""
    delay: str
    payout: str
    on_change: str
    on_reversal: str
    warnings: list[str] = []
    """What is doubtful about it."""


class RuleTest(Struct, frozen=True, forbid_unknown_fields=True):
    """A conversion: one that is stored, or a made-up one."""

    id: (
        Annotated[
            str, Meta(min_length=1, max_length=200, description="Of a conversion, a click or a request.")
        ]
        | None
    ) = None
    sample: Annotated[
        dict[str, Annotated[str, Meta(max_length=500)]] | None,
        Meta(description=f"A made-up one: {', '.join(SAMPLE[:10])}, sub1 to sub10."),
    ] = None


class WouldSend(Struct, frozen=True):
    """A request, with the name of each secret in its place."""

    method: str
    url: str
    headers: dict[str, str]
    body: str


class TestedRule(Struct, frozen=True, kw_only=True):
    """What one rule makes of a conversion."""

    rule: str
    target: str | None
    fires: bool
    why: str
    now: str | None
    """What it would do if the conversion happened again now."""
    cannot: dict[str, str] = {}
    """What its target can never be told (``change``, ``reversal``), and why."""
    message: str | None = None
    value: str | None = None
    currency: str | None = None
    delay: str | None = None
    refusal: str | None = None
    """Why it would not be sent."""
    request: WouldSend | None = None


class TestedConversion(Struct, frozen=True, kw_only=True):
    """What all rules that could concern it make of one conversion."""

    conversion: str
    type: str
    status: str
    value: str
    currency: str
    transaction_id: str
    campaign: str | None
    offer: str | None
    rules: list[TestedRule]
    problems: list[str]


def show(catalog: Catalog, describer: Describer, rule: Rule) -> ShownRule:
    """As an answer."""
    document = describer.describe(rule)
    shown: ShownRule = entries.convert(document, ShownRule, id=rule.id, warnings=doubts(catalog, rule))
    return shown


async def list_rules(asked: Asked[entries.ListQuery, None]) -> Page[ShownRule]:
    """In the order in which they were added."""
    catalog = await asked.desk.store.load_catalog()
    describer = Describer(catalog, "")
    return entries.page_of(catalog.rules, asked.query, lambda rule: show(catalog, describer, rule))


async def show_rule(asked: Asked[None, None]) -> Answered:
    """One rule, by its name."""
    catalog = await asked.desk.store.load_catalog()
    found = entries.find(catalog.rules, asked.path["name"], "rule")
    return entries.answer(show(catalog, Describer(catalog, ""), found), catalog.generation)


async def create_rule(asked: Asked[None, NewRule]) -> Answered:
    """A campaign that has rules of its own follows these instead of its source's."""
    catalog, expected = await entries.load(asked)
    saved, catalog = await entries.save(asked, new_rule(catalog, asked.body), expected)
    return entries.answer(show(catalog, Describer(catalog, ""), saved), catalog.generation)


async def change(asked: Asked[None, RuleChange]) -> Answered:
    """It holds for what happens from now on."""
    catalog, expected = await entries.load(asked)
    found = entries.find(catalog.rules, asked.path["name"], "rule")
    saved, catalog = await entries.save(asked, change_rule(catalog, found, asked.body), expected)
    return entries.answer(show(catalog, Describer(catalog, ""), saved), catalog.generation)


async def test_rules(asked: Asked[None, RuleTest]) -> list[dict[str, Any]]:
    """Nothing is stored or sent. Rules are asked as if the conversion were counted now."""
    body, desk = asked.body, asked.desk
    catalog = await desk.store.load_catalog()
    if (body.id is None) == (body.sample is None):
        raise Problem(422, "name one: the id of a conversion, click or request, or a sample", field="id")
    if body.sample is not None:
        unknown = sorted(body.sample.keys() - set(SAMPLE))
        if unknown:
            known = ", ".join(SAMPLE)
            raise Problem(422, f"{unknown[0]!r} is no field of a sample; there are {known}", field="sample")
        tested = [Tested(make_sample(catalog, body.sample, desk.now_ms()))]
    else:
        tested = await find_conversions(desk.store, catalog, (body.id or "").strip())
    if not tested:
        raise NoEntry(f"there is no conversion under {body.id!r}; /why says what became of an id")
    return describe_tests(catalog, tested, desk.now_ms())


ENDPOINTS = (
    *entries.endpoints_of(
        "rule", "Rules", ShownRule, NewRule, RuleChange,
        {"list": list_rules, "show": show_rule, "create": create_rule, "change": change},
        {"name": "Sales", "source": "PropellerAds", "target": "PropellerAds", "when": "type = sale"},
    ),
    Endpoint(
        "POST", "/rules/test", Scope.READ, "Rules",
        "Show which rules fire for a conversion, and the exact requests they would send.", test_rules,
        body=RuleTest, answer=list[TestedConversion], problems=(404, 422),
        example={"sample": {"type": "sale", "value": "12.50", "currency": "USD", "campaign": "Summer"}},
    ),
)  # fmt: skip
