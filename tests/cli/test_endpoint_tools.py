"""``postbackd send`` against a real server: verdicts, tests that count nothing, signatures, batches that are killed."""

from __future__ import annotations

import http.client
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from postbackd.cli.main import main
from tests.cli.conftest import Run
from tests.trust.server import Server, clean_environment, wait_until


def cli(data: Path, *arguments: str) -> Any:
    """A command in this process, which costs a tenth of a new one; its document."""
    printed = io.StringIO()
    with redirect_stdout(printed), pytest.raises(SystemExit) as leaving:
        main((*arguments, "--data", str(data), "--json"))
    assert leaving.value.code == 0, printed.getvalue()
    return json.loads(printed.getvalue())


class Site:
    """A server, its catalog, and ids of clicks."""

    def __init__(self, server: Server, key: str, slug: str) -> None:
        self.server = server
        self.key = key
        self._slug = slug
        self.url = f"http://127.0.0.1:{server.port}/p/{key}"

    def click(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=5)
        connection.request("GET", f"/c/{self._slug}")
        location = connection.getresponse().getheader("location") or ""
        connection.close()
        return location.partition("sub1=")[2]

    def conversions(self) -> int:
        count: int = cli(self.server.data_dir, "report")["conversions"]["count"]
        return count


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data = tmp_path_factory.mktemp("site") / "data"
    key = cli(data, "network", "add", "Shop")["key"]
    cli(data, "source", "add", "Ads")
    cli(data, "offer", "add", "Shoes", "--network", "Shop", "--url", "https://shop.example/?sub1={click_id}")
    slug = cli(data, "campaign", "add", "Spring", "--source", "Ads", "--offer", "Shoes")["slug"]
    with Server(data) as server:
        yield Site(server, key, slug)


def test_one_postback_is_answered_with_its_verdict_and_the_time_of_each_phase(run: Run, site: Site) -> None:
    asked = ("send", site.url, "--click-id", site.click(), "--value", "12.50", "--txid", "A-1")
    first = run(*asked)
    assert first.out.startswith("accepted (conversion ")
    assert f"HTTP 200 at 127.0.0.1:{site.server.port} in " in first.out
    assert "one try: connect " in first.out
    again = run(*asked, "--post", "--json").json
    assert (again["verdict"], again["good"], again["tries"]) == ("duplicate", True, 1)
    assert again["milliseconds"]["first_byte"] > 0


def test_a_postback_that_is_not_taken_ends_with_1_and_says_why(run: Run, site: Site) -> None:
    unmatched = run("send", site.url, "--click-id", "nonsense", code=1).out
    assert unmatched.startswith("unmatched: click_id_foreign")
    assert "macro of the sub id" in unmatched  # what the endpoint says to do
    assert "HTTP 404" in run("send", f"{site.url}x", "--click-id", "a", code=1).out
    assert "connection refused" in run("send", "http://127.0.0.1:1/", "--click-id", "a", code=1).out


def test_a_test_is_recognised_and_counts_nothing(run: Run, site: Site) -> None:
    before = site.conversions()
    assert "recognised as a test" in run("send", site.url, "--test", "--value", "9").out
    assert site.conversions() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a URL or a --network"),
        (("http://127.0.0.1/", "--network", "Shop"), "one of them"),
        (("http://127.0.0.1/",), "--click-id"),
        (("http://127.0.0.1/", "--test", "--click-id", "x"), "leave --click-id out"),
        (("http://127.0.0.1/", "--test", "--rate", "5"), "--rate is for --batch"),
        (("gopher://127.0.0.1/", "--test"), "use https:// or http://"),
        (("http://127.0.0.1/#x", "--test"), "fragment"),
        (("http://127.0.0.1/", "--test", "--ca", "/nowhere"), "name a PEM file"),
        (("http://127.0.0.1/?c={click_id}", "--test", "--value", "1"), "no place for the"),
        (("http://127.0.0.1/", "--batch", "/nowhere"), "no such file"),
        (("http://127.0.0.1/", "--batch", "/nowhere", "--rate", "fast"), "write it like 20/s"),
        (("http://127.0.0.1/", "--test", "--success", "(a+)+"), "may take for ever"),
    ],
)
def test_a_wrong_call_says_what_to_change(run: Run, arguments: tuple[str, ...], said: str) -> None:
    assert said in run("send", *arguments, code=2).err


