"""The change of the key: nothing is lost by it, whatever happens in between; and what does not open is named."""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import msgspec
import pytest

from postbackd.cli import secrets as secrets_commands
from postbackd.runtime import open_store
from postbackd.sealing import KEY_NAME, find_sealer
from postbackd.settings import Settings
from tests.cli.conftest import Run
from tests.commands import run_here
from tests.trust.server import Catalog, Server, make_catalog, run_cli, wait_until

TOKEN = "s3cr3t-token"
KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in range(3)]


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else stores anything meanwhile."""
    monkeypatch.setattr(secrets_commands, "_GRACE_S", 0)


@pytest.fixture
def sealed(filled: Run) -> Run:
    """A catalog with a target that has a secret."""
    filled("target", "add", "Hook", "--url", "https://ads.example/?t={account.T}", "--account", f"T={TOKEN}")
    return filled


def stored(data: Path) -> dict[str, str]:
    """Everything that is sealed, as it lies in the database."""
    with apsw.Connection(str(data / "postbackd.db")) as db:
        rows = [
            *db.execute("SELECT 'target', secrets FROM targets"),
            *db.execute("SELECT 'network', key FROM networks"),
            *db.execute("SELECT 'signing', CAST(secret AS TEXT) FROM signing_keys"),
            *db.execute("SELECT 'privacy', CAST(value AS TEXT) FROM settings WHERE name = 'privacy_key'"),
        ]
    return dict(rows)


def states(run: Run, code: int = 0) -> set[str]:
    return {row["state"] for row in run("secrets", "check", "--json", code=code).json}


def token_of(data: Path) -> str:
    """The secret of the target, as a deliverer opens it."""
    (secret,) = msgspec.json.decode(stored(data)["target"]).values()
    return find_sealer(None, data, create=False).open(secret)


# --- rotation ----------------------------------------------------------------------------------------------------


def test_everything_is_sealed_anew_and_the_old_key_opens_nothing(
    sealed: Run, data: Path, tmp_path: Path
) -> None:
    before, key, network = (
        stored(data),
        sealed("network", "show", "TUNE", "--json").json["key"],
        data / KEY_NAME,
    )
    old = network.read_text()
    ran = sealed("secrets", "rotate", "--old-to", str(tmp_path / "old.key"))
    assert "4 secrets are sealed with a new key" in ran.out
    after = stored(data)
    assert all(after[name] != before[name] for name in before)
    assert (data / KEY_NAME).read_text() != old
    assert (data / KEY_NAME).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "old.key").read_text() == old
    assert (tmp_path / "old.key").stat().st_mode & 0o777 == 0o600
    assert states(sealed) == {"opens"}
    assert sealed("network", "show", "TUNE", "--json").json["key"] == key
    assert token_of(data) == TOKEN
    assert TOKEN not in ran.out
    assert not list(data.glob(f"{KEY_NAME}.*"))
    (data / KEY_NAME).write_text(old)
    assert states(sealed, code=1) == {"does not open"}


def test_a_key_of_ones_own_is_taken_from_a_file_or_from_standard_input(
    sealed: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new").write_text(KEYS[1] + "\n")
    sealed("secrets", "rotate", "--key-file", str(tmp_path / "new"))
    assert base64.urlsafe_b64decode((data / KEY_NAME).read_text()) == bytes([1]) * 32
    monkeypatch.setattr(sys, "stdin", io.StringIO(KEYS[2]))
    sealed("secrets", "rotate", "--key-file", "-")
    assert base64.urlsafe_b64decode((data / KEY_NAME).read_text()) == bytes([2]) * 32
    monkeypatch.setattr(sys, "stdin", io.StringIO("short"))
    assert "openssl rand" in sealed("secrets", "rotate", "--key-file", "-", code=1).err
    monkeypatch.setattr(sys, "stdin", io.StringIO(KEYS[2]))
    assert "in use already" in sealed("secrets", "rotate", "--key-file", "-", code=1).err
    assert states(sealed) == {"opens"}


def test_the_old_key_goes_where_nothing_is_yet_or_nothing_is_changed(
    sealed: Run, data: Path, tmp_path: Path
) -> None:
    old = (data / KEY_NAME).read_text()
    (tmp_path / "taken").write_text("something else")
    for place, code in ((data, 2), (tmp_path / "taken", 1), (tmp_path / "no" / "such", 1)):
        ran = sealed("secrets", "rotate", "--old-to", str(place), code=code)
        assert ran.err.count("\n") == 1
        assert (data / KEY_NAME).read_text() == old
    (tmp_path / "kept").write_text(old)
    sealed("secrets", "rotate", "--old-to", str(tmp_path / "kept"))
    (tmp_path / "binary").write_bytes(b"\xff" * 44)
    assert "openssl rand" in sealed("secrets", "rotate", "--key-file", str(tmp_path / "binary"), code=1).err


@pytest.mark.parametrize("failpoint", ["new_key_laid", "mid_sealing", "sealed_anew"])
def test_a_change_that_was_killed_leaves_a_key_that_opens_everything_and_goes_on(
    sealed: Run, data: Path, failpoint: str
) -> None:
    command = [sys.executable, "-m", "postbackd", "secrets", "rotate"]
    environment = {**os.environ, "POSTBACKD_FAILPOINT": f"{failpoint}:1"}
    killed = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
    assert killed.returncode == -9, killed.stderr
    assert states(sealed) <= {"opens", "opens with an older key"}
    assert len((data / KEY_NAME).read_text().split()) == 2
    assert token_of(data) == TOKEN
    sealed("network", "add", "Another")
    (data / f"{KEY_NAME}.4711").write_text("what a killed process left behind")
    sealed("secrets", "rotate")
    assert states(sealed) == {"opens"}
    assert len((data / KEY_NAME).read_text().split()) == 1
    assert not list(data.glob(f"{KEY_NAME}.*"))


def test_a_value_that_no_key_opens_stops_the_change_and_nothing_is_lost(sealed: Run, data: Path) -> None:
    with apsw.Connection(str(data / "postbackd.db")) as db:
        db.execute('UPDATE targets SET secrets = \'{"T":"2.AAAA"}\'')
    before = stored(data)
    assert "was sealed with another key" in sealed("secrets", "rotate", code=1).err
    assert stored(data) == before
    assert states(sealed, code=1) == {"does not open", "opens with an older key"}


def test_two_changes_at_once_are_one_after_the_other(sealed: Run, data: Path) -> None:
    command = [sys.executable, "-m", "postbackd", "secrets", "rotate"]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    results = [process.communicate(timeout=60) for process in running]
    codes = {process.returncode for process in running}
    assert codes <= {0, 1}
    assert 0 in codes
    assert all("Traceback" not in err for _, err in results)
    assert states(sealed) == {"opens"}


def test_what_a_command_seals_with_the_old_key_meanwhile_is_sealed_anew(
    sealed: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = find_sealer(None, data, create=False)

    def meanwhile(_seconds: float) -> None:
        with apsw.Connection(str(data / "postbackd.db")) as db:
            db.execute("UPDATE targets SET secrets = ?", (f'{{"T":"{old.seal("late")}"}}',))
        monkeypatch.setattr(time, "sleep", lambda _: None)

    monkeypatch.setattr(time, "sleep", meanwhile)
    sealed("secrets", "rotate")
    assert token_of(data) == "late"
    assert states(sealed) == {"opens"}


def test_a_key_in_the_settings_is_changed_by_two_of_them(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTBACKD_SECRET_KEY", KEYS[0])
    run("target", "add", "Hook", "--url", "https://ads.example/?t={account.T}", "--account", f"T={TOKEN}")
    assert not (data / KEY_NAME).exists()
    assert "put a new one in front of it (NEW,OLD)" in run("secrets", "rotate", code=1).err
    assert "the key is a setting" in run("secrets", "rotate", "--old-to", "x", code=2).err
    monkeypatch.setenv("POSTBACKD_SECRET_KEY", f"{KEYS[1]},{KEYS[0]}")
    assert states(run) == {"opens with an older key"}
    assert "take the old one out of POSTBACKD_SECRET_KEY" in run("secrets", "rotate").out
    monkeypatch.setenv("POSTBACKD_SECRET_KEY", KEYS[1])
    assert states(run) == {"opens"}
    monkeypatch.setenv("POSTBACKD_SECRET_KEY", KEYS[0])
    assert states(run, code=1) == {"does not open"}


def test_a_server_goes_on_with_the_new_key(tmp_path: Path) -> None:
    data = tmp_path / "data"
    catalog = make_catalog(data, run=run_here)
    with Server(data) as server:
        click = _click(server, catalog)
        changed = run_cli(data, "secrets", "rotate")
        assert changed.returncode == 0, changed.stderr
        assert run_here(data, "network", "add", "Later").returncode == 0
        keys = run_here(data, "network", "show", "Later", "--json")
        later = Catalog(json.loads(keys.stdout)["key"], catalog.slug)
        wait_until(
            lambda: _status(server, f"/p/{later.key}?click_id={click}&txid=2") == 200, 20, "the new network"
        )
        assert _status(server, f"/p/{catalog.key}?click_id={click}&txid=1") == 200
        assert "going on with the catalog" not in server.stderr_path.read_text()


def _status(server: Server, path: str) -> int:
    asking = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        asking.request("GET", path)
        return asking.getresponse().status
    finally:
        asking.close()


def _click(server: Server, catalog: Catalog) -> str:
    asking = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    asking.request("GET", f"/c/{catalog.slug}")
    location = asking.getresponse().headers["Location"]
    asking.close()
    found = re.search(r"sub1=(\w{26})", location)
    assert found
    return found[1]


def test_a_command_that_read_before_the_change_and_writes_behind_it_loses_no_secret(
    sealed: Run, data: Path
) -> None:
    sealed("network", "set", "TUNE", "--signature", "hmac")

    async def change_late() -> None:
        store = await open_store(Settings(data=str(data)), create=False)
        try:
            read = await store.load_catalog()
            changed = await asyncio.to_thread(run_cli, data, "secrets", "rotate")
            assert changed.returncode == 0, changed.stderr
            await store.change_catalog([*read.networks, *read.targets], (), 0)
        finally:
            await store.close()

    asyncio.run(change_late())
    assert states(sealed) == {"opens"}


# --- what does not open ------------------------------------------------------------------------------------------


def test_each_target_whose_secret_does_not_open_is_a_finding(sealed: Run, data: Path) -> None:
    sealed("target", "add", "Well", "--url", "https://b.example/?t={account.T}", "--account", "T=x")
    assert "secrets of targets: 2, and all can be opened" in sealed("doctor").out
    with apsw.Connection(str(data / "postbackd.db")) as db:
        db.execute("UPDATE targets SET secrets = '{\"T\":\"2.AAAA\"}' WHERE name = 'Hook'")
    ran = sealed("doctor", "--json", code=1)
    found = {finding["check"]: finding for finding in ran.json if not finding["ok"]}
    assert list(found) == ["secret of target Hook"]
    assert found["secret of target Hook"]["detail"].startswith("T does not open: ")
    assert "postbackd target set Hook --account T=-" in found["secret of target Hook"]["fix"]
    ran = sealed("secrets", "check", code=1)
    assert "target 'Hook', T: a secret (target) was sealed with another key" in ran.out
    assert "1 of 5 secrets do not open" in ran.err


def test_without_the_key_nothing_starts_and_every_line_names_the_next_step(
    sealed: Run, data: Path, tmp_path: Path
) -> None:
    (data / KEY_NAME).rename(tmp_path / "elsewhere")
    for arguments in (
        ("network", "list"),
        ("export",),
        ("network", "add", "N"),
        ("serve", "--listen", "127.0.0.1:0"),
    ):
        ran = sealed(*arguments, code=1)
        assert "the key of the secrets is not here" in ran.err, arguments
        assert ran.err.count("\n") == 1
    assert not (data / KEY_NAME).exists()
    ran = sealed("doctor", code=1)
    assert "FAILED  sealed keys: 3 do not open" in ran.out
    assert "Bring the key back" in ran.out
    (tmp_path / "elsewhere").rename(data / KEY_NAME)
    sealed("doctor")


def test_an_older_database_is_sealed_when_it_is_opened_and_its_keys_stay_what_they_were(
    run: Run, data: Path, older: Callable[[Path], None]
) -> None:
    run("network", "add", "Before")
    key = run("network", "show", "Before", "--json").json["key"]
    older(data)
    (data / KEY_NAME).unlink()
    assert run("network", "show", "Before", "--json").json["key"] == key
    assert states(run) == {"in clear"}
    run("network", "add", "After")
    assert states(run) == {"opens"}
    assert run("network", "show", "Before", "--json").json["key"] == key
    raw = b"".join(path.read_bytes() for path in data.iterdir() if path.name != KEY_NAME)
    assert key.encode() not in raw


@pytest.fixture
def older() -> Callable[[Path], None]:
    """Makes of a database one of the time when keys were in clear."""

    def turn_back(data: Path) -> None:
        sealer = find_sealer(None, data, create=False)
        with apsw.Connection(str(data / "postbackd.db")) as db:
            for id_, key in list(db.execute("SELECT id, key FROM networks")):
                db.execute(
                    "UPDATE networks SET key = ? WHERE id = ?", (sealer.open(key, "endpoint key"), id_)
                )
            for id_, secret in list(db.execute("SELECT id, secret FROM signing_keys")):
                clear = base64.b64decode(sealer.open(secret.decode(), "signing key"))
                db.execute("UPDATE signing_keys SET secret = ? WHERE id = ?", (clear, id_))
            (value,) = next(iter(db.execute("SELECT value FROM settings WHERE name = 'privacy_key'")))
            clear = base64.b64decode(sealer.open(value.decode(), "privacy key"))
            db.execute("UPDATE settings SET value = ? WHERE name = 'privacy_key'", (clear,))
            db.execute("DELETE FROM settings WHERE name = 'sealed'")

    return turn_back
