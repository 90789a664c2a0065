"""A run that is cut off, a server that goes away: the truth holds up to there; what nobody knows is no difference."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from postbackd.simulating.ledger import Ledger
from postbackd.simulating.truth_file import Ended, PostbackEnd, read_truth
from tests.simulating.market import Market, open_market
from tests.trust.server import clean_environment, wait_until


@pytest.fixture
def market(tmp_path: Path) -> Market:
    return open_market(tmp_path)


def start(market: Market, truth: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "postbackd", "simulate", "run", *market.options(truth), *options]
    return subprocess.Popen(
        command, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def holds(truth: Path, what: str, times: int) -> bool:
    return truth.exists() and truth.read_bytes().count(what.encode()) >= times


def test_a_run_that_is_killed_leaves_a_truth_that_the_server_agrees_with(market: Market) -> None:
    with market.server:
        truth = market.new_truth()
        process = start(market, truth, "--clicks", "5000", "--fault", "sends_doubles@Cobalt Leads")
        wait_until(lambda: holds(truth, '"line":"postback_end"', 60), 30, "a part of the market")
        process.kill()
        process.communicate()
        with truth.open("ab") as file:
            file.write(b'{"line":"click","vis')  # as if it had been cut off in the middle of a line
        ledger = Ledger(read_truth(truth))
        assert ledger.ended is None
        assert 0 < ledger.visits["counted"] < 4000
        assert market.check(truth)["differences"] == 0


def test_ctrl_c_ends_a_run_with_what_is_under_way(market: Market) -> None:
    with market.server:
        truth = market.new_truth()
        process = start(market, truth, "--clicks", "5000", "--rate", "400")
        wait_until(lambda: holds(truth, '"line":"click_end"', 40), 30, "some clicks")
        os.kill(process.pid, signal.SIGINT)
        out, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (130, "")
        assert "simulate check" in out
        *_, last = read_truth(truth)
        assert isinstance(last, Ended)
        assert last.why == "interrupted"
        assert Ledger(read_truth(truth)).unknown == 0
        assert market.check(truth)["differences"] == 0


def test_a_server_that_goes_away_and_comes_back_agrees_with_the_truth_and_networks_tried_again(
    market: Market,
) -> None:
    truth = market.new_truth()
    with market.server:
        process = start(market, truth, "--clicks", "1500", "--rate", "600", "--duration", "12h")
        wait_until(lambda: holds(truth, '"line":"postback_end"', 40), 30, "a part of the market")
        market.server.kill()
        refused = '"sent":false,"error":"connection refused"'
        wait_until(lambda: holds(truth, refused, 40), 30, "visitors and networks at a closed door")
        # The market stands still meanwhile: how long a start takes is not what is tried here.
        process.send_signal(signal.SIGSTOP)
        market.server.start()
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=60)[1] == ""
        assert process.returncode == 0
        lines = list(read_truth(truth))
        again = [line for line in lines if isinstance(line, PostbackEnd) and line.turn > 1 and line.verdict]
        assert again
        ledger = Ledger(lines)
        assert ledger.not_stored >= 40
        assert ledger.visits["lost"] > 20
        assert market.check(truth)["differences"] == 0
