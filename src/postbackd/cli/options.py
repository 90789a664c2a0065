"""Options that many commands share, made from the table of settings."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from postbackd.catalog.errors import EntryError, NoEntry, NotNow
from postbackd.reports.period import Period, read_duration, read_moment
from postbackd.settings import CONFIG_VARIABLE, Setting, find_setting
from postbackd.settings_sources import CONFIG_NAME, Loaded, load
from postbackd.settings_values import SettingsError

F = TypeVar("F", bound=Callable[..., Any])

as_json = click.option("--json", "json_wanted", is_flag=True, help="Print JSON for scripts.")
"""``--json``: the argument ``json_wanted``."""


def takes_settings(*names: str) -> Callable[[F], F]:
    """The options of these settings, handed to the command as one argument ``settings``."""
    return _taking(names, lambda loaded: {"settings": loaded.settings})


def takes_loaded(*names: str) -> Callable[[F], F]:
    """The same with where each value comes from, as one argument ``loaded``."""
    return _taking(names, lambda loaded: {"loaded": loaded})


def _taking(names: tuple[str, ...], hand_over: Callable[[Loaded], dict[str, Any]]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        @wraps(command)
        def loading(*arguments: Any, config: str | None, **options: Any) -> Any:
            given = {name: _join(options.pop(name)) for name in names}
            try:
                loaded = load(given, os.environ, config)
            except SettingsError as error:
                raise click.UsageError(str(error)) from error
            for warning in loaded.warnings:
                click.echo(f"postbackd: {warning}", err=True)
            with _saying():
                return command(*arguments, **hand_over(loaded), **options)

        decorated: Any = _config_option(loading)
        for name in reversed(names):
            decorated = _option(find_setting(name))(decorated)
        return decorated  # type: ignore[no-any-return]  # click's decorators return what they are given

    return decorate


@contextmanager
def _saying() -> Iterator[None]:
    """What is wrong with what was asked of the catalog, as a command says it."""
    try:
        yield
    except EntryError as error:
        raise click.UsageError(str(error)) from error
    except (NoEntry, NotNow) as error:
        raise click.ClickException(str(error)) from error


_config_option = click.option(
    "--config",
    metavar="FILE",
    help=f"Read settings from this file.  [default: {CONFIG_NAME} here or in the data directory; "
    f"or {CONFIG_VARIABLE}]",
)


def _option(setting: Setting) -> Callable[[Any], Any]:
    origin = "" if setting.default in (None, "") else f"default: {setting.default}; "
    return click.option(
        setting.flag,
        setting.name,
        multiple=setting.many,
        metavar=_METAVARS.get(setting.name, "VALUE"),
        help=f"{setting.help}  [{origin}or {setting.variable}]",
    )


def _join(given: Any) -> Any:
    """The values of an option that may be given several times; none are as good as not given."""
    return (",".join(given) or None) if isinstance(given, tuple) else given


_METAVARS = {
    "domain": "NAME",
    "cert": "FILE",
    "key": "FILE",
    "data": "DIR",
    "backup_dir": "DIR",
    "backup_key_file": "FILE",
    "store": "URL",
    "listen": "HOST:PORT",
    "public_url": "URL",
    "node": "N",
}

takes_data = takes_settings("data", "store")
"""Where the data are."""

takes_urls = takes_settings("data", "store", "public_url")
"""Where the data are, and the address that printed URLs begin with."""


def now_ms() -> int:
    """The time at which the command runs, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def as_moment(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    """For the callback of an option: a moment in milliseconds since 1970, see ``read_moment``."""
    return None if text is None else _read(lambda: read_moment(text, now_ms()), ctx, param)


def as_duration(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    """For the callback of an option: seconds, see ``read_duration``."""
    return None if text is None else _read(lambda: read_duration(text), ctx, param)


def _read(reading: Callable[[], int], ctx: click.Context, param: click.Parameter) -> int:
    try:
        return reading()
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


since_option = click.option(
    "--since",
    "since_ms",
    callback=as_moment,
    metavar="TIME",
    help="From then on: 2026-11-23, 2026-11-23T14:00 (UTC), 24h, 7d (168 hours back).",
)
until_option = click.option(
    "--until",
    "until_ms",
    callback=as_moment,
    metavar="TIME",
    help="Until then, not included; written like --since.",
)


def takes_period(command: F) -> F:
    """``--since`` and ``--until``, handed to the command as one argument ``period``."""

    @wraps(command)
    def reading(*arguments: Any, since_ms: int | None, until_ms: int | None, **options: Any) -> Any:
        if since_ms is not None and until_ms is not None and since_ms >= until_ms:
            raise click.UsageError("--since must be earlier than --until; 2h is earlier than 1h")
        return command(*arguments, period=Period(since_ms, until_ms), **options)

    return since_option(until_option(reading))  # type: ignore[return-value]  # as above


def is_left_to_another(context: click.Context) -> bool:
    """Whether a command that can do without a subcommand was given one.

    Raises ``UsageError`` for an option that stands before it: the subcommand would not see it.
    """
    other = context.invoked_subcommand
    if other is None:
        return False
    for parameter in context.command.params:
        name = parameter.name
        if name and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"write {parameter.opts[0]} after {other!r}: it is not read where it stands"
            )
    return True
