"""How commands are found, and how they fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from postbackd.cli.main import COMMANDS, GROUPS, root
from tests.cli.conftest import Run


def test_the_help_lists_every_command_and_imports_none_of_them() -> None:
    script = (
        "import sys\n"
        "from postbackd.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "finally:\n    print('LOADED', [m for m in ('msgspec', 'apsw', 'uvloop', 'asyncio') if m in sys.modules])\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0
    assert ran.stdout.endswith("LOADED []\n")
    assert all(name in ran.stdout for name, (_, line) in COMMANDS.items() if line)


def test_every_command_is_in_one_group_of_the_help() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(COMMANDS)


def test_without_the_driver_of_postgresql_a_command_says_what_to_install(tmp_path: Path) -> None:
    script = (
        "import sys\nsys.modules['asyncpg'] = None\nfrom postbackd.cli.main import main\nmain(sys.argv[1:])\n"
    )
    arguments = ["db", "status", "--store", "postgresql://nobody@127.0.0.1:1/x"]
    ran = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert ran.returncode == 1
    assert "pip install -r requirements-postgres.txt" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("name", [name for name, (_, line) in COMMANDS.items() if line])
def test_a_command_has_help_and_is_what_the_list_says(name: str) -> None:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    assert command.name == name
    assert command.help
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            assert inner.help


def test_a_family_without_a_command_prints_its_help(run: Run) -> None:
    assert "Set it up:" in run().out
    assert "add" in run("network").out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nope",), "No such command 'nope'. Run 'postbackd --help'."),
        (("network", "nope"), "Run 'postbackd network --help'."),
        (("why",), "Missing argument 'ID'. Run 'postbackd why --help'."),
        (("report", "--by", "colour"), "Invalid value for '--by'"),
        (("why", ""), "the ID is empty"),
        (("why", " "), "the ID is empty"),
        (("report", "--since", "1h", "--until", "2h"), "--since must be earlier than --until"),
        (("log", "--since", "2026-02-01", "--until", "2026-02-01"), "--since must be earlier than --until"),
        (("report", "--since", "yesterday"), "'yesterday' is no time; write 2026-11-23"),
        (("network", "list", "--data", ""), "--data '' is not usable"),
        (
            ("offer", "add", "X", "--network", "N", "--url", "u", "--window-max", "soon"),
            "'soon' is no duration",
        ),
    ],
)
def test_a_wrong_call_is_one_line_on_standard_error_and_exit_code_2(
    run: Run, arguments: tuple[str, ...], sentence: str
) -> None:
    ran = run(*arguments, code=2)
    assert sentence in ran.err
    assert ran.err.count("\n") == 1
    assert ran.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("network", "show", "x"),
        ("report",),
        ("log",),
        ("why", "x"),
        ("export",),
        ("keys", "rotate"),
        ("replay",),
        ("purge", "--before", "1d"),
    ],
)
def test_without_a_database_a_command_fails_with_the_next_step(run: Run, arguments: tuple[str, ...]) -> None:
    ran = run(*arguments, code=1)
    assert ran.err.startswith("postbackd: no database in ")
    assert "serve" in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("kind", ["network", "source", "offer", "campaign", "keys"])
def test_before_the_first_start_a_list_is_empty_and_makes_nothing(run: Run, data: Path, kind: str) -> None:
    assert run(kind, "list", "--json").json == []
    ran = run(kind, "list")
    assert ran.out == ""
    assert "yet" in ran.err
    assert not data.exists()


def test_a_list_is_not_called_empty_when_something_of_a_database_is_there(run: Run, data: Path) -> None:
    data.mkdir()
    (data / "postbackd.db-wal").touch()
    assert "no database in" in run("network", "list", code=1).err


@pytest.mark.parametrize("arguments", [("log", "--json"), ("network", "list", "--json")])
def test_a_reader_that_has_seen_enough_ends_a_command_quietly(
    filled: Run, arguments: tuple[str, ...]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "postbackd", *arguments]
        ran = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    finally:
        os.close(writing)
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_the_version_is_printed(run: Run) -> None:
    assert run("version").out.startswith("postbackd ")
    assert set(run("version", "--json").json) >= {"version", "python", "sqlite"}
    assert run("--version").out.startswith("postbackd ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion_script(run: Run, shell: str) -> None:
    assert "_POSTBACKD_COMPLETE" in run("completion", shell).out


@pytest.mark.parametrize("family", [("erase", "list"), ("privacy", "check"), ("backup", "list")])
def test_an_option_before_a_subcommand_is_an_error_and_not_ignored(run: Run, family: tuple[str, str]) -> None:
    command, other = family
    error = run(command, "--data", "elsewhere", other, code=2).err
    assert f"write --data after '{other}'" in error
