"""A probe finds an injected delay in its phase, names faults by kind, and says of duplicates what the answers say."""

from __future__ import annotations

import json
import socket
from collections import Counter
from pathlib import Path
from time import time
from typing import Any

import msgspec
import pytest

from postbackd.core.exchange import PHASES
from postbackd.core.percentiles import Spread, spread_of, write_ms
from postbackd.exchanges.places import (
    PlacesError,
    Result,
    compare_places,
    merge_results,
    read_results,
    slowest_hop,
)
from postbackd.exchanges.postback import Endpoint
from postbackd.exchanges.probing import OddProbe, Probed, Prober, Series, Wanted, mark_url
from tests.delivery.targets import OK, answers, target
from tests.exchanges.places import (
    DELAY_S,
    Answering,
    late_tls,
    run,
    server_tls,
    tracker,
    trust_file,
    trusting,
)


async def look(url: str, authorities: str | None = None, **wanted: Any) -> Probed:
    chosen = Wanted(**{"tries": 3, "rate": 500.0, "timeout_ms": 2000, **wanted}, authorities=authorities)
    return await Prober(Endpoint(url=url), chosen, trusting(), lambda: int(time() * 1000)).look()


def cold(probed: Probed) -> Series:
    return next(series for series in probed.series if series.name == "cold")


# --- phases ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slow", [True, False], ids=["slow", "control"])
def test_a_slow_handshake_is_named_as_the_slowest_hop(slow: bool) -> None:
    async def work() -> None:
        async with late_tls(DELAY_S if slow else 0.0) as url:
            found = await look(url, tries=3)
        tls = cold(found).phases["tls"]
        assert (tls.p50 is not None and tls.p50 > 900 * DELAY_S) is slow
        assert cold(found).phases["first_byte"].most < 900 * DELAY_S  # type: ignore[operator]
        assert slowest_hop(cold(found)).startswith("the slowest hop is TLS") or not slow
        kept = next(series for series in found.series if series.name == "kept")
        assert "tls" not in kept.phases
        assert kept.tries == kept.phases["total"].tries == 3

    run(work())


def test_what_is_found_of_an_endpoint_with_tls(tmp_path: Path) -> None:
    async def work() -> None:
        async with target(answers(OK), server_tls()) as place:
            found = await look(f"https://localhost:{place.port}/p", trust_file(tmp_path))
            sent = [request.split(b" ")[1] for request in place.requests]
        assert {finding.check: finding.ok for finding in found.certificate} == {
            "chain": True, "name": True, "expiry": True, "protocols": True,
        }  # fmt: skip
        assert (found.tls, found.http) == ("TLSv1.3", ["HTTP/1.1"])
        assert found.answer_bytes == len(OK)
        assert "127.0.0.1" in found.addresses["IPv4"]
        assert all(b"click_id=test_click&" in one for one in sent)
        assert len(set(sent)) > 6  # a transaction id of its own each

    run(work())


def test_a_certificate_that_is_not_trusted_is_an_error_of_its_kind_and_nothing_is_sent() -> None:
    async def work() -> None:
        async with target(answers(OK), server_tls("other.example")) as place:
            found = await look(f"https://localhost:{place.port}/p/secret")
            assert place.requests == []
        assert cold(found).errors == {"certificate": 3}
        assert not found.certificate[0].ok

    run(work())


def test_time_outs_and_refusals_are_counted_by_kind() -> None:
    async def work() -> None:
        async def silent(talk: Any) -> None:
            await talk.silence()

        async with target(silent) as place:
            assert cold(await look(place.url("/"), timeout_ms=100)).errors == {"time-out": 3}
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        found = await look(f"http://127.0.0.1:{port}/")
        assert (cold(found).errors, cold(found).answered) == ({"connect": 3}, 0)
        assert (await look("http://nothing.invalid/")).dns_error

    run(work())


def test_an_endpoint_that_closes_each_connection_is_said_to() -> None:
    async def work() -> None:
        async with target(answers(OK, close=True)) as place:
            found = await look(place.url("/"))
        kept = next(series for series in found.series if series.name == "kept")
        assert (kept.reconnected, kept.phases) == (3, {})

    run(work())


def test_a_percentile_of_too_few_tries_is_not_shown() -> None:
    few, some, many = (spread_of([float(n) for n in range(1, count + 1)]) for count in (19, 20, 100))
    assert (few.p50, few.p95, few.p99) == (10.0, None, None)
    assert (some.p95, some.p99) == (19.0, None)
    assert (many.p50, many.p95, many.p99, many.most) == (50.0, 95.0, 99.0, 100.0)
    assert write_ms(few.p95, few.tries, 95) == "<20 tries"


