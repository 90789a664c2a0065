"""A comparison treats all alike, names what is wrong, counts time-outs, and sends to nobody unasked."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from time import time
from typing import Any

import msgspec
import pytest

from postbackd.core.certificates import Term
from postbackd.core.endpoint import Seen
from postbackd.core.exchange import Exchange
from postbackd.core.manners import Checked, judge_parallel
from postbackd.core.percentiles import spread_of
from postbackd.core.tls_grade import grade_tls
from postbackd.exchanges.comparing import Compared, Comparison, find_strangers
from postbackd.exchanges.comparison_page import write_page
from postbackd.exchanges.places import Merged, Row
from postbackd.exchanges.places_page import write_places_page
from postbackd.exchanges.plan import EXAMPLE, Entry, Plan, PlanError, Schedule, read_plan
from postbackd.exchanges.probing import Series
from tests.delivery.targets import OK, Script, Talk, answers, target
from tests.exchanges.places import Answering, run, tracker, trusting

QUICK = Schedule(conversions=6, rate=50, copies=4, timeout_ms=1000)


async def compare(
    script: Script, query: str = "", schedule: Schedule = QUICK, **entry: Any
) -> tuple[Compared, list[bytes]]:
    async with target(script) as place:
        url = place.url(f"/p{query}")
        plan = Plan(schedule=schedule, endpoint=(Entry(name="one", url=url, **entry),))
        (found,) = await Comparison(plan, {None: trusting()}, lambda: int(time() * 1000)).run()
        return found, place.requests


def judged(found: Compared) -> dict[str, str]:
    return {checked.check: checked.word for checked in found.checks}


# --- behaviour ---------------------------------------------------------------------------------------------------


def careful(seen: Counter[str]) -> Answering:
    """Counts each transaction id of a known click once, and explains the rest."""

    def answering(method: str, said: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if method == "POST":
            return 400, {"error": "not JSON"}
        wrong = said.get("click_id") != "real" or "x" in said["value"] or len(said["txid"]) > 100
        if wrong:
            return 200, {"verdict": "rejected", "reason": "no good"}
        seen[said["txid"]] += 1
        return 200, {
            "verdict": "accepted" if seen[said["txid"]] == 1 else "duplicate",
            "conversion": said["txid"],
        }

    return answering


def careless(seen: Counter[str]) -> Answering:
    def answering(method: str, said: dict[str, str]) -> tuple[int, dict[str, Any]]:
        seen["all"] += 1
        return 200, {"verdict": "accepted", "conversion": f"number {seen['all']}"}

    return answering


CHECKS = (
    "duplicate",
    "parallel copies",
    "missing id",
    "literal macro",
    "bad value",
    "long value",
    "bad JSON",
)


@pytest.mark.parametrize(("make", "word"), [(careful, "right"), (careless, "wrong")])
def test_an_endpoint_that_is_careful_and_one_that_counts_everything_are_told_apart(
    make: Any, word: str
) -> None:
    async def work() -> None:
        found, _ = await compare(tracker(make(Counter())), click_ids=("real",))
        assert judged(found) == dict.fromkeys(CHECKS, word)
        assert (found.tries, found.taken, found.outcomes) == (6, 6, {"accepted": 6})

    run(work())


def test_one_that_answers_200_to_everything_is_not_judged() -> None:
    async def work() -> None:
        found, requests = await compare(answers(OK), "?c={click_id}&t={txid}")
        assert set(judged(found).values()) == {"not told"}
        assert found.outcomes == {"delivered": 6}
        assert found.left_out == ["type", "value", "currency"]
        lines = [request.split(b" ")[1] for request in requests]
        assert all(b"c=test_click&" in line for line in lines[:6])  # test ids, unless the file names others
        assert len(set(lines[:6])) == 6

    run(work())


def copies(*said: tuple[str, str]) -> Checked:
    bodies = [json.dumps({"verdict": verdict, "conversion": name}).encode() for verdict, name in said]
    return judge_parallel([Exchange(status=200, body=body, sent=True) for body in bodies])


def test_copies_at_once_are_right_only_when_one_of_them_is_counted() -> None:
    assert copies(("accepted", "a"), ("duplicate", "a"), ("duplicate", "a")).ok
    assert copies(("accepted", "a"), ("accepted", "b")).ok is False
    assert copies(("accepted", ""), ("accepted", "")).ok is False
    assert copies(("accepted", "a"), ("duplicate", "b")).ok is False
    assert judge_parallel([Exchange(status=200), Exchange(status=500)]).ok is False


def test_a_slow_answer_does_not_hold_up_the_schedule_and_misses_its_window() -> None:
    async def work() -> None:
        arrived: list[float] = []
        loop = asyncio.get_running_loop()

        async def slow(talk: Talk) -> None:
            while await talk.request():
                arrived.append(loop.time())
                await asyncio.sleep(0.6 if len(arrived) <= 4 else 0)
                await talk.say(OK)

        found, _ = await compare(slow, schedule=Schedule(conversions=6, rate=50, copies=2, timeout_ms=1000))
        assert found.within == {"500": 2, "2000": 6}
        assert arrived[5] - arrived[0] < 0.5

    run(work())


def test_what_times_out_is_counted_and_nothing_more_is_tried_where_nobody_answers() -> None:
    async def work() -> None:
        async def silent(talk: Talk) -> None:
            await talk.silence()

        found, _ = await compare(silent, schedule=Schedule(conversions=3, rate=50, copies=2, timeout_ms=100))
        assert found.outcomes == {"time-out": 3}
        assert judged(found) == {"behaviour": "not told"}

    run(work())


def test_an_endpoint_that_refuses_everything_is_not_praised_for_refusing_what_is_wrong() -> None:
    async def work() -> None:
        gone = answers(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
        found, _ = await compare(gone, schedule=Schedule(conversions=3, rate=50, copies=2, timeout_ms=1000))
        assert (found.taken, judged(found)) == (0, {"behaviour": "not told"})
        assert "HTTP 404" in found.checks[0].detail

    run(work())


# --- whom it is sent to ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "own", "strange"),
    [
        ("http://127.0.0.1:1/", False, False),
        ("http://[::1]/", False, False),
        ("http://10.1.2.3/", False, False),
        ("http://8.8.8.8/", False, True),
        ("http://[::ffff:8.8.8.8]/", False, True),
        ("http://nothing.invalid/", False, True),
        ("http://8.8.8.8/", True, False),
    ],
)
def test_a_host_is_a_strangers_unless_it_is_near_or_said_to_be_own(
    url: str, own: bool, strange: bool
) -> None:
    async def work() -> None:
        plan = Plan(endpoint=(Entry(name="one", url=url, own=own),))
        assert bool(await find_strangers(plan)) is strange

    run(work())


# --- the file ----------------------------------------------------------------------------------------------------


def test_the_example_is_a_plan_that_sends_tests(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(EXAMPLE)
    plan = read_plan(path)
    assert [entry.click_ids for entry in plan.endpoint] == [(), ()]
    assert plan.schedule.conversions == 30


ONE = '[[endpoint]]\nname = "a"\nurl = "http://127.0.0.1/"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there are 0"),
        ("x", "not TOML"),
        ("[shedule]\n" + ONE, "did you mean 'schedule'"),
        ("[schedule]\nraet = 5\n" + ONE, "did you mean 'rate'"),
        (ONE + "onw = true\n", "did you mean 'own'"),
        (ONE + "own = 1\n", "bool"),
        (ONE + ONE, "two [[endpoint]]"),
        ("[schedule]\nrate = 500\n" + ONE, "write 0.1 to 50"),
        ("[schedule]\nconversions = 0\n" + ONE, "write 1 to 1000"),
        (ONE.replace("http", "ftp"), "use https:// or http://"),
        (ONE.replace(".1/", ".1/?c={value}"), "no {click_id}"),
        (ONE + 'success = ["(a+)+"]\n', "may take for ever"),
    ],
)
def test_a_plan_that_is_not_right_is_refused_with_what_to_change(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(PlanError, match=re.escape(said)):
        read_plan(path)


# --- the page ----------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """What a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag] += 1
        assert not [name for name, _ in attrs if name.startswith("on") or name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_has_charts_and_holds_what_an_endpoint_said_as_text_only() -> None:
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    found = Compared(
        name=evil, url=evil, addresses=[evil], tries=3, taken=1, outcomes={evil: 3}, example=evil,
        times_ms=[1.0, 20.0, 700.0], within={"500": 2, "2000": 3}, checks=[Checked(check=evil, ok=False, detail=evil)],
    )  # fmt: skip
    page = Tags()
    text = write_page(
        [found, msgspec.structs.replace(found, name="dead", times_ms=[], tries=0)], QUICK, "now"
    )
    page.feed(text)
    assert page.found["script"] == page.found["img"] == page.found["link"] == 0
    assert page.found["svg"] == 3
    assert page.found["circle"] == 3
    assert evil in page.text
    assert "default-src 'none'" in text
    assert "prefers-color-scheme:dark" in text


def test_a_page_of_places_holds_what_a_result_said_as_text_only() -> None:
    evil = "</title><script>alert(1)</script>"
    series = Series(name="cold", family=evil, tries=3, answered=3, phases={"dns": spread_of([1.0, 2.0, 3.0])})
    merged = Merged(url=evil, rows=[Row(place=evil, series=series)], unseen=[evil])
    page = Tags()
    page.feed(write_places_page([merged, Merged(url="dead", rows=[], unseen=["x: y"])], [evil]))
    assert (page.found["script"], page.found["svg"]) == (0, 2)
    assert evil in page.text


# --- grades ------------------------------------------------------------------------------------------------------

DAY_MS = 86_400_000
TERM = Term(("shop.example",), 0, 90 * DAY_MS)
GOOD = Seen(
    host="shop.example", port=443, now_ms=10 * DAY_MS, term=TERM,
    protocols={"TLSv1": False, "TLSv1.1": False, "TLSv1.2": True, "TLSv1.3": True},
)  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "letter", "reason"),
    [
        ({}, "A", ""),
        ({"protocols": {"TLSv1.2": True, "TLSv1.3": False}}, "B", "does not offer TLSv1.3"),
        ({"now_ms": 85 * DAY_MS}, "B", "ends in 5.0 days"),
        ({"protocols": {"TLSv1": True, "TLSv1.2": True, "TLSv1.3": True}}, "C", "offers TLSv1"),
        ({"chain_error": "certificate has expired"}, "F", "expired"),
        ({"host": "other.example"}, "F", "the certificate is for shop.example"),
        ({"term": None}, "F", "no certificate"),
    ],
)
def test_a_grade_has_its_reason(changed: dict[str, Any], letter: str, reason: str) -> None:
    grade = grade_tls(msgspec.structs.replace(GOOD, **changed))
    assert grade.letter == letter
    assert reason in "; ".join(grade.reasons)
