"""Each recipe in ``clients/recipes``, run by its own runtime against the real server over https."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.client.https_tracker import Tracker, tracker
from tests.client.recipes import LANGUAGES, RECIPES, ROOT, Done, Recipes, busy_at_first, need

every_language = pytest.mark.parametrize("language", LANGUAGES)

CANONICAL = json.loads((ROOT / "spec" / "vectors" / "signatures.json").read_text("utf-8"))["canonical"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    with tracker(tmp_path_factory.mktemp("tracker")) as running:
        yield running


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Recipes:
    return Recipes(tmp_path_factory.mktemp("recipes"))


@every_language
def test_a_postback_is_accepted_and_the_same_again_is_a_duplicate(
    language: str, recipes: Recipes, place: Tracker
) -> None:
    need(language)
    click_id = place.click()
    words = (f"click_id={click_id}", f"txid=A/1 {language}&é", "type=sale", "value=12.50", "currency=EUR")
    first, again = (recipes.send(language, place.url, *words, trust=place.trust) for _ in range(2))
    assert first == Done(0, "accepted", "")
    assert again == Done(0, "duplicate", "")


@every_language
def test_a_signed_postback_is_accepted_and_without_its_secret_it_is_not(
    language: str, recipes: Recipes, place: Tracker
) -> None:
    need(language)
    words = (f"click_id={place.click()}", "txid=S 1*'()~!", "sub_id=ü&=+/", "value=1", "status=")
    unsigned = recipes.send(language, place.signed_url, *words, trust=place.trust)
    assert unsigned.status == 1
    signed = recipes.send(language, place.signed_url, *words, secret=place.secret, trust=place.trust)
    assert signed == Done(0, "accepted", "")


@every_language
def test_a_key_that_nobody_has_is_said_with_the_next_step(
    language: str, recipes: Recipes, place: Tracker
) -> None:
    need(language)
    done = recipes.send(language, place.stranger, "click_id=x", "txid=1", trust=place.trust)
    assert (done.status, done.said) == (1, "")
    assert "404" in done.complained
    assert "postbackd network list" in done.complained


@every_language
def test_what_cannot_be_matched_is_said_with_its_reason(
    language: str, recipes: Recipes, place: Tracker
) -> None:
    need(language)
    done = recipes.send(language, place.url, "click_id={clickid}", "txid=1", trust=place.trust)
    assert (done.status, done.said) == (1, "")
    assert "unmatched: macro_literal" in done.complained


@every_language
def test_nothing_is_sent_without_a_transaction_id(language: str, recipes: Recipes) -> None:
    need(language)
    done = recipes.send(language, "http://127.0.0.1:1/p/k", "click_id=c")
    assert done.status == 1  # and not 75: nobody was asked
    assert "txid" in done.complained


def test_nothing_is_sent_to_a_server_whose_certificate_is_not_trusted(
    recipes: Recipes, place: Tracker
) -> None:
    languages = [language for language in LANGUAGES if need(language)]
    click_id = place.click()

    def send(language: str) -> Done:
        return recipes.send(language, place.url, f"click_id={click_id}", "txid=1")

    recipes.prepare(languages)
    with ThreadPoolExecutor() as pool:  # each waits between its tries
        done = dict(zip(languages, pool.map(send, languages), strict=True))
    for language, ended in done.items():
        assert (ended.status, ended.said) == (75, ""), language
        assert "again later" in ended.complained
        assert "certificate" in ended.complained.lower() or language == "curl", ended.complained
    assert place.logged(click_id) == []


def test_a_busy_tracker_is_sent_the_same_transaction_id_again(recipes: Recipes) -> None:
    languages = [language for language in LANGUAGES if need(language)]
    recipes.prepare(languages)
    with busy_at_first() as busy, ThreadPoolExecutor() as pool:

        def send(language: str) -> Done:
            url = f"http://127.0.0.1:{busy.port}/p/{language}"
            return recipes.send(language, url, "click_id=c", "txid=A-1", secret="pbs_secret")

        done = dict(zip(languages, pool.map(send, languages), strict=True))
    for language in languages:
        assert done[language] == Done(0, "accepted", ""), language
        (first, signature), (again, _) = busy.of(f"/p/{language}")
        assert first == again
        assert "txid=A-1" in first
        assert signature.startswith("t=")


@every_language
def test_a_recipe_signs_the_cases_of_the_specification_alike(language: str, recipes: Recipes) -> None:
    need(language)
    # The one in a shell encodes and sorts what it is given, and has no reader of queries.
    cases = [
        case | {"query": case["text"].split("\n")[3]} if language == "curl" else case for case in CANONICAL
    ]
    assert len(cases) >= 6
    assert recipes.sign_all(language, cases) == [case["signature"] for case in cases]


def test_the_table_of_recipes_names_every_file() -> None:
    table = (RECIPES / "README.md").read_text("utf-8")
    names = {path.name for path in RECIPES.iterdir()} - {"README.md"}
    assert names == {name for name in names if f"({name})" in table}
