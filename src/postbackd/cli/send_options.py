"""What the commands that talk to endpoints share: trust, time limits, patterns of bodies, headers, rates."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from postbackd.cli.catalog import read_pairs
from postbackd.core.replies import PatternError, check_patterns
from postbackd.delivery.client import make_tls
from postbackd.delivery.request import OddRequest, Place, read_place

F = TypeVar("F", bound=Callable[..., Any])


class Bodies(NamedTuple):
    """What the body of an answer 2xx has to say, for endpoints that answer 200 to everything."""

    success: tuple[str, ...] = ()
    failure: tuple[str, ...] = ()


def takes_bodies(command: F) -> F:
    """``--success`` and ``--failure``, handed on as one argument ``bodies``."""

    @wraps(command)
    def reading(*arguments: Any, success: tuple[str, ...], failure: tuple[str, ...], **options: Any) -> Any:
        for option, patterns in (("--success", success), ("--failure", failure)):
            try:
                check_patterns(patterns)
            except PatternError as error:
                raise click.UsageError(f"{option}: {error}") from error
        return command(*arguments, bodies=Bodies(success, failure), **options)

    decorated: Any = click.option(
        "--failure", multiple=True, metavar="REGEX", help="A body of 200 that means: not taken; repeatable."
    )(reading)
    return click.option(  # type: ignore[no-any-return]
        "--success", multiple=True, metavar="REGEX", help="What a body of 200 has to say; repeatable."
    )(decorated)


def takes_trust(timeout_s: float) -> Callable[[F], F]:
    """``--ca`` and ``--timeout``; see ``make_trust``."""

    def decorate(command: F) -> F:
        decorated: Any = click.option(
            "--ca", metavar="FILE", help="Trust the authorities of this PEM file instead of the system's."
        )(command)
        return click.option(  # type: ignore[no-any-return]
            "--timeout",
            "timeout_s",
            type=click.FloatRange(0.05, 120),
            default=timeout_s,
            show_default=True,
            metavar="SECONDS",
            help="How long one exchange may take.",
        )(decorated)

    return decorate


def make_trust(options: Mapping[str, Any]) -> tuple[ssl.SSLContext, int]:
    """Whom to trust, and the time limit in milliseconds."""
    return make_context(options["ca"]), int(options["timeout_s"] * 1000)


def make_context(authorities: str | None, option: str = "--ca") -> ssl.SSLContext:
    """TLS that verifies; with other authorities than the system's."""
    try:
        return make_tls(authorities)
    except (OSError, ssl.SSLError) as error:
        what = error.strerror if isinstance(error, FileNotFoundError) else "it holds no certificates in PEM"
        raise click.UsageError(f"{option} {authorities}: {what}; name a PEM file") from error


def check_url(url: str) -> str:
    """A URL that a request can be made of, macros aside."""
    try:
        read_place(url)
    except OddRequest as error:
        raise click.UsageError(f"{url[:80]!r}: {error}") from error
    if "#" in url:
        raise click.UsageError(f"{url[:80]!r}: it has a fragment (#...), which is never sent; write %23")
    return url


def read_server(text: str) -> Place:
    """A URL that names a server and nothing on it."""
    example = "write it as http://127.0.0.1:8080"
    try:
        place = read_place(text)
    except OddRequest as error:
        raise click.UsageError(f"{text[:80]!r} is no address of a server: {error}; {example}") from error
    if text.partition("://")[2].strip("/").count("/") or "?" in text or "#" in text:
        raise click.UsageError(f"{text[:80]!r} holds more than the address of a server; {example}")
    return place


def write_file(path: Path, text: str) -> None:
    """Write a page that was asked for."""
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from error


def check_headers(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Headers written as ``NAME=VALUE``."""
    return tuple(read_pairs(texts, "--header", "NAME=VALUE").items())


def read_rate(ctx: click.Context, param: click.Parameter, text: str | None) -> float | None:
    """For the callback of an option: ``20``, ``20/s`` or ``0.5/s`` as requests a second."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*(?:/\s*s)?\s*", text)
    if match is None or not float(match[1]):
        raise click.BadParameter(f"{text!r} is not usable; write it like 20/s", ctx, param)
    return float(match[1])
