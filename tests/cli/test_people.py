"""``postbackd user``, ``token`` and ``audit``."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run


def test_the_first_link_is_of_an_owner_and_no_secret_is_kept(run: Run, data: Path) -> None:
    refused = run("user", "invite", "--role", "viewer", code=1)
    assert "the first user is an owner" in refused.err
    made = run("user", "invite", "anna", "--json").json
    assert made["role"] == "owner"
    secret = made["link"].partition("code=")[2]
    assert len(secret) == 43
    assert made["link"].startswith("http://127.0.0.1:8081/#/welcome?code=")
    assert run("user", "list", "--json").json == []
    assert secret.encode() not in b"".join(path.read_bytes() for path in data.iterdir() if path.is_file())


def test_what_is_wrong_is_said_with_the_next_step(run: Run) -> None:
    run("network", "add", "N")
    assert "see 'postbackd user list'" in run("user", "reset", "nobody", code=1).err
    assert "see 'postbackd user list'" in run("user", "remove", "nobody", code=1).err
    assert "a user's name is" in run("user", "invite", "anna b", code=2).err
    assert "see 'postbackd token list'" in run("token", "remove", "ci", code=1).err


def test_a_token_is_shown_once_and_removed_by_name(run: Run) -> None:
    made = run("token", "add", "ci", "--scope", "read", "--scope", "catalog", "--json").json
    assert made["token"].startswith("pba_")
    assert "there is a token 'ci' already" in run("token", "add", "ci", code=1).err
    (row,) = run("token", "list", "--json").json
    assert (row["scopes"], row["used"], "token" in row) == (["read", "catalog"], None, False)
    run("token", "remove", "ci")
    assert run("token", "list", "--json").json == []


def test_commands_that_change_something_are_in_the_audit_log(run: Run) -> None:
    run("network", "add", "Shop")
    run("network", "remove", "Shop")
    run("token", "add", "ci")
    lines = run("audit", "--json").json
    assert [(line["kind"], line["action"], line["object"]) for line in lines] == [
        ("command line", "token add", "ci"),
        ("command line", "remove", "network 'Shop'"),
        ("command line", "save", "network 'Shop'"),
    ]
    assert run("audit", "--limit", "1").out.count("\n") == 2
    assert run("audit", "--who", "stranger", "--json").json == []
