"""``postbackd completion``: the completion script of a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from postbackd.cli.main import root

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    For bash: postbackd completion bash > ~/.local/share/bash-completion/completions/postbackd
    """
    complete = get_completion_class(shell)
    assert complete is not None  # SHELLS are the ones that click knows
    click.echo(complete(root, {}, "postbackd", "_POSTBACKD_COMPLETE").source())
