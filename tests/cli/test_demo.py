"""``postbackd demo``: a month that looks real, is apart, and agrees with its own truth."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from postbackd.market.place import LOCK, MARKER, TRUTH, Made, write_marker
from tests.cli.conftest import Run
from tests.trust.server import clean_environment, wait_until

CLICKS = "2500"


@pytest.fixture
def home(data: Path) -> Path:
    return data / "demo"


def agree(run: Run, home: Path, truth: dict[str, Any]) -> None:
    """The reports say what the market knows: clicks, verdicts, reasons, conversions, money."""
    report = run("report", "--by", "campaign", "--json", "--data", str(home)).json
    networks = run("report", "--by", "network", "--json", "--data", str(home)).json
    compare(report, truth["all"])
    for group in report["groups"]:
        if group["campaign"] is not None:
            true = truth["campaigns"][group["campaign"]]
            assert group["clicks"] == true["clicks"]
            assert counted(group) == true["counted"]
    assert {group["campaign"] for group in report["groups"]} - {None} == truth["campaigns"].keys()
    for group in networks["groups"]:
        compare(group | {"clicks": 0}, truth["networks"][group["network"]])
    assert report["refusals"] == truth["refusals"]


def compare(report: dict[str, Any], true: dict[str, Any]) -> None:
    assert report["clicks"] == true["clicks"]
    assert report["postbacks"]["total"] == true["postbacks"]
    assert {k: n for k, n in report["postbacks"]["by_verdict"].items() if n} == true["by_verdict"]
    assert report["postbacks"]["by_reason"] == true["by_reason"]
    assert counted(report) == true["counted"]


def counted(report: dict[str, Any]) -> dict[str, Any]:
    conversions = report["conversions"]
    by_status = {status: count for status, count in conversions["by_status"].items() if count}
    return {"count": conversions["count"], "by_status": by_status, "value": conversions["value"]}


def test_the_reports_say_what_the_market_knows_and_everything_found_wrong_was_planted(
    run: Run, home: Path
) -> None:
    truth = run("demo", "--clicks", "6000", "--json").json
    agree(run, home, truth)
    assert json.loads((home / TRUTH).read_text())["all"] == truth["all"]
    assert len(truth["faults"]) == 7
    assert run("verify", "--data", str(home)).out.strip().endswith("0 findings")
    assert "found" not in run("privacy", "check", "--data", str(home)).out
    report = run("report", "--json", "--data", str(home)).json
    assert report["response_ms"]["count"] == truth["all"]["postbacks"]
    targets = {row["target"]: row for row in report["deliveries"]["by_target"]}
    targets.pop("Newsletter postback")
    assert all(row["success_rate"] > 0.8 for row in targets.values())
    assert sum(row["by_state"]["waiting"] for row in targets.values()) <= 2
    assert "target Newsletter postback: broken" in run("doctor", "--data", str(home), code=1).out


def test_it_is_apart_from_real_data_and_goes_with_one_command(run: Run, data: Path, home: Path) -> None:
    run("network", "add", "Real")
    said = run("demo", "--clicks", CLICKS).out
    assert "Bluepeak" in said
    assert "postbackd demo --remove" in said
    assert run("report", "--json").json["clicks"] == 0
    assert [row["name"] for row in run("network", "list", "--json").json] == ["Real"]
    assert str(home) in run("demo", "--remove").out
    assert not home.exists()
    assert [row["name"] for row in run("network", "list", "--json").json] == ["Real"]
    assert "no demo" in run("demo", "--remove", code=1).err


def test_a_demo_is_brought_up_to_now_and_an_end_in_the_middle_changes_nothing(run: Run, home: Path) -> None:
    home.mkdir(parents=True)
    until_ms = time.time_ns() // 1_000_000 - 2 * 86_400_000
    write_marker(home, Made(seed=5, clicks=20_000, until_ms=until_ms))
    command = [sys.executable, "-m", "postbackd", "demo", "--data", str(home.parent)]
    process = subprocess.Popen(
        command, env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    database = home / "postbackd.db-wal"
    wait_until(lambda: database.exists() and database.stat().st_size > 1_000_000, 30, "a part of the month")
    process.kill()
    process.wait()
    truth = run("demo", "--json").json
    agree(run, home, truth)
    assert truth["all"]["clicks"] > 20_000
    rows = sum(truth["all"][name] for name in ("clicks", "other_visits", "postbacks"))
    assert rows / 2 < truth["rows"] < rows
    assert run("demo", "--json").json["rows"] < 50


def test_another_seed_or_size_needs_the_old_one_removed(run: Run) -> None:
    run("demo", "--clicks", "1000", "--seed", "4")
    assert "remove it first" in run("demo", "--seed", "5", code=1).err
    assert "remove it first" in run("demo", "--clicks", "9999", code=1).err
    run("demo", "--seed", "4")
    assert "takes no other option" in run("demo", "--remove", "--seed", "4", code=2).err


def test_only_what_is_a_demo_is_removed_or_written_to(run: Run, home: Path) -> None:
    home.mkdir(parents=True)
    (home / "letters.txt").write_text("mine")
    assert "letters.txt" in run("demo", code=1).err
    assert "no marker" in run("demo", "--remove", code=1).err
    (home / MARKER).write_text('{"holds": "my own"}')
    assert "by hand" in run("demo", "--remove", code=1).err
    assert sorted(path.name for path in home.iterdir()) == [MARKER, "letters.txt"]
    (home / MARKER).unlink()
    (home / "letters.txt").unlink()
    run("demo", "--clicks", "1000")
    (home / "letters.txt").write_text("mine")
    before = sorted(home.iterdir())
    assert "letters.txt" in run("demo", "--remove", code=1).err
    assert sorted(home.iterdir()) == before
    (home / "letters.txt").unlink()
    (home / "spare").symlink_to("/etc")
    assert "spare" in run("demo", "--remove", code=1).err


def test_live_goes_on_until_it_is_told_to_stop_and_nobody_removes_it_meanwhile(run: Run, home: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "postbackd",
        "demo",
        "--live",
        "--clicks",
        "1000",
        "--data",
        str(home.parent),
    ]
    process = subprocess.Popen(
        command, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert "adding simulated traffic" in process.stderr.readline()
    assert "stop it" in run("demo", "--remove", code=1).err
    assert "another 'postbackd demo'" in run("demo", code=1).err
    os.kill(process.pid, signal.SIGINT)
    out, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")
    assert "what is wrong in it" in out
    assert (home / LOCK).exists()
    run("demo", "--remove")
