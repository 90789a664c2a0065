"""Who may send, from the command line: the ladder, rotation, what is shown once, files, and what the doctor says."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import apsw
import pytest

from postbackd.cli.options import now_ms
from postbackd.core.click_id import first_stamp_at
from postbackd.core.diagnosis import Reason
from postbackd.core.sender_rules import hash_token
from tests.cli.conftest import Run


def senders(run: Run, name: str = "N") -> dict[str, Any]:
    shown: dict[str, Any] = run("network", "show", name, "--json").json["senders"]
    return shown


def stored(data: Path) -> bytes:
    return b"".join(path.read_bytes() for path in data.glob("postbackd.db*"))


def test_a_network_without_any_step_is_as_before(run: Run) -> None:
    added = run("network", "add", "N", "--json").json
    assert list(added) == ["name", "key", "postback_url"]
    assert senders(run) == {}


def test_a_token_is_shown_once_kept_as_a_hash_and_observed_first(run: Run, data: Path) -> None:
    token = run("network", "add", "N", "--token", "--json").json["token"]
    assert re.fullmatch(r"pbt_[A-Za-z0-9_-]{43}", token)
    assert senders(run) == {"token": "observe", "tokens": ["current"]}
    assert token not in run("network", "show", "N").out
    assert token not in run("export").out
    assert token.encode() not in stored(data)
    assert hash_token(token).encode() in stored(data)
    assert "token=TOKEN" in run("network", "show", "N", "--json").json["postback_url"]
    assert "rotate" in run("network", "set", "N", "--token", code=2).err
    run("network", "set", "N", "--no-token")
    assert senders(run) == {}


def test_addresses_are_added_and_taken_away_in_one_spelling(run: Run) -> None:
    run("network", "add", "N", "--allow-ip", "203.0.113.7,2001:DB8::/32", "--allow-ip", "::ffff:10.0.0.0/104")
    assert senders(run) == {"ip": "observe", "allow_ip": ["203.0.113.7", "2001:db8::/32", "10.0.0.0/8"]}
    run("network", "set", "N", "--forbid-ip", "203.0.113.7", "--allow-ip", "198.51.100.0/24")
    assert senders(run)["allow_ip"] == ["2001:db8::/32", "10.0.0.0/8", "198.51.100.0/24"]
    assert "not on the list" in run("network", "set", "N", "--forbid-ip", "192.0.2.1", code=2).err
    assert "write 10.0.0.0/8" in run("network", "set", "N", "--allow-ip", "10.0.0.1/8", code=2).err
    assert "no address" in run("network", "set", "N", "--allow-ip", "shop.example", code=2).err
    assert "nobody could send" in run("network", "set", "N", "--forbid-ip", "all", code=2).err
    run("network", "set", "N", "--forbid-ip", "all", "--off", "ip")
    assert senders(run) == {}


def test_our_own_scheme_makes_its_secret_which_is_sealed(run: Run, data: Path) -> None:
    secret = run("network", "add", "N", "--signature", "hmac", "--json").json["signing_secret"]
    assert senders(run)["signature"] == "observe"
    assert secret.encode() not in stored(data)
    assert secret not in run("export").out + run("network", "show", "N").out


@pytest.mark.parametrize(
    ("scheme", "wanted"),
    [
        ("bitlabs", {"kind": "url", "hash": "sha1", "parameter": "hash", "base": "http://127.0.0.1:8080"}),
        ("revtoo", {"kind": "fields", "hash": "md5", "parameter": "signature"}),
        ("ayet-studios", {"kind": "query", "header": "x-ayetstudios-security-hash"}),
        ("md5:{a}{secret}", {"kind": "fields", "hash": "md5", "keyed": False, "template": "{a}{secret}"}),
        ("hmac-sha1:{a}|{b}", {"kind": "fields", "hash": "sha1", "template": "{a}|{b}"}),
        ("url:sha256", {"kind": "url", "hash": "sha256"}),
    ],
)
def test_the_schemes_of_networks_take_the_secret_that_the_network_made(
    run: Run, scheme: str, wanted: dict[str, Any]
) -> None:
    assert "--secret SECRET=" in run("network", "add", "N", "--signature", scheme, code=2).err
    added = run("network", "add", "N", "--signature", scheme, "--secret", "their-secret", "--json").json
    assert "signing_secret" not in added
    assert wanted.items() <= senders(run)["scheme"].items()


def test_a_secret_is_read_from_standard_input(run: Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("their-secret\n"))
    run("network", "add", "N", "--signature", "md5:{a}{secret}", "--secret", "-")
    line = run("network", "sign", "N", "--param", "a=1").out
    assert "sig=" in line
    assert b"their-secret" not in stored(data)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--signature", "rot13"], "known are hmac, bitlabs"),
        (["--signature", "md5:{a}", "--secret", "x"], "anybody could sign"),
        (["--secret", "x"], "add --signature"),
        (["--enforce", "token"], "--token"),
        (["--enforce", "ip"], "--allow-ip"),
        (["--observe", "signature"], "--signature"),
        (["--signature", "hmac", "--window", "2d"], "time window"),
        (["--signature", "hmac", "--secret", "a\nb"], "printable"),
    ],
)
def test_what_could_not_protect_is_refused_with_the_next_step(
    run: Run, options: list[str], problem: str
) -> None:
    ran = run("network", "add", "N", *options, code=2)
    assert problem in ran.err
    assert ran.err.count("\n") == 1


def test_another_kind_of_scheme_is_observed_again(run: Run) -> None:
    run("network", "add", "N", "--signature", "hmac", "--enforce", "signature")
    run("network", "set", "N", "--window", "60s")
    assert senders(run)["signature"] == "enforce"
    run("network", "set", "N", "--signature", "md5:{a}{secret}", "--secret", "x")
    assert senders(run)["signature"] == "observe"


# --- rotation -----------------------------------------------------------------------------------------------


def test_a_former_key_goes_on_to_a_date_and_a_third_is_refused(run: Run) -> None:
    old = run("network", "add", "N", "--json").json["key"]
    rotated = run("network", "rotate", "N", "key", "--overlap", "2d", "--json").json
    assert rotated["key"] != old
    assert rotated["key"] in rotated["postback_url"]
    assert rotated["former_until"] == senders(run)["former_key_until"]
    refused = run("network", "rotate", "N", "key", code=1).err
    assert "--end-former" in refused
    run("network", "rotate", "N", "key", "--end-former")
    assert senders(run) == {}
    assert run("network", "rotate", "N", "key", "--overlap", "0s").out
    assert run("network", "rotate", "N", "key").out  # the former one of before has ended


def test_tokens_and_secrets_rotate_too(run: Run) -> None:
    first = run("network", "add", "N", "--token", "--signature", "hmac", "--json").json
    token = run("network", "rotate", "N", "token", "--json").json["token"]
    secret = run("network", "rotate", "N", "secret", "--json").json["signing_secret"]
    assert token != first["token"]
    assert secret != first["signing_secret"]
    now = senders(run)
    assert [len(now["tokens"]), len(now["secrets"])] == [2, 2]
    assert now["tokens"][0] == now["secrets"][0] == "current"
    assert now["tokens"][1].startswith("former, until 20")


def test_what_is_not_there_is_not_rotated(run: Run) -> None:
    run("network", "add", "N")
    assert "network set N --token" in run("network", "rotate", "N", "token", code=1).err
    assert "--signature hmac" in run("network", "rotate", "N", "secret", code=1).err
    run("network", "set", "N", "--signature", "md5:{a}{secret}", "--secret", "x")
    assert "give it with --secret -" in run("network", "rotate", "N", "secret", code=2).err


# --- files --------------------------------------------------------------------------------------------------

OPTIONS = (
    "--token",
    "--allow-ip",
    "203.0.113.0/24",
    "--signature",
    "md5:{a}{secret}",
    "--secret",
    "their-secret",
)


def test_an_export_that_is_applied_changes_nothing(run: Run, tmp_path: Path) -> None:
    run("network", "add", "N", *OPTIONS, "--enforce", "all", "--pixel", "open")
    run("network", "rotate", "N", "key")
    run("network", "rotate", "N", "token")
    for options in ((), ("--no-keys",)):
        run("export", *options, "--output", str(tmp_path / "catalog.toml"))
        assert "nothing to change" in run("apply", str(tmp_path / "catalog.toml"), "--yes").out
    text = (tmp_path / "catalog.toml").read_text()
    assert "their-secret" not in text
    assert "former_keys" not in text


def test_a_file_that_says_nothing_of_senders_leaves_them_as_they_are(run: Run, tmp_path: Path) -> None:
    run("network", "add", "N", *OPTIONS, "--enforce", "all")
    before = senders(run)
    path = tmp_path / "catalog.toml"
    path.write_text('[[network]]\nname = "N"\n', "utf-8")
    run("apply", str(path), "--yes")
    assert senders(run) == before
    path.write_text('[[network]]\nname = "N"\n[network.senders]\n', "utf-8")
    assert "~ network 'N'" in run("apply", str(path), "--yes").out
    assert {"token", "ip", "signature"} & senders(run).keys() == set()


def test_a_new_network_of_a_file_needs_its_secret(run: Run, tmp_path: Path, data: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(
        '[[network]]\nname = "N"\n[network.senders]\nsignature = "enforce"\n'
        'scheme = {kind = "fields", hash = "md5", keyed = false, template = "{a}{secret}"}\n',
        "utf-8",
    )
    missing = run("apply", str(path), "--yes", code=1).err
    assert "--secret N=-" in missing
    run("apply", str(path), "--yes", "--secret", "N=their-secret")
    assert senders(run)["secrets"] == ["current"]
    assert b"their-secret" not in stored(data)
    assert "has no network 'X'" in run("apply", str(path), "--yes", "--secret", "X=y", code=2).err


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ('token = "enforce"', "no token"),
        ('ip = "sometimes"', "ip"),
        ('ip = "enforce"\nallow_ip = ["x"]', "no address"),
        ('tokens = [{sha256 = "abc"}]', "64 hexadecimal digits"),
        ('tokens = [{sha256 = "' + "0" * 64 + '", until = "7d"}]', "no date"),
        ('pixel = "sometimes"', "pixel"),
        ("nonsense = 1", "nonsense"),
    ],
)
def test_a_mistake_in_a_file_names_the_entry(run: Run, tmp_path: Path, lines: str, problem: str) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(f'[[network]]\nname = "N"\n[network.senders]\n{lines}\n', "utf-8")
    error = run("apply", str(path), "--yes", code=1).err
    assert "network 'N'" in error
    assert problem in error


def test_a_plan_shows_no_former_key(run: Run, tmp_path: Path) -> None:
    old = run("network", "add", "N", "--json").json["key"]
    run("network", "rotate", "N", "key")
    path = tmp_path / "catalog.toml"
    exported = run("export").out
    assert old in exported
    path.write_text(re.sub(r"until = \"[^\"]*\"", 'until = "2100-01-01"', exported), "utf-8")
    assert old not in run("apply", str(path)).out + run("apply", str(path), "--json").out


# --- trying it out, and the doctor --------------------------------------------------------------------------


def test_a_signed_line_is_one_that_a_shell_understands(run: Run) -> None:
    run("network", "add", "N", "--token", "--signature", "hmac")
    line = run("network", "sign", "N", "--param", "click_id=a b'c", "--param", "txid=1").out
    words = shlex.split(line)
    assert words[:2] == ["curl", "-i"]
    assert words[-1].endswith("?click_id=a%20b%27c&txid=1")
    assert re.search(r"x-postback-signature: t=\d{10},v1=[0-9a-f]{64}", line)
    assert "x-postback-token: TOKEN" in line
    as_parameters = run("network", "sign", "N", "--as-parameters", "--json").json["curl"]
    assert re.search(r"sig_time=\d{10}&sig=[0-9a-f]{64}", as_parameters)
    posted = shlex.split(run("network", "sign", "N", "--body", '{"click_id":"x"}').out)
    assert posted[posted.index("--data-raw") + 1] == '{"click_id":"x"}'


def test_a_line_for_fields_needs_the_fields(run: Run) -> None:
    run("network", "add", "N", "--signature", "md5:{a}{b}{secret}", "--secret", "x")
    assert "{a}{b}{secret}" in run("network", "sign", "N", "--param", "a=1", code=2).err


def test_the_doctor_says_what_is_only_observed_and_what_cannot_be_opened(filled: Run, data: Path) -> None:
    filled("network", "set", "TUNE", "--signature", "hmac")

    def lines(code: int) -> list[dict[str, Any]]:
        ran = filled("doctor", "--json", code=code)
        return [line for line in json.loads(ran.out) if line["check"] == "senders of TUNE"]

    (line,) = lines(0)
    assert line["ok"]
    assert "network set TUNE --enforce signature" in line["fix"]
    with apsw.Connection(str(data / "postbackd.db")) as db:
        db.execute("UPDATE networks SET senders = json_set(senders, '$.secrets[0].sealed', '2.AAAA')")
    assert [line["ok"] for line in lines(1)] == [False, True]


def test_the_doctor_says_what_enforced_steps_have_refused_and_whence(filled: Run, data: Path) -> None:
    filled("network", "set", "TUNE", "--allow-ip", "198.51.100.7", "--enforce", "ip")

    def line() -> dict[str, Any]:
        (found,) = [one for one in filled("doctor", "--json").json if one["check"] == "senders of TUNE"]
        return dict(found)

    assert "nothing was refused" in line()["detail"]
    with apsw.Connection(str(data / "postbackd.db")) as db:
        db.execute(
            "INSERT INTO postbacks (request_id, network, channel, verdict, reason, bytes, parameters, sender) "
            "VALUES (?, 1, 0, 6, ?, 0, 0, '203.0.113.0/24')",
            (first_stamp_at(now_ms() - 60_000), Reason.SENDER_IP_NOT_ALLOWED.value),
        )
    found = line()
    assert found["ok"]
    assert "1 sender_ip_not_allowed (1 from 203.0.113.0/24)" in found["detail"]
    assert found["fix"].startswith("If it was the network: ")


def test_an_exported_file_is_toml(run: Run) -> None:
    run("network", "add", "N", *OPTIONS)
    (network,) = tomllib.loads(run("export").out)["network"]
    assert network["senders"]["ip"] == "observe"
    assert network["senders"]["secrets"] == ["current"]
