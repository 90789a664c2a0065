"""Where settings come from: files, variables that name files, and names that nobody knows."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import click
import pytest

from postbackd.cli.main import COMMANDS, root
from postbackd.settings import Settings, list_settings
from postbackd.settings_sources import CONFIG_NAME, Loaded, load
from postbackd.settings_values import SettingsError
from tests.cli.conftest import Run
from tests.trust.server import Server, run_cli


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def refusal(environ: dict[str, str], config: str | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load({}, environ, config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- which wins --------------------------------------------------------------------------------------------------


def test_the_command_line_wins_over_the_environment_that_over_the_file_and_the_file_over_the_default(
    here: Path,
) -> None:
    write(here / CONFIG_NAME, 'node = 3\nspool_mb = 4\nbatch_limit = 5\nlog_format = "json"\n')
    loaded = load({"node": "1", "data": None}, {"POSTBACKD_NODE": "2", "POSTBACKD_SPOOL_MB": "2"})
    settings = loaded.settings
    assert (settings.node, settings.spool_mb, settings.batch_limit, settings.sync) == (1, 2, 5, "commit")
    assert loaded.origins == {
        "node": "--node",
        "spool_mb": "POSTBACKD_SPOOL_MB",
        "batch_limit": "postbackd.toml, line 3: batch_limit",
        "log_format": "postbackd.toml, line 4: log_format",
    }


def test_the_file_is_the_named_one_or_the_first_of_two_places(here: Path) -> None:
    def node(environ: dict[str, str], config: str | None = None, data: str | None = None) -> int:
        return load({"data": data}, environ, config).settings.node

    assert node({}) == 0
    write(here / "data" / CONFIG_NAME, "node = 1")
    assert node({}) == 1
    assert node({}, data="elsewhere") == 0
    assert node({"POSTBACKD_DATA": str(here / "data")}) == 1
    write(here / CONFIG_NAME, "node = 2")
    assert node({}) == 2
    write(here / "other.toml", "node = 3")
    assert node({"POSTBACKD_CONFIG": "other.toml"}) == 3
    write(here / "more.toml", "node = 4")
    assert node({"POSTBACKD_CONFIG": "other.toml"}, "more.toml") == 4
    assert node({"POSTBACKD_CONFIG": os.devnull}) == 0


def test_every_command_that_takes_settings_takes_the_file(here: Path) -> None:
    def commands(group: click.Group, context: click.Context) -> list[click.Command]:
        found: list[click.Command] = []
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            found += commands(command, context) if isinstance(command, click.Group) else [command]
        return found

    variables = {"data", "store"}
    taking = [
        command
        for command in commands(root, click.Context(root))
        if variables & {parameter.name for parameter in command.params}
    ]
    assert len(taking) > len(COMMANDS) // 2
    for command in taking:
        assert "config" in {parameter.name for parameter in command.params}, command.name


def test_a_server_and_a_command_follow_the_file(here: Path) -> None:
    write(
        here / "given" / "other.toml",
        f'data = "{here}/given/data"\nlisten = "127.0.0.1:1"\nqueue_limit = 77\n',
    )
    extra = {"POSTBACKD_CONFIG": str(here / "given" / "other.toml")}
    with Server(here / "given" / "data", env=extra) as server:
        commands = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in server.ingest_pids()]
        assert commands
        assert all(b"77" in command for command in commands)
    assert (here / "given" / "data" / "postbackd.db").exists()


# --- what is in the file -----------------------------------------------------------------------------------------


def test_a_list_is_accepted_where_values_are_separated_by_commas(here: Path) -> None:
    write(
        here / CONFIG_NAME,
        'deliver_ranges = ["127.0.0.1", "10.0.0.0/8"]\ndeliver_ports = [80, 8443]\nconsent_countries = ["DE", "FR"]',
    )
    settings = load({}, {}).settings
    assert (settings.deliver_ranges, settings.deliver_ports) == ("127.0.0.1,10.0.0.0/8", "80,8443")
    assert settings.consent_countries == "DE,FR"


def test_every_setting_that_says_it_is_separated_by_commas_takes_a_list() -> None:
    for setting in list_settings():
        assert setting.is_list is ("separated by comma" in setting.help), setting.name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodes = 1", "postbackd.toml, line 1: there is no setting 'nodes'; did you mean node?"),
        (
            "\npublic-url = 'x'",
            "postbackd.toml, line 2: there is no setting 'public-url'; did you mean public_url?",
        ),
        ("zzz = 1", "there is no setting 'zzz'; 'postbackd settings' lists them all"),
        ("node = '1'", "postbackd.toml, line 1: node '1' is not usable; node is whole number, 0 to 1023"),
        ("# node\n\n  node = 4096", "line 3: node 4096 is not usable; node is whole number, 0 to 1023"),
        ("node = true", "line 1: node True is not usable"),
        ("node = 1.5", "line 1: node 1.5 is not usable"),
        ("listen = 8080", "line 1: listen 8080 is not usable; listen is text"),
        ("listen = '8080'", "line 1: listen '8080' is not usable; write it as HOST:PORT"),
        ("sync = 'never'", "sync is commit or beside"),
        ("listen = ['a:1']", "line 1: listen ['a:1'] is not usable; listen is text"),
        ("deliver_ports = ['80,81']", "one value, without a comma"),
        ("deliver_ports = [80.5]", "a list of texts or whole numbers"),
        ("deliver_ranges = ['10.0.0.0/40']", "postbackd.toml, line 1: deliver_ranges: "),
        ("[node]\nx = 1", "line 1: node is not usable; settings are not in tables"),
        ("[serve]\nnode = 1", "line 1: there is no setting 'serve'"),
        ("node = \n", "postbackd.toml is no TOML: Invalid value (at line 1"),
        ("node = 1\nnode = 2", "postbackd.toml is no TOML: Cannot overwrite"),
        ("secret_key = 5", "line 1: secret_key is not usable; secret_key is text"),
        ("store = 'mysql://u:hidden@h/d'", "line 1: store is not usable"),
    ],
)
def test_a_mistake_in_the_file_names_the_file_the_line_and_the_key(here: Path, text: str, said: str) -> None:
    write(here / CONFIG_NAME, text)
    message = refusal({})
    assert said in message
    assert "hidden" not in message


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\xff", "is not UTF-8 text"), (b"#" * 1_100_000, "is no file of settings"), (None, "cannot read")],
)
def test_a_file_that_cannot_be_read_is_named(here: Path, content: bytes | None, said: str) -> None:
    path = here / "x.toml"
    if content is not None:
        path.write_bytes(content)
    message = refusal({}, "x.toml")
    assert said in message
    assert "x.toml" in message


def test_a_file_of_the_data_directory_cannot_name_another_one(here: Path) -> None:
    path = write(here / "data" / CONFIG_NAME, "data = 'elsewhere'")
    assert "cannot be set in the data directory itself" in refusal({})
    path.write_text("data = 'data'")
    assert load({}, {}).settings.data == "data"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to somebody else")
def test_a_file_of_somebody_else_is_followed_only_when_it_is_named(here: Path) -> None:
    path = write(here / CONFIG_NAME, "node = 1")
    os.chown(path, 65534, 65534)
    assert "is not used, because others can write to it" in refusal({})
    assert load({}, {}, CONFIG_NAME).settings.node == 1
    os.chown(path, 0, 0)
    path.chmod(0o666)
    assert "is not used" in refusal({})


# --- the environment ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_is_read_from_the_file_that_a_variable_names(here: Path, end: str) -> None:
    write(here / "address", f"postgresql://u:p@h/d{end}")
    loaded = load({}, {"POSTBACKD_STORE_FILE": "address"})
    assert loaded.settings.store == "postgresql://u:p@h/d"
    assert (loaded.origins["store"], loaded.warnings) == ("POSTBACKD_STORE_FILE", ())


def test_only_one_newline_is_taken_off(here: Path) -> None:
    write(here / "key", "a \n\n")
    assert load({}, {"POSTBACKD_SECRET_KEY_FILE": "key"}).settings.secret_key == "a \n"


def test_a_file_with_a_secret_that_everybody_can_read_is_warned_of(here: Path) -> None:
    write(here / "key", "k", 0o644)
    (warning,) = load({}, {"POSTBACKD_SECRET_KEY_FILE": "key"}).warnings
    assert "run: chmod 600 key" in warning
    write(here / CONFIG_NAME, "secret_key = 'k'", 0o644)
    (warning,) = load({}, {}).warnings
    assert "run: chmod 600 postbackd.toml" in warning
    write(here / CONFIG_NAME, "node = 1", 0o644)
    assert load({}, {}).warnings == ()


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (
            {"POSTBACKD_STORE": "x", "POSTBACKD_STORE_FILE": "y"},
            "both POSTBACKD_STORE and POSTBACKD_STORE_FILE",
        ),
        ({"POSTBACKD_STORE_FILE": "gone"}, "POSTBACKD_STORE_FILE: cannot read gone: No such file"),
        ({"POSTBACKD_STORE_FILE": "."}, "POSTBACKD_STORE_FILE: cannot read .: Is a directory"),
        ({"POSTBACKD_STORE_FILE": "/dev/null"}, "is empty"),
        ({"POSTBACKD_STORE_FILE": "/dev/zero"}, "is longer than 65536 bytes"),
        ({"POSTBACKD_STORE_FILE": "binary"}, "binary is not UTF-8 text"),
        ({"POSTBACKD_LISTEN_FILE": "x"}, "POSTBACKD_LISTEN_FILE: only secrets are read from files"),
        ({"POSTBACKD_LISTN": "x"}, "there is no setting POSTBACKD_LISTN; did you mean POSTBACKD_LISTEN?"),
        ({"POSTBACKD_SECRETKEY_FILE": "x"}, "did you mean POSTBACKD_SECRET_KEY_FILE?"),
        ({"POSTBACKD_PORT": "8080"}, "there is no setting POSTBACKD_PORT"),
        ({"POSTBACKD_DATA": "\udcff"}, "POSTBACKD_DATA is not UTF-8 text"),
        ({"POSTBACKD_CONFIG": "a\0b"}, "cannot read"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    here: Path, environ: dict[str, str], said: str
) -> None:
    (here / "binary").write_bytes(b"\xff\xfe")
    assert said in refusal(environ)


def test_variables_that_are_not_settings_are_left_alone(here: Path) -> None:
    environ = {
        "POSTBACKD_TEST_REQUIRE_TOOLS": "1",
        "POSTBACKD_UNSAFE_SYNC": "OFF",
        "POSTBACKD_FAILPOINT": "before_send:1",
        "POSTBACKD_RECEIVER_SECRET": "x",
        "POSTBACKD_SERVICE_HOST": "10.0.0.1",
        "POSTBACKD_SERVICE_PORT_HTTP": "8080",
        "POSTBACKD_PORT": "tcp://10.0.0.1:8080",
        "POSTBACKD_PORT_8080_TCP_ADDR": "10.0.0.1",
        "_POSTBACKD_COMPLETE": "bash_source",
        "PATH": "/bin",
    }
    assert load({}, environ) == Loaded(Settings(), {}, None, ())


# --- the command -------------------------------------------------------------------------------------------------


def test_the_command_shows_each_value_and_where_it_comes_from_but_no_secret(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here / CONFIG_NAME, "secret_key = 'hidden-one'\nnode = 7")
    monkeypatch.setenv("POSTBACKD_STORE", "postgresql://u:hidden-two@h/d")
    ran = run("settings", "--listen", ":1")
    assert "hidden-" not in ran.out + ran.err
    lines = {line.split()[0]: line for line in ran.out.splitlines()}
    assert lines["secret_key"].split("  ")[-1].strip() == "postbackd.toml, line 1: secret_key"
    assert "set (hidden)" in lines["store"]
    assert lines["listen"].split() == ["listen", ":1", "--listen"]
    assert lines["spool_mb"].split() == ["spool_mb", "1024", "default"]
    document = run("settings", "--json").json
    assert document["file"] == CONFIG_NAME
    assert "hidden-" not in json.dumps(document)
    rows = {row["name"]: row for row in document["settings"]}
    assert rows["node"] == {
        "name": "node", "value": 7, "set": True, "secret": False, "from": "postbackd.toml, line 2: node",
    }  # fmt: skip
    assert (rows["store"]["value"], rows["store"]["set"], rows["store"]["from"]) == (
        None,
        True,
        "POSTBACKD_STORE",
    )


def test_the_example_names_every_setting_and_says_what_the_defaults_say(run: Run, here: Path) -> None:
    text = run("settings", "--example").out
    assert tomllib.loads(text) == {}
    for setting in list_settings():
        assert f"\n#{setting.name} = " in text
    assert max(len(line) for line in text.splitlines()) <= 110
    told = "\n".join(line[1:] if line[:1] == "#" and line[1:2] != " " else line for line in text.splitlines())
    write(here / "example.toml", told)
    assert load({}, {}, "example.toml").settings == Settings()


def test_the_example_is_printed_when_the_settings_cannot_be_used(run: Run, here: Path) -> None:
    write(here / CONFIG_NAME, "nonsense")
    assert "--example" in run("settings", code=2).err
    assert "#listen" in run("settings", "--example").out


def test_what_others_may_read_is_said_on_standard_error(run: Run, here: Path) -> None:
    write(here / CONFIG_NAME, "secret_key = 'k'", 0o644)
    ran = run("settings", "--json")
    assert "chmod 600" in ran.err
    assert ran.json["file"] == CONFIG_NAME


# --- arguments that are no text ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [("why", "caf\udce9"), ("nope\udcff",), ("network", "add", "x", "--currency=\udcff"), ("\udcff",)],
)
def test_an_argument_that_is_no_text_is_one_line_and_is_not_shown(
    run: Run, arguments: tuple[str, ...]
) -> None:
    ran = run(*arguments, code=2)
    number = 1 + next(i for i, argument in enumerate(arguments) if not argument.isascii())
    assert ran.err.startswith(f"postbackd: argument number {number} is not UTF-8 text")
    assert ran.err.count("\n") == 1


def test_bytes_that_are_no_text_arrive_as_such_from_a_shell(tmp_path: Path) -> None:
    ran = run_cli(tmp_path / "data", "why", os.fsdecode(b"caf\xe9"))
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
