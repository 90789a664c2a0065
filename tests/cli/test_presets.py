"""Presets are data; every one of them must give URLs that can be used."""

from __future__ import annotations

import re

import pytest

from postbackd.catalog.entries import check_entry
from postbackd.catalog.urls import click_url, postback_url
from postbackd.core.deliveries import Answer
from postbackd.core.model import Campaign, How, Network, Source, WeightedOffer
from postbackd.core.outgoing import convert_preset_url, placeholders_left
from postbackd.core.params import CLICK_NAMES, POSTBACK_NAMES, FieldMap
from postbackd.core.replies import Outcome, check_patterns, judge_answer
from postbackd.core.shipping import KINDS
from postbackd.core.statuses import Status
from postbackd.presets import Preset, find_preset, load_presets
from tests.cli.conftest import Run

NETWORKS = [preset for preset in load_presets() if "network" in preset.roles]
SOURCES = [preset for preset in load_presets() if "source" in preset.roles]


def name_of(preset: Preset) -> str:
    return preset.id


def test_there_are_fifty_each_under_an_id_of_its_own_with_its_grade_and_sources() -> None:
    presets = load_presets()
    assert len(presets) == 50
    assert len({preset.id for preset in presets}) == len({preset.name.casefold() for preset in presets}) == 50
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", preset.id) for preset in presets)
    assert all(preset.sources and preset.grade for preset in presets)


@pytest.mark.parametrize("preset", NETWORKS, ids=name_of)
def test_a_network_preset_gives_a_postback_url_without_personal_data(preset: Preset) -> None:
    network = Network(id=1, name=preset.name, key="k" * 26, preset=preset.id, statuses=preset.statuses)
    check_entry(network)
    url = postback_url("https://track.example", network)
    assert url.startswith(f"https://track.example/p/{'k' * 26}?click_id=")
    assert not re.search(r"\s", url)
    assert not any(macro in url for macro in preset.left_out)
    read = FieldMap(POSTBACK_NAMES).read_query(url.partition("?")[2])
    assert read.values[0]
    assert read.parameters == url.count("&") + 1


@pytest.mark.parametrize("preset", SOURCES, ids=name_of)
def test_a_source_preset_gives_a_click_url_whose_parameters_are_read(preset: Preset) -> None:
    source = Source(id=1, name=preset.name, preset=preset.id, fields=preset.click_names())
    check_entry(source)
    campaign = Campaign(id=1, name="C", slug="c", source=1, offers=(WeightedOffer(1),))
    url = click_url("https://track.example", campaign, source)
    assert url.startswith("https://track.example/c/c?")
    assert not re.search(r"\s", url)
    read = FieldMap(CLICK_NAMES, source.fields).read_query(url.partition("?")[2])
    wanted = len(preset.click_parameters())
    assert sum(value is not None for value in read.values) == read.parameters == wanted
    if not preset.click_id_parameter:
        assert read.values[0] == preset.fields["source_click_id"]


@pytest.mark.parametrize("preset", load_presets(), ids=name_of)
def test_a_preset_speaks_of_fields_and_statuses_that_exist(preset: Preset) -> None:
    assert set(preset.fields) <= {*POSTBACK_NAMES, *CLICK_NAMES}
    assert set(preset.statuses.values()) <= {status.word for status in Status}
    asked_for = {*preset.fields.values(), *preset.others.values()}
    assert not asked_for & set(preset.left_out)


def test_a_preset_is_found_by_id_or_name_in_any_case_and_only_for_its_role() -> None:
    tune = find_preset("network", "TUNE")
    assert tune is not None
    assert tune is find_preset(None, " tune (hasoffers) ")
    assert find_preset("source", "tune") is None
    assert find_preset("network", "nothing") is None


def test_a_click_id_that_the_source_appends_by_itself_is_read_from_its_own_parameter() -> None:
    meta = find_preset("source", "meta")
    assert meta is not None
    names = FieldMap(CLICK_NAMES, meta.click_names())
    assert names.read_query("fbclid=abc").values[0] == "abc"


TARGETS = [preset for preset in load_presets() if "target" in preset.roles]


@pytest.mark.parametrize("preset", TARGETS, ids=name_of)
def test_what_is_known_of_a_target_can_be_used(preset: Preset) -> None:
    known = preset.target
    check_patterns(known.success)
    check_patterns(known.failure)
    assert known.kind in KINDS
    assert set(known.statuses) <= {status.word for status in Status}
    assert (known.kind == "postback") == (preset.target_url is not None)
    if preset.target_url is not None:
        url = convert_preset_url(preset.target_url)
        assert "{source_click_id}" in url
        # What is in a template but no macro of ours has to be asked for.
        assert all(re.fullmatch(r"[A-Z_]+", name) for name in placeholders_left(url))


def test_every_source_is_a_target_too() -> None:
    assert {preset.id for preset in SOURCES if preset.kind == "source"} <= {preset.id for preset in TARGETS}


@pytest.mark.parametrize(
    ("id_", "answer", "delivered"),
    [
        ("tune", Answer(200, b"success=true;"), True),
        ("tune", Answer(200, b"success=false; err_msg=Invalid Trans. ID"), False),
        ("tune", Answer(200, b""), False),
        ("evadav", Answer(200, b'{"status": "error"}'), False),
        ("evadav", Answer(200, b'{"status": "ok"}'), True),
        ("richads-push", Answer(200, b"Required url parameters are not present"), False),
        ("trafficstars", Answer(200, b'{"error":{"msg":"clickid is short"}}'), False),
        ("taboola", Answer(204, b""), True),
    ],
)
def test_an_answer_that_a_preset_knows_is_understood(id_: str, answer: Answer, delivered: bool) -> None:
    preset = find_preset("target", id_)
    assert preset is not None
    how = How(success=preset.target.success, failure=preset.target.failure)
    assert (judge_answer(answer, how, 0).outcome is Outcome.DELIVERED) is delivered


@pytest.mark.parametrize("id_", ["propellerads", "popcash", "taboola"])
def test_a_bad_click_id_is_not_sent_again_to_those_that_answer_400(id_: str) -> None:
    preset = find_preset("target", id_)
    assert preset is not None
    how = How(final=preset.target.final)
    assert judge_answer(Answer(400, b""), how, 0).outcome is Outcome.DEAD


def test_presets_are_listed_and_shown(run: Run) -> None:
    assert len(run("presets", "list", "--json").json) == 50
    assert "propellerads" in run("presets", "list", "--role", "source").out
    assert "evadav" in run("presets", "list", "--role", "target").out
    assert "impact" not in run("presets", "list", "--role", "target").out
    assert "propellerads" not in run("presets", "list", "--role", "network").out
    assert run("presets", "show", "propellerads", "--json").json["fields"]["source_click_id"] == "${SUBID}"
    assert "{aff_sub}" in run("presets", "show", "TUNE").out
    assert "there is no preset" in run("presets", "show", "nope", code=1).err
