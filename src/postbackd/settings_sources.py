"""Where settings come from: the command line, then the environment, then ``postbackd.toml``, then the defaults.

Here files are found and read, and names that nobody knows are refused; what a setting is and what it may be stands in
``settings`` alone.  A secret is never put into a message.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from postbackd.settings import CONFIG_VARIABLE, PREFIX, Given, Setting, Settings, list_settings
from postbackd.settings_checks import make_settings
from postbackd.settings_values import SettingsError

CONFIG_NAME = "postbackd.toml"
"""Looked for in the working directory, then in the data directory."""

_LONGEST_FILE = 1_048_576
_LONGEST_SECRET = 65_536

_OTHER_VARIABLES = re.compile(rf"{PREFIX}(CONFIG|COMPLETE|RECEIVER_SECRET|FAILPOINT|(UNSAFE|TEST)_[A-Z_]+)")
"""With our prefix, and no settings: of this module, of single commands, and of tests."""

_OF_KUBERNETES = re.compile(
    rf"{PREFIX}(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes and Docker set in every container beside a service that is called postbackd."""

_SHARED_BY_DESIGN = Path("/run/secrets")
"""Where Docker lays secrets, readable by whoever is in the container."""


class Loaded(NamedTuple):
    """The settings, and where they come from."""

    settings: Settings
    origins: Mapping[str, str]
    """Name -> where its value stands; a setting that is not named has its default."""
    file: Path | None
    """The file that was read."""
    warnings: tuple[str, ...]