def test_a_network_of_ours_is_named_and_signed_as_it_asks(
    run: Run, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, base = site.server.data_dir, f"http://127.0.0.1:{site.server.port}"
    asks = ("--signature", "hmac", "--enforce", "signature", "--field", "click_id=kid")
    key = cli(data, "network", "add", "Signing", *asks)["key"]
    later = cli(data, "network", "add", "Later")[
        "key"
    ]  # known to the server no sooner than the one before it
    wait_until(lambda: site.server.status(f"/p/{later}") == 200, 10, "the server knowing its networks")
    monkeypatch.setenv("POSTBACKD_PUBLIC_URL", base)
    assert "recognised as a test" in run("send", "--network", "Signing", "--test", "--data", str(data)).out
    bare = f"{base}/p/{key}?kid={{click_id}}&txid={{txid}}"
    assert "HTTP 404" in run("send", bare, "--test", code=1).out  # the control: unsigned


# --- batches ---------------------------------------------------------------------------------------------------------


def write_rows(path: Path, click: str, count: int) -> Path:
    lines = [f"{click},sale,{number}.00,USD" for number in range(1, count + 1)]
    path.write_text("\n".join(["click_id,type,value,currency", *lines]) + "\n")
    return path


def test_a_batch_ends_with_a_summary_and_a_file_of_the_rows_that_need_a_look(
    run: Run, site: Site, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "rows.csv", site.click(), 25)
    path.write_text(path.read_text() + 'nonsense,sale,1,USD\n,sale,1,USD\n"x,sale\n')
    done = run("send", site.url, "--batch", str(path), code=1)
    assert "rows: 25 accepted, 2 bad row, 1 unmatched" in done.out
    assert "p50 " in done.out
    assert "p99 <100 tries (26 tries)" in done.out
    assert done.err == ""  # no bar: it is no terminal
    failed = (tmp_path / "rows.csv.failed.csv").read_text().splitlines()
    assert failed[0] == "click_id,type,value,currency,transaction_id,line,reason,text"
    assert any(line.endswith(",27,unmatched: click_id_foreign,") for line in failed)
    assert any('"""x,sale"' in line for line in failed)
    again: Any = run("send", site.url, "--batch", str(path), "--json", code=1).json
    assert (again["requests"], again["settled_before"], again["failed"]) == (0, 26, 3)


def test_the_file_of_failed_rows_can_be_mended_and_sent(run: Run, site: Site, tmp_path: Path) -> None:
    click = site.click()
    path = write_rows(tmp_path / "rows.csv", "wrong", 2)
    run("send", site.url, "--batch", str(path), code=1)
    failed = tmp_path / "rows.csv.failed.csv"
    failed.write_text(failed.read_text().replace("wrong", click))
    assert "rows: 2 accepted" in run("send", site.url, "--batch", str(failed)).out


def test_a_batch_of_tests_counts_nothing_and_settles_no_real_row(
    run: Run, site: Site, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "rows.csv", site.click(), 3)
    before = site.conversions()
    assert "rows: 3 test" in run("send", site.url, "--batch", str(path), "--test").out
    assert site.conversions() == before
    assert "rows: 3 accepted" in run("send", site.url, "--batch", str(path)).out


@pytest.mark.parametrize("journal_kept", [True, False], ids=["journal", "control without it"])
def test_a_run_that_was_killed_goes_on_and_counts_nothing_twice(
    run: Run, site: Site, tmp_path: Path, journal_kept: bool
) -> None:
    path = write_rows(tmp_path / "rows.csv", site.click(), 60)
    journal = tmp_path / "rows.csv.journal"
    before = site.conversions()
    command = [sys.executable, "-m", "postbackd", "send", site.url, "--batch", str(path), "--rate", "25/s"]
    victim = subprocess.Popen(command, env=clean_environment(), stdout=subprocess.DEVNULL)
    wait_until(
        lambda: journal.exists() and journal.read_bytes().count(b'["a"') >= 10, 20, "ten answers noted"
    )
    victim.send_signal(signal.SIGKILL)
    victim.wait(10)
    sent = journal.read_bytes().count(b'["s"')
    assert 10 <= sent < 60
    if not journal_kept:
        journal.unlink()
    run("send", site.url, "--batch", str(path))
    counted = site.conversions() - before
    assert counted == 60 if journal_kept else counted > 60


# --- probes ----------------------------------------------------------------------------------------------------------


def test_a_probe_says_how_long_each_phase_takes_and_counts_nothing(
    run: Run, site: Site, tmp_path: Path
) -> None:
    before = site.conversions()
    shown = run("probe", f"{site.url}?cid=REAL", "-n", "3", "--rate", "500/s").out
    assert "/p/…?cid=…" in shown
    assert site.key not in shown
    assert "3 of 3 answered, HTTP 200 x 3" in shown
    assert "IPv4 127.0.0.1; IPv6 none" in shown
    assert "<20 tries" in shown
    assert "duplicate: not told: a test is counted nowhere" in shown
    assert site.conversions() == before
    real = run("probe", site.url, "-n", "1", "--rate", "500", "--click-id", site.click(), "--unknown-id").out
    assert "duplicate: right: accepted, then duplicate" in real
    assert "unknown id: right: unmatched: click_id_foreign" in real
    assert site.conversions() == before + 1  # the control


def test_probes_of_several_machines_are_put_together(run: Run, site: Site, tmp_path: Path) -> None:
    paths = []
    for place in ("fra", "syd"):
        paths.append(str(tmp_path / place))
        done = run("probe", site.url, "-n", "3", "--rate", "500/s", "--place", place, "--json")
        assert site.key not in done.out
        Path(paths[-1]).write_text(done.out)
    page = tmp_path / "page.html"
    shown = run("probe", "--merge", *paths, "--html", str(page)).out
    assert "fra IPv4" in page.read_text()
    assert "<svg" in page.read_text()
    assert "fra IPv4" in shown
    assert "slowest from " in shown
    assert "d DNS, c connect, t TLS, # first byte" in shown
    assert run("probe", "--merge", *paths, "--json").json["places"] == ["fra", "syd"]
    assert "its own --place" in run("probe", "--merge", paths[0], paths[0], code=2).err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a URL"),
        (("--merge",), "name the files"),
        (("http://127.0.0.1/", "--html", "x"), "--html is for --merge"),
        (("http://127.0.0.1/?kid=1",), "write {click_id} where it goes"),
        (("http://127.0.0.1/", "--as-is", "--click-id", "x"), "exclude each other"),
    ],
)
def test_a_wrong_call_of_probe_says_what_to_change(run: Run, arguments: tuple[str, ...], said: str) -> None:
    assert said in run("probe", *arguments, code=2).err


