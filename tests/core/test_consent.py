"""What browsers and pages say is honoured where the operator said so, and changes nothing elsewhere."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from postbackd.core.consent import Consent, make_consent
from postbackd.core.deliveries import Facts
from postbackd.core.model import How, Target
from postbackd.core.planning import Planner
from tests.core.test_planning import FACTS, NOW, make_catalog, make_event

GPC = Consent(True, "", frozenset())
PARAMETER = Consent(False, "consent", frozenset())
GERMAN = Consent(True, "consent", frozenset({"DE"}))


def test_nothing_is_honoured_unless_it_is_switched_on() -> None:
    assert make_consent(False, "", "DE") is None
    assert make_consent(False, " ", "") is None


def test_a_browser_that_says_no_is_believed() -> None:
    assert GPC.refused(True, [], None)
    assert not GPC.refused(False, [], None)
    assert not PARAMETER.refused(True, [("consent", "1")], None)


@pytest.mark.parametrize("said", ["1", "true", "YES", "granted", " y "])
def test_a_clear_yes_is_one(said: str) -> None:
    assert not PARAMETER.refused(False, [("a", "b"), ("Consent", said)], None)


@pytest.mark.parametrize("said", ["0", "no", "false", "", "denied", "{consent}", "maybe"])
def test_anything_else_is_none(said: str) -> None:
    assert PARAMETER.refused(False, [("consent", said)], None)
    assert PARAMETER.refused(False, [], None)


@pytest.mark.parametrize(("country", "refused"), [("DE", True), ("US", False), (None, True)])
def test_it_is_asked_in_the_listed_countries_and_where_the_country_is_not_known(
    country: str | None, refused: bool
) -> None:
    assert GERMAN.refused(True, [], country) is refused
    assert GERMAN.refused(False, [], country) is refused


@pytest.mark.parametrize("countries", ["D", "DEU", "D1", "DE FR"])
def test_a_country_that_is_no_code_is_refused(countries: str) -> None:
    with pytest.raises(ValueError, match="two-letter"):
        make_consent(True, "", countries)


@pytest.mark.parametrize(
    ("kind", "told"), [("postback", True), ("webhook", True), ("meta", False), ("tiktok", False)]
)
def test_no_ad_platform_is_told_of_a_visitor_who_did_not_consent(kind: str, told: bool) -> None:
    planner = Planner(make_catalog(target=Target(id=70, name="t", how=How(kind=kind))))
    refused = replace(FACTS, refused=True)
    assert isinstance(refused, Facts)
    assert bool(planner.plan([make_event(facts=refused)], [], NOW)) is told
    assert planner.plan([make_event(facts=FACTS)], [], NOW)
    if not told:
        (explained,) = planner.explain(make_event(facts=refused), [])
        assert "did not consent" in explained.why