def load_settings(overrides: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """``load`` without where the values come from."""
    return load(overrides, environ).settings


def load(overrides: Mapping[str, Any], environ: Mapping[str, str], config: str | None = None) -> Loaded:
    """The settings from the command line (``overrides``; ``None`` means not given), the environment and a file.

    ``config``: the file that the command line names.  Raises ``SettingsError``.
    """
    table = {setting.name: setting for setting in list_settings()}
    unknown = set(overrides) - table.keys()
    if unknown:
        raise SettingsError(f"there is no setting {min(unknown)!r}; see docs/reference/settings.md")
    flags = {name: Given(value, table[name].flag) for name, value in overrides.items() if value is not None}
    variables, warnings = _read_environment(environ)
    near = {**variables, **flags}
    data = str(near["data"].value) if "data" in near else Settings().data
    file = _find_file(config, environ, data)
    written, more = ({}, []) if file is None else _read_file(file)
    given = {**written, **near}
    if file == Path(data) / CONFIG_NAME and _leads_away(given, data):
        raise SettingsError(f"{given['data'].origin} cannot be set in the data directory itself; use --data")
    settings = make_settings(given)
    origins = {name: one.origin for name, one in given.items()}
    return Loaded(settings, origins, file, (*warnings, *more))


# --- names -------------------------------------------------------------------------------------------------------


def _nearest(word: str, names: list[str]) -> str:
    close = get_close_matches(word, names, n=1)
    return f"did you mean {close[0]}?" if close else "'postbackd settings' lists them all"


# --- the environment ---------------------------------------------------------------------------------------------


def _read_environment(environ: Mapping[str, str]) -> tuple[dict[str, Given], list[str]]:
    _refuse_unknown(environ)
    given, warnings = {}, []
    for setting in list_settings():
        value, path = environ.get(setting.variable), environ.get(setting.file_variable)
        if value and path and setting.secret:
            raise SettingsError(
                f"both {setting.variable} and {setting.file_variable} are set; keep one of them"
            )
        if value:
            given[setting.name] = Given(_as_text(value, setting.variable), setting.variable)
        elif path and setting.secret:
            text, warning = _read_secret(Path(path), setting.file_variable)
            given[setting.name] = Given(text, setting.file_variable)
            warnings += warning
    return given, warnings


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    settings = list_settings()
    files = [setting.file_variable for setting in settings if setting.secret]
    known = [*(setting.variable for setting in settings), *files, CONFIG_VARIABLE]
    for name in sorted(environ.keys() - set(known)):
        if (
            not name.startswith(PREFIX)
            or _OTHER_VARIABLES.fullmatch(name)
            or _is_of_kubernetes(name, environ)
        ):
            continue
        if name.endswith("_FILE") and name.removesuffix("_FILE") in known:
            raise SettingsError(f"{name}: only secrets are read from files ({', '.join(files)})")
        raise SettingsError(f"there is no setting {name}; {_nearest(name, known)}")


def _is_of_kubernetes(name: str, environ: Mapping[str, str]) -> bool:
    """``POSTBACKD_PORT=8080`` is a mistake, ``POSTBACKD_PORT=tcp://10.0.0.1:8080`` is not ours."""
    whole = name != f"{PREFIX}PORT" or environ[name].startswith(("tcp://", "udp://"))
    return whole and _OF_KUBERNETES.fullmatch(name) is not None


def _as_text(value: str, origin: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise SettingsError(f"{origin} is not UTF-8 text; write it anew") from error
    return value


def _read_secret(path: Path, origin: str) -> tuple[str, list[str]]:
    """The content of a file without the newline at its end, and what there is to say about the file."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_LONGEST_SECRET + 1)
        text = data.decode()
    except UnicodeDecodeError as error:
        raise SettingsError(f"{origin}: {path} is not UTF-8 text") from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"{origin}: cannot read {path}: {_reason(error)}; check the path") from error
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or len(data) > _LONGEST_SECRET:
        problem = "is empty" if not text else f"is longer than {_LONGEST_SECRET} bytes"
        raise SettingsError(f"{origin}: {path} {problem}; it has to hold the value and nothing else")
    exposed = stat.S_ISREG(mode) and mode & stat.S_IROTH and path.parent != _SHARED_BY_DESIGN
    return text, [
        f"{path} holds a secret and everybody can read it; run: chmod 600 {path}"
    ] if exposed else []


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


# --- the file ----------------------------------------------------------------------------------------------------


def _find_file(config: str | None, environ: Mapping[str, str], data: str) -> Path | None:
    """The file that is named, or the first that is there.

    One that was only found must not be somebody else's: a command that is run in a directory of other people would do
    what they wrote.
    """
    named = config or environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    for path in (Path(CONFIG_NAME), Path(data) / CONFIG_NAME):
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            raise SettingsError(f"cannot read {path}: {_reason(error)}; check its owner") from error
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & stat.S_IWOTH:
            raise SettingsError(
                f"{path} is not used, because others can write to it; if it is yours, name it with --config {path}"
            )
        return path
    return None


def _leads_away(given: Mapping[str, Given], data: str) -> bool:
    """Whether another data directory is named than the one in which the file was found."""
    return "data" in given and Path(str(given["data"].value)).resolve() != Path(data).resolve()


def _read_file(path: Path) -> tuple[dict[str, Given], list[str]]:
    """What the file sets, and what there is to say about it."""
    text, mode = _read_text(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f"{path} is no TOML: {error}; 'postbackd settings --example' prints one"
        ) from error
    given = dict(_read_document(document, path, text))
    secrets = [setting.name for setting in list_settings() if setting.secret and setting.name in given]
    exposed = secrets and mode & stat.S_IROTH
    warning = f"{path} holds {' and '.join(secrets)} and everybody can read it; run: chmod 600 {path}"
    return given, [warning] if exposed else []


def _read_text(path: Path) -> tuple[str, int]:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_LONGEST_FILE + 1)
        if len(data) > _LONGEST_FILE:
            raise SettingsError(f"{path} is longer than {_LONGEST_FILE} bytes; it is no file of settings")
        return data.decode(), mode
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read {path}: {_reason(error)}; check --config, or its owner") from error


def _read_document(document: Mapping[str, Any], path: Path, text: str) -> Iterator[tuple[str, Given]]:
    table = {setting.name: setting for setting in list_settings()}
    for name, value in document.items():
        origin = _locate(name, path, text)
        if name not in table:
            problem = f"there is no setting {name!r}; {_nearest(name, list(table))}"
            raise SettingsError(f"{origin.rpartition(':')[0] or path}: {problem}")
        if isinstance(value, dict):
            raise SettingsError(f"{origin} is not usable; settings are not in tables, but at the top")
        if value == "" and table[name].default is None:
            continue  # not set
        yield name, Given(_join(table[name], value, origin), origin, typed=True)


def _locate(name: str, path: Path, text: str) -> str:
    """Where a key stands; the reader of TOML does not say."""
    pattern = re.compile(rf"""\s*(\[\s*)?(["']?){re.escape(name)}\2\s*[].=]""")
    for number, line in enumerate(text.splitlines(), 1):
        if pattern.match(line):
            return f"{path}, line {number}: {name}"
    return f"{path}: {name}"


def _join(setting: Setting, value: Any, origin: str) -> Any:
    """A list as the text that the setting is; anything else as it is."""
    if not (setting.is_list and isinstance(value, list)):
        return value
    if not all(isinstance(item, str) or type(item) is int for item in value):
        raise SettingsError(f"{origin} is not usable; it is a list of texts or whole numbers")
    if any("," in str(item) for item in value):
        raise SettingsError(f"{origin} is not usable; one item of the list is one value, without a comma")
    return ",".join(str(item) for item in value)
