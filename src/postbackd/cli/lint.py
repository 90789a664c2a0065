"""``postbackd lint``: what is wrong with a URL before it is pasted anywhere, and how it should read.

It needs no data directory: with one, it also knows the networks, sources, keys and campaigns that there are.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import click

from postbackd.catalog.linting import Linter, Whose, describe_linted
from postbackd.cli.options import as_json, takes_urls
from postbackd.cli.session import base_url, print_json, visit
from postbackd.core.linting import Flaw, Kind, Linted, Severity
from postbackd.core.model import Catalog
from postbackd.settings import Settings
from postbackd.store.sqlite_file import FILE_NAME

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.ADVICE: "cyan"}
_NAMES = {
    Kind.CLICK: "a click URL",
    Kind.OFFER: "the URL of an offer",
    Kind.POSTBACK: "a postback URL",
    Kind.TARGET: "the URL of a target",
}
_NARROWEST, _WIDEST = 40, 120
_MOST_URLS = 100_000


@click.command()
@click.argument("urls", metavar="[URL]...", nargs=-1)
@click.option(
    "--for-network", "network", metavar="NAME", help="The URL is for this network, or a preset of one."
)
@click.option(
    "--for-source", "source", metavar="NAME", help="The URL is for this source, or a preset of one."
)
@click.option(
    "--preset", metavar="ID", help="The URL is for what this preset describes; see 'postbackd presets list'."
)
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in Kind]),
    help="What it is for; found from its shape otherwise.",
)
@click.option(
    "--file", "file", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True),
    help="Read URLs from this file, one a line; - is standard input.",
)  # fmt: skip
@as_json
@takes_urls
def lint(
    urls: tuple[str, ...],
    network: str | None,
    source: str | None,
    preset: str | None,
    kind: str | None,
    file: Path | None,
    settings: Settings,
    json_wanted: bool,
) -> None:
    """Find what is wrong with URLs before they are pasted anywhere, and mend what can mean nothing else.

    Click URLs, offer URLs, postback URLs, and those of targets. Quote a URL for the shell: '&' and '{' have a meaning
    there. Without a URL they are read from standard input, one a line. Exit code 1 when an error was found, 0 with
    warnings alone.
    """
    given = _read_urls(urls, file)
    linter = Linter(
        _load_catalog(settings),
        [base_url(settings)],
        Whose(network, source, preset),
        Kind(kind) if kind else None,
    )
    linted = map(linter.lint, given)
    if _print_json(linted) if json_wanted else _print(linted):
        raise click.exceptions.Exit(1)


def _print_json(linted: Iterable[Linted]) -> bool:
    """Whether there is an error."""
    documents = [describe_linted(one) for one in linted]
    print_json(documents)
    return not all(document["ok"] for document in documents)


def _print(linted: Iterable[Linted]) -> bool:
    """Whether there is an error; each is shown as soon as it was looked at."""
    has_errors = False
    for number, one in enumerate(linted):
        click.echo(("\n" if number else "") + _format(one), nl=False)
        has_errors |= one.has_errors
    return has_errors


def _load_catalog(settings: Settings) -> Catalog | None:
    """What there is; a machine that never had a database has presets to go by."""
    if settings.store is None and not (Path(settings.data) / FILE_NAME).exists():
        return None
    return visit(settings, lambda session: session.load())


# --- which URLs ---------------------------------------------------------------------------------------------------


def _read_urls(urls: Sequence[str], file: Path | None) -> list[str]:
    if urls and file is not None:
        raise click.UsageError("give URLs or --file, not both")
    if urls:
        return list(urls)
    if file is None and sys.stdin.isatty():
        raise click.UsageError("there is no URL; give one in quotes, a --file, or lines on standard input")
    found = list(_read_lines(file))
    if not found:
        raise click.UsageError("there is no URL in what was read; write one a line")
    return found


def _read_lines(file: Path | None) -> Iterator[str]:
    try:
        with click.open_file(str(file or "-"), encoding="utf-8-sig", errors="replace") as lines:
            yield from _take(lines)
    except OSError as error:
        raise click.ClickException(f"cannot read {file}: {error.strerror or error}") from error


def _take(lines: IO[str]) -> Iterator[str]:
    """Lines that hold something, as they are but for their ends."""
    for number, line in enumerate(lines):
        if number >= _MOST_URLS:
            raise click.ClickException(f"there are more than {_MOST_URLS:,} lines; give them in parts")
        if text := line.rstrip("\r\n"):
            yield text


# --- in words -----------------------------------------------------------------------------------------------------


def _format(linted: Linted) -> str:
    whose = f" for {linted.whose}" if linted.whose else ""
    lines = [_show(linted.url), f"  {_NAMES[linted.kind]}{whose}: {linted.why}"]
    for flaw in linted.flaws:
        lines += ["", *_format_flaw(linted.url, flaw)]
    if linted.more:
        lines += ["", f"  and {linted.more:,} more"]
    lines.append("")
    if not linted.flaws:
        lines.append("  nothing is wrong with it")
    elif linted.mended is not None:
        lines += [f"  {_count(linted.flaws)}; mended:", _show(linted.mended)]
    else:
        lines.append(f"  {_count(linted.flaws)}; nothing of it can be mended without knowing more")
    return "\n".join(lines) + "\n"


def _count(flaws: Sequence[Flaw]) -> str:
    counts = Counter(flaw.severity for flaw in flaws)
    words = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.ADVICE: "piece of advice"}
    several = {Severity.ERROR: "errors", Severity.WARNING: "warnings", Severity.ADVICE: "pieces of advice"}
    return ", ".join(
        f"{counts[one]} {words[one] if counts[one] == 1 else several[one]}" for one in Severity if counts[one]
    )


def _format_flaw(url: str, flaw: Flaw) -> list[str]:
    colour = _COLOURS[flaw.severity]
    excerpt, marks = _underline(url, flaw.start, flaw.end)
    mended = " (mended)" if flaw.safe else ""
    return [
        f"  {click.style(flaw.severity.value, fg=colour, bold=True)} {flaw.check}, position {flaw.start + 1}",
        f"    {excerpt}",
        f"    {click.style(marks, fg=colour)}",
        f"    {_show(flaw.cause)}",
        f"    {_show(flaw.fix)}{mended}",
    ]


def _underline(url: str, start: int, end: int) -> tuple[str, str]:
    """A piece of the URL as wide as the terminal, and marks below the place."""
    width = min(max(shutil.get_terminal_size((100, 24)).columns - 6, _NARROWEST), _WIDEST)
    length = min(max(end - start, 1), width - 12)
    first = max(0, min(start - (width - length) // 3, len(url) - width + 2))
    last = min(len(url), first + width - 2)
    before, behind = "…" if first else "", "…" if last < len(url) else ""
    marks = "^" * max(1, min(end, last) - start)
    return f"{before}{_show(url[first:last])}{behind}", f"{' ' * (len(before) + start - first)}{marks}"


def _show(text: str) -> str:
    """A text that does nothing to a terminal and takes one column a character."""
    return "".join(character if character.isprintable() else "·" for character in text)