def test_a_probe_that_nobody_answers_ends_with_1_and_says_why(run: Run) -> None:
    shown = run(
        "probe", "http://127.0.0.1:1/", "http://nothing.invalid/", "-n", "2", "--rate", "500", code=1
    ).out
    assert "0 of 2 answered, connect x 2, such as: connection refused" in shown
    assert "DNS: the name nothing.invalid was not found" in shown


# --- comparisons -----------------------------------------------------------------------------------------------------


def write_plan(path: Path, *entries: str) -> str:
    schedule = "[schedule]\nconversions = 3\nrate = 50\ncopies = 4\ntimeout_ms = 2000\n"
    path.write_text(schedule + "".join(f"[[endpoint]]\n{entry}\n" for entry in entries))
    return str(path)


def test_a_comparison_judges_a_real_server_and_counts_only_where_the_file_names_click_ids(
    run: Run, site: Site, tmp_path: Path
) -> None:
    before = site.conversions()
    tests = f'name = "tests"\nurl = "{site.url}"'
    run("compare", write_plan(tmp_path / "plan.toml", tests))
    assert site.conversions() == before
    real = f'name = "real"\nurl = "{site.url}"\nclick_ids = ["{site.click()}"]'
    path, page = write_plan(tmp_path / "plan.toml", tests, real), tmp_path / "page.html"
    done = run("compare", path, "--html", str(page), "--json")
    assert "'real' is sent click ids of its own" in done.err
    found = {
        one["name"]: {check["check"]: check["ok"] for check in one["checks"]}
        for one in done.json["endpoints"]
    }
    assert set(found["real"].values()) == {True}
    assert found["tests"]["duplicate"] is None
    assert (
        site.conversions() == before + 5
    )  # three of the schedule, one sent again, one sent four times at once
    assert site.key not in done.out + page.read_text()
    assert "parallel copies" in page.read_text()


def test_a_host_that_is_not_the_users_own_is_refused_where_nobody_can_be_asked(
    run: Run, tmp_path: Path
) -> None:
    path = write_plan(tmp_path / "plan.toml", 'name = "theirs"\nurl = "https://8.8.8.8/p"')
    done = run("compare", path, code=2)
    assert "add 'own = true'" in done.err
    assert "name a file" in run("compare", code=2).err


def test_the_example_of_compare_is_printed_and_read_again(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(run("compare", "--example").out)
    assert "not seen to be yours" in run("compare", str(path), code=2).err
