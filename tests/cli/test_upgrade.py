"""A server of the version before and one of this version on one database; the one of before is taken from the history.

What is old here is real: the program as it was just before the newest migration was written, and the schema that it
makes.  So whoever adds a migration that cannot be used beside the version before hears of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from postbackd.store.postgres_schema import migrations
from tests.cli.conftest import Run
from tests.cli.test_postgres import Node, until
from tests.postgres_server import VERSIONS, new_database

pytestmark = pytest.mark.skipif(not VERSIONS, reason="no PostgreSQL 15 or newer was found")

ROOT = Path(__file__).parents[2]
NEWEST = migrations()[-1]
FILE = f"src/postbackd/store/migrations/postgres/{NEWEST.number:04}_{NEWEST.name}.sql"


def git(*arguments: str) -> bytes:
    """What git says; nothing where it knows nothing."""
    if shutil.which("git") is None:
        return b""
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True).stdout


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the program as it was before the newest migration."""
    made = git("log", "--diff-filter=A", "--format=%H", "-1", "--", FILE).decode().strip()
    archived = git("archive", f"{made}^", "src") if made else b""
    if not archived:
        pytest.skip("the history of the project is not here: a shallow clone, or no clone at all")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=BytesIO(archived)) as files:
        files.extractall(folder, filter="data")
    return folder / "src"


Start = Callable[..., Node]


@pytest.fixture
def start(tmp_path: Path, before: Path) -> Iterator[Start]:
    """Starts ``postbackd ingest`` of the one version or the other; all are stopped at the end."""
    nodes: list[Node] = []

    def starting(store: str, name: str, *, old: bool) -> Node:
        if old:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PYTHONPATH", os.pathsep.join([str(before), os.environ.get("PYTHONPATH", "")]))
                node = Node(tmp_path / name, store, "")
        else:
            node = Node(tmp_path / name, store, "")
        nodes.append(node)
        node.wait()
        return node

    yield starting
    for node in nodes:
        if node.process.poll() is None:
            node.stop()


def pending(run: Run, store: str) -> list[int]:
    """The numbers of the migrations that are to be applied, as this version sees it."""
    asked = run("db", "status", "--json", "--store", store, code=None)
    return [step["number"] for step in asked.json["pending"]]


def test_the_version_before_and_this_one_run_side_by_side_and_count_once(run: Run, start: Start) -> None:
    store = new_database(VERSIONS[0])
    old = start(store, "old", old=True)
    assert pending(run, store) == [NEWEST.number]
    refused = run("network", "list", "--store", store, code=1)
    assert "postbackd db migrate" in refused.err

    new = start(store, "new", old=False)  # applies what is pending, beside the old one
    assert pending(run, store) == []
    for words in (
        ("network", "add", "N", "--json"),
        ("source", "add", "S"),
        ("offer", "add", "O", "--network", "N", "--url", "https://shop.example/?c={click_id}"),
        ("campaign", "add", "C", "--source", "S", "--offer", "O"),
    ):
        run(*words, "--store", store)
    key = run("network", "list", "--json", "--store", store).json[0]["key"]
    for node in (old, new):  # both hear of a catalog that this version has changed
        until(lambda node=node: node.get("/c/c")[0] == 302)  # type: ignore[misc]

    def postback(node: Node, query: str) -> str:
        return str(json.loads(node.get(f"/p/{key}?{query}&unknown=1")[2])["verdict"])

    clicks = [node.get("/c/c")[1]["Location"].rpartition("=")[2] for node in (old, new)]
    said = [
        postback(node, f"click_id={click}&txid=T&value=2") for click in clicks for node in (new, old, new)
    ]
    assert said == ["accepted", "duplicate", "duplicate"] * 2
    steps = ((new, "pending"), (old, "approved"), (new, "reversed"))
    said = [postback(node, f"click_id={clicks[0]}&txid=P&status={word}") for node, word in steps]
    assert said == ["accepted", "updated", "updated"]

    old.stop()
    again = start(store, "old", old=True)  # one that is started on the schema of this version
    assert postback(again, f"click_id={clicks[1]}&txid=T&value=2") == "duplicate"
    assert postback(again, f"click_id={clicks[1]}&txid=T2&value=3") == "accepted"
    assert postback(new, f"click_id={clicks[1]}&txid=T2&value=3") == "duplicate"
    assert "0 findings" in run("verify", "--store", store).out
