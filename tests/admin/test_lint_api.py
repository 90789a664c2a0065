"""``POST /lint``: URLs as they are pasted, with what the catalog knows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.admin.site import Site

KEY = "gydvyc1mfycvvpt0h9sp38tdze"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("lint") / "data") as running:
        network = {"name": "Adnet", "key": KEY, "preset": "tune"}
        assert running.ask("POST", "/api/v1/networks", network).status == 201
        offer = {
            "name": "Shoes",
            "network": "Adnet",
            "url": "https://shop.example.com/?sub1={source_click_id}",
        }
        answer = running.ask("POST", "/api/v1/offers", offer)
        assert answer.status == 201
        (warning,) = answer.json["warnings"]
        assert warning.startswith("The offer URL does not hand {click_id} on")
        assert warning.endswith("Put {click_id} into the parameter aff_sub.")
        yield running


def test_urls_are_looked_at_with_the_network_that_their_key_names(site: Site) -> None:
    urls = [
        f"https://track.example.com/p/{KEY}?click_id=[aff_sub]",
        f"https://track.example.com/p/{'x' * 26}?click_id={{x}}",
    ]
    answer = site.ask("POST", "/api/v1/lint", {"urls": urls}, {"Scopes": "read"})
    assert answer.status == 200
    first, second = answer.json
    assert (first["whose"], first["kind"], first["ok"]) == ("TUNE (HasOffers)", "postback", False)
    assert first["mended"] == f"https://track.example.com/p/{KEY}?click_id={{aff_sub}}"
    (flaw,) = [one for one in first["flaws"] if one["check"] == "macro_delimiter"]
    assert (flaw["text"], urls[0][flaw["start"] : flaw["end"]], flaw["mended"]) == (
        "[aff_sub]",
        "[aff_sub]",
        True,
    )
    assert [one["check"] for one in second["flaws"]] == ["address_unknown"]


def test_whoever_may_look_may_lint_and_nobody_else(site: Site) -> None:
    body = {"urls": ["https://x.example"]}
    assert site.ask("POST", "/api/v1/lint", body, {"Scopes": "nobody"}).status == 401
    assert site.ask("POST", "/api/v1/lint", body, {"Scopes": "operate"}).status == 403


def test_what_is_asked_at_every_keystroke_is_not_in_the_audit_log(site: Site) -> None:
    site.ask("POST", "/api/v1/lint", {"urls": ["https://x.example"]})
    noted = {endpoint for _, endpoint, _ in site.doorkeeper.noted}
    assert "POST /networks" in noted
    assert "POST /lint" not in noted


@pytest.mark.parametrize(
    ("more", "status", "field"),
    [
        ({"network": "Nobody"}, 422, "network"),
        ({"preset": "tune", "network": "Adnet"}, 422, "preset"),
        ({"preset": "rich"}, 422, "preset"),
        ({"kind": "pixel"}, 400, "kind"),
        ({"urls": []}, 400, "urls"),
        ({"urls": ["x" * 9000]}, 400, "urls[0]"),
    ],
)
def test_what_cannot_be_asked_is_answered_with_the_field_and_what_there_is(
    site: Site, more: dict[str, object], status: int, field: str
) -> None:
    answer = site.ask("POST", "/api/v1/lint", {"urls": ["https://x.example"], **more})
    assert (answer.status, answer.json["field"]) == (status, field)
    if more == {"preset": "rich"}:
        assert "richads-push, richads-pops" in answer.json["detail"]
