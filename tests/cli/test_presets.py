"""Presets are data; every one of them must give URLs that can be used."""

from __future__ import annotations

import re

import pytest

from postbackd.cli.entries import check_entry
from postbackd.cli.urls import click_url, postback_url
from postbackd.core.model import Campaign, Network, Source, WeightedOffer
from postbackd.core.params import CLICK_NAMES, POSTBACK_NAMES, FieldMap
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


def test_presets_are_listed_and_shown(run: Run) -> None:
    assert len(run("presets", "list", "--json").json) == 50
    assert "propellerads" in run("presets", "list", "--role", "source").out
    assert "propellerads" not in run("presets", "list", "--role", "network").out
    assert run("presets", "show", "propellerads", "--json").json["fields"]["source_click_id"] == "${SUBID}"
    assert "{aff_sub}" in run("presets", "show", "TUNE").out
    assert "there is no preset" in run("presets", "show", "nope", code=1).err