# --- what may count ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "marked"),
    [
        ("https://t.example/p/key", "https://t.example/p/key"),
        ("https://t.example/?c={click_id}&k=v", "https://t.example/?c={click_id}&k=v"),
        ("https://t.example/?k=v&SubID=real&tid=7", "https://t.example/?k=v&SubID={click_id}&tid={txid}"),
        ("https://t.example/?clickid=real", "https://t.example/?clickid={click_id}&txid={txid}"),
    ],
)
def test_a_click_id_in_the_url_gives_way_to_a_test(url: str, marked: str) -> None:
    assert mark_url(url) == marked


@pytest.mark.parametrize("url", ["https://t.example/?kid=real", "https://t.example/?v={value}"])
def test_a_url_whose_click_id_is_not_known_is_refused_because_it_may_count(url: str) -> None:
    with pytest.raises(OddProbe, match="write"):
        mark_url(url)


# --- duplicates and unknown ids ----------------------------------------------------------------------------------


def honest(seen: Counter[str]) -> Answering:
    def answering(method: str, said: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if said["click_id"] != "real":
            return 200, {"verdict": "unmatched", "reason": "click_id_foreign"}
        seen[said["txid"]] += 1
        word = "accepted" if seen[said["txid"]] == 1 else "duplicate"
        return 200, {"verdict": word, "conversion": f"of {said['txid']}"}

    return answering


def lying(seen: Counter[str]) -> Answering:
    def answering(method: str, said: dict[str, str]) -> tuple[int, dict[str, Any]]:
        seen["all"] += 1
        return 200, {"verdict": "accepted", "conversion": f"number {seen['all']}"}

    return answering


def silent(seen: Counter[str]) -> Answering:
    return lambda method, said: (200, {"status": "ok"})


def failing(seen: Counter[str]) -> Answering:
    def answering(method: str, said: dict[str, str]) -> tuple[int, dict[str, Any]]:
        seen[said["txid"]] += 1
        return (200 if seen[said["txid"]] == 1 else 500), {}

    return answering


@pytest.mark.parametrize(
    ("make", "words", "detail"),
    [
        (honest, ["right", "right"], "accepted, then duplicate"),
        (lying, ["wrong", "wrong"], "counted again as another conversion"),
        (silent, ["not told", "not told"], "not said whether it was counted twice"),
        (failing, ["wrong", "not told"], "a repeat is answered with an error"),
    ],
)
def test_how_duplicates_and_unknown_ids_are_answered_is_judged(
    make: Any, words: list[str], detail: str
) -> None:
    async def work() -> None:
        async with target(tracker(make(Counter()))) as place:
            found = await look(place.url("/p"), tries=1, click_id="real", unknown=True)
        assert [checked.word for checked in found.checks] == words
        assert detail in found.checks[0].detail

    run(work())


# --- several places -----------------------------------------------------------------------------------------------


def result(place: str, **medians: float) -> Result:
    phases: dict[str, Spread] = {phase: spread_of([medians.get(phase, 1.0)] * 20) for phase in PHASES}
    series = Series(name="cold", family="IPv4", tries=20, answered=20, phases=phases)
    probed = Probed(url="https://t.example/p", print="same", series=[series])
    return Result(postbackd_probe=1, place=place, at="", endpoints=[probed])


def test_places_are_put_together_and_the_hop_that_makes_the_difference_is_named() -> None:
    (merged,) = merge_results([result("far", tls=90.0, total=120.0), result("near", total=4.0)])
    assert [row.place for row in merged.rows] == ["near", "far"]
    said = compare_places(merged)
    assert said.startswith("slowest from far (120 ms), fastest from near (4.00 ms)")
    assert "most of the difference is TLS" in said


def test_a_place_that_was_answered_nothing_is_named_with_the_reason() -> None:
    dead = Series(name="cold", family="IPv4", tries=2, errors={"connect": 2}, example="connection refused")
    probed = Probed(url="u", print="same", series=[dead])
    (merged,) = merge_results(
        [result("near"), Result(postbackd_probe=1, place="dark", at="", endpoints=[probed])]
    )
    assert merged.unseen == ["dark: connection refused"]


def test_results_are_read_back_and_others_are_refused(tmp_path: Path) -> None:
    good, twin, junk, later = (tmp_path / name for name in ("a", "b", "c", "d"))
    for path in (good, twin):
        path.write_bytes(msgspec.json.encode(result("near")))
    junk.write_text('{"x":1}')
    later.write_text(json.dumps({**msgspec.to_builtins(result("x")), "postbackd_probe": 2}))
    assert read_results([good])[0].endpoints[0].series[0].phases["total"].tries == 20
    for paths, said in (
        ([good, twin], "its own --place"),
        ([junk], "not written by"),
        ([later], "later version"),
    ):
        with pytest.raises(PlacesError, match=said):
            read_results(paths)
    with pytest.raises(PlacesError, match="No such file"):
        read_results([tmp_path / "none"])
