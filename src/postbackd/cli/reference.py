"""Writes ``docs/reference``: pages made from the table of settings, the commands, the reasons and the presets.

``python -m postbackd.cli.reference [DIRECTORY]`` writes them; a test checks that they are current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from postbackd.cli.main import root
from postbackd.core.diagnosis import Reason
from postbackd.core.kept import FOR_EVER, NEVER, POLICY
from postbackd.core.verdicts import Verdict
from postbackd.operations.privacy import table_rows
from postbackd.presets import Preset, checked_on, load_presets
from postbackd.settings import Settings, list_settings

NOTE = "<!-- Made by `python -m postbackd.cli.reference`; change the source, not this page. -->\n"

_VERDICTS: Mapping[Verdict, str] = {
    Verdict.ACCEPTED: "a new conversion was counted",
    Verdict.DUPLICATE: "this click, type and transaction id is counted already; names the first",
    Verdict.UPDATED: "the same conversion with a new status or value; the history is kept",
    Verdict.HELD: "kept until somebody decides",
    Verdict.UNMATCHED: "no click was found; matched later if the click arrives",
    Verdict.REJECTED: "cannot be used",
}


def make_pages() -> dict[str, str]:
    """File name -> text of every generated page."""
    return {
        "settings.md": _settings_page(),
        "cli.md": _cli_page(),
        "reasons.md": _reasons_page(),
        "presets.md": _presets_page(),
        "privacy.md": _privacy_page(),
    }


def _page(title: str, intro: str, body: Iterator[str]) -> str:
    return "\n".join([f"# {title}\n", NOTE, f"{intro}\n", *body]).rstrip() + "\n"


def _table(header: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return (
        "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
        + "\n"
    )


# --- settings ----------------------------------------------------------------------------------------------------


def _settings_page() -> str:
    rows = (
        (
            f"`{setting.name}`",
            f"`{setting.flag}`",
            f"`{setting.variable}`",
            setting.type,
            "" if setting.default is None else f"`{setting.default}`",
            setting.help + (f" Secret: or `{setting.file_variable}`." if setting.secret else ""),
        )
        for setting in list_settings()
    )
    header = ("setting", "option of `serve`", "variable", "value", "default", "meaning")
    intro = (
        "The command line wins over the environment, the environment over `postbackd.toml` (whose keys are the names "
        "in the first column), the file over the default. A secret may also stand in a file that the variable with "
        "`_FILE` at its end names. `postbackd settings` shows what counts; see [the guide](../how-to/settings.md)."
    )
    return _page("Settings", intro, iter([_table(header, rows)]))


# --- commands ----------------------------------------------------------------------------------------------------


def _cli_page() -> str:
    intro = (
        "Every command takes `--data DIR` (or `POSTBACKD_DATA`), and `--json` where it prints. An error is one line "
        "on standard error that names the next step; the exit code is 2 when the command was called wrongly, "
        "1 when it failed."
    )
    return _page("Commands", intro, _commands(root, click.Context(root, info_name="postbackd"), 2))


def _commands(group: click.Group, context: click.Context, level: int) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None  # the group has listed it
        inner = click.Context(command, parent=context, info_name=name)
        if isinstance(command, click.Group):
            yield (
                _command(command, inner, level)
                if command.invoke_without_command
                else f"{'#' * level} {inner.command_path}\n\n{_help_of(command)}\n"
            )
            yield from _commands(command, inner, level + 1)
        else:
            yield _command(command, inner, level)


def _command(command: click.Command, context: click.Context, level: int) -> str:
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [
        f"{'#' * level} {context.command_path}\n",
        f"    {context.command_path} {usage}\n",
        f"{_help_of(command)}\n",
    ]
    records = [record for parameter in command.params if (record := parameter.get_help_record(context))]
    if records:
        parts.append(_table(("option", "meaning"), ((f"`{flags}`", text) for flags, text in records)))
    return "\n".join(parts)


def _help_of(command: click.Command) -> str:
    return "\n".join(line.strip() for line in (command.help or "").strip().splitlines())


# --- reasons -----------------------------------------------------------------------------------------------------


def _reasons_page() -> str:
    verdicts = ((f"`{verdict.word}`", meaning) for verdict, meaning in _VERDICTS.items())
    reasons = ((f"`{reason.word}`", reason.cause, reason.fix) for reason in Reason if reason)
    body = [
        "## Verdicts\n",
        _table(("verdict", "meaning"), verdicts),
        "## Reasons\n",
        "A reason comes with every `unmatched` and `rejected`. An `accepted` may carry one as a warning.\n",
        _table(("reason", "cause", "fix"), reasons),
    ]
    intro = "What the answer to a postback, the log and the reports say."
    return _page("Verdicts and reasons", intro, iter(body))


# --- privacy -----------------------------------------------------------------------------------------------------


def _privacy_page() -> str:
    header = ("table", "columns", "form", "kept, by default", "after an erasure", "purpose")
    body = [
        _table(header, iter(table_rows(Settings().keep))),
        "## Never kept\n",
        _table(("what", "what becomes of it"), iter(NEVER.items())),
        "## Nothing of a person or a request\n",
        _table(("table", "holds"), iter(FOR_EVER.items())),
        "## For a privacy policy\n",
        POLICY,
    ]
    intro = (
        "What is kept of people and requests. `postbackd privacy` prints it with the settings in force, "
        "`postbackd privacy check` looks whether it is true; [the guide](../how-to/privacy.md) says what to do with it."
    )
    return _page("What is kept", intro, iter(body))


# --- presets -----------------------------------------------------------------------------------------------------


def _presets_page() -> str:
    intro = (
        f"What known senders and receivers call things, compared with their sources on {checked_on()}. "
        "`--preset ID` puts their macros into the URLs that are printed."
    )
    return _page("Presets", intro, _preset_sections())


def _preset_sections() -> Iterator[str]:
    titles = {"source": "Traffic sources", "network": "Networks", "mmp": "Measurement partners"}
    titles |= {"tracker": "Trackers", "rtb": "Exchanges"}
    for kind, title in titles.items():
        rows = (_preset_row(preset) for preset in load_presets() if preset.kind == kind)
        yield f"## {title}\n"
        yield _table(("id", "name", "macros", "known from", "notes"), rows)


def _preset_row(preset: Preset) -> Sequence[str]:
    macros = ", ".join(f"{field} `{macro}`" for field, macro in {**preset.fields, **preset.others}.items())
    return f"`{preset.id}`", preset.name, macros, preset.grade, preset.notes or ""


def write_pages(directory: Path) -> list[Path]:
    """Write every page; returns where."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in make_pages().items():
        path = directory / name
        path.write_text(text, "utf-8")
        written.append(path)
    return written


if __name__ == "__main__":
    for page in write_pages(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference")):
        click.echo(page)
