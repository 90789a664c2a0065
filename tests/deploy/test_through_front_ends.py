"""Clicks and conversions through the shipped front ends to two real nodes on one PostgreSQL database."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tests.commands import run_here
from tests.deploy.fronts import CLICK, MAKERS, POSTBACK, Front
from tests.deploy.nodes import Cluster, cluster
from tests.trust.server import wait_until

SENDERS = 4
A_FEW = 40
"""Requests that have to be answered before and after a server is stopped."""


@dataclass(frozen=True)
class Site:
    """A front end before the two nodes."""

    front: Front
    cluster: Cluster

    def click(self) -> str:
        """The id of a new click."""
        answer = self.front.ask(CLICK, f"/c/{self.cluster.catalog.slug}?source_click_id=s-1")
        assert answer.status == 302
        return answer.headers["location"].rpartition("=")[2]

    def postback(self, click_id: str, txid: str, method: str = "GET") -> dict[str, Any]:
        """The verdict of a conversion."""
        query = f"click_id={click_id}&txid={txid}&value=12.50"
        target = f"/p/{self.cluster.catalog.key}"
        if method == "GET":
            answer = self.front.ask(POSTBACK, f"{target}?{query}")
        else:
            answer = self.front.ask(POSTBACK, target, "POST", query.encode())
        assert answer.status == 200, answer
        document: dict[str, Any] = json.loads(answer.body)
        return document

    def counted(self) -> int:
        """The conversions in the database."""
        done = run_here(self.cluster.directory / "unused", "report", "--json", env=self.cluster.environment)
        assert done.returncode == 0, done.stderr
        count: int = json.loads(done.stdout)["conversions"]["count"]
        return count


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(params=sorted(MAKERS))
def site(request: pytest.FixtureRequest, nodes: Cluster, tmp_path: Path) -> Iterator[Site]:
    with MAKERS[request.param](tmp_path, nodes.addresses) as front:
        yield Site(front, nodes)


def test_a_click_is_redirected_and_its_conversion_counted_once_whichever_node_is_asked(site: Site) -> None:
    before = site.counted()
    click_id = site.click()
    verdicts = [site.postback(click_id, "T-1", method) for method in ("GET", "POST", "GET", "POST")]
    assert [verdict["verdict"] for verdict in verdicts] == ["accepted"] + ["duplicate"] * 3
    assert len({verdict["conversion"] for verdict in verdicts}) == 1
    assert site.counted() == before + 1


def test_a_click_from_a_server_and_the_browser_pixel_work_too(site: Site) -> None:
    made = site.front.ask(CLICK, f"/c/{site.cluster.catalog.slug}", "POST", b'{"source_click_id":"s"}')
    assert made.status == 201
    click_id = json.loads(made.body)["click_id"]
    pixel = site.front.ask(POSTBACK, f"/p/{site.cluster.catalog.key}/pixel.gif?click_id={click_id}")
    assert (pixel.status, pixel.headers["content-type"]) == (200, "image/gif")
    assert pixel.headers["postbackd-verdict"] == "accepted"


def test_a_path_that_climbs_out_of_its_name_counts_nothing(site: Site) -> None:
    before, click_id, key = site.counted(), site.click(), site.cluster.catalog.key
    for target in (f"/c/../p/{key}", f"/c/%2e%2e/p/{key}", f"/c/spring/..%2f..%2fp/{key}", f"/c//../p/{key}"):
        assert site.front.ask(CLICK, f"{target}?click_id={click_id}&txid=climb").status == 404
    for target in (f"/p/{key}/../../c/spring", f"/p/{key}/../../c/spring/pixel.gif"):
        assert site.front.ask(CLICK, f"{target}?click_id={click_id}&txid=climb").status == 404
    assert site.counted() == before


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_node_that_ends_under_load_costs_no_request_and_no_conversion(
    site: Site, how: signal.Signals
) -> None:
    before = site.counted()
    stopped = site.cluster.nodes[0]
    try:
        verdicts = send_while(site, lambda: stopped.stop(how), name=how.name)
    finally:
        stopped.start()
    assert {verdict for verdict in verdicts if verdict != "duplicate"} == {"accepted"}
    # A duplicate was stored by the killed node, which had no time to say so.
    assert verdicts.count("duplicate") == 0 or how is signal.SIGKILL
    assert site.counted() == before + len(verdicts)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_without_another_try_the_same_end_of_a_node_is_seen_by_senders(
    nodes: Cluster, tmp_path: Path, name: str
) -> None:
    """The control: what counts the failed requests can see them."""

    def give_up_at_once(text: str) -> str:
        text = text.replace(
            "proxy_next_upstream error timeout http_503 non_idempotent;", "proxy_next_upstream off;"
        )
        return (
            text.replace("retries 2", "retries 0")
            .replace("option redispatch 1", "")
            .replace("retry-on conn", "#")
        )

    with MAKERS[name](tmp_path, nodes.addresses, "", give_up_at_once) as front:
        stopped = nodes.nodes[0]
        try:
            with pytest.raises(AssertionError, match=r"status=50[234]"):
                send_while(Site(front, nodes), lambda: stopped.stop(signal.SIGKILL), name=f"control-{name}")
        finally:
            stopped.start()


def send_while(site: Site, disturb: Callable[[], None], name: str) -> list[str]:
    """Conversions from several senders, half of them POST, around a disturbance; each has to be answered with 200."""
    over = Event()
    verdicts: list[str] = []
    click_ids = [site.click() for _ in range(SENDERS)]

    def send(sender: int) -> None:
        number = 0
        while not over.is_set():
            number += 1
            method = "POST" if number % 2 else "GET"
            verdicts.append(site.postback(click_ids[sender], f"{name}-{sender}-{number}", method)["verdict"])

    with ThreadPoolExecutor(SENDERS) as pool:
        sending = [pool.submit(send, sender) for sender in range(SENDERS)]

        def answered(count: int) -> None:
            wait_until(
                lambda: len(verdicts) >= count or any(done.done() for done in sending), 30, f"{count} answers"
            )

        try:
            answered(A_FEW)
            disturb()
            answered(len(verdicts) + A_FEW)
        finally:
            over.set()
        for done in sending:
            done.result()  # raises what a sender met
    return verdicts


def test_a_node_that_is_back_is_asked_again(site: Site) -> None:
    stopped, other = site.cluster.nodes
    stopped.stop()
    assert site.postback(site.click(), "back-1")["verdict"] == "accepted"
    stopped.start()
    other.stop()
    try:

        def served() -> bool:
            answer = site.front.ask(POSTBACK, f"/p/{site.cluster.catalog.key}?click_id=x")
            return answer.status == 200

        wait_until(served, 20, "an answer of the node that is back")
    finally:
        other.start()
