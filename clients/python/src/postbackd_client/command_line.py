"""``postbackd-client``: looks at a spool, empties one, and sends by hand.

The table below is all there is to add for another command.  What a command needs is imported when it runs.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from importlib import import_module
from typing import NamedTuple, Optional, Sequence

from postbackd_client.endpoint import EndpointError
from postbackd_client.payload import PayloadError
from postbackd_client.version import VERSION

WRONG_USE = 2


class Command(NamedTuple):
    name: str
    does: str
    module: str


COMMANDS = (
    Command("status", "what waits in a spool, and for how long", "postbackd_client.commands.status"),
    Command("send", "send one conversion and print what became of it", "postbackd_client.commands.send"),
    Command("drain", "send what ended processes have left in a spool", "postbackd_client.commands.drain"),
    Command("dead", "show what was refused or given up, or send it again", "postbackd_client.commands.dead"),
    Command("work", "drain a queue (Redis, RabbitMQ) into the tracker", "postbackd_client.commands.work"),
)


def main(words: Optional[Sequence[str]] = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 not (yet) done, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="postbackd-client", description="Reports conversions to a tracker.")
    parser.add_argument("--version", action="version", version=f"postbackd-client {VERSION}")
    parser.add_argument("--verbose", action="store_true", help="say more on standard error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    given = list(sys.argv[1:] if words is None else words)
    for command in COMMANDS:
        one = commands.add_parser(command.name, help=command.does, description=command.does)
        if command.name in given:
            import_module(command.module).add_arguments(one)
    arguments = parser.parse_args(given)
    level = logging.INFO if arguments.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(message)s")
    module = next(command.module for command in COMMANDS if command.name == arguments.command)
    try:
        return int(import_module(module).run(arguments))
    except (EndpointError, PayloadError) as error:
        print(f"postbackd-client: {error}", file=sys.stderr)
        return WRONG_USE
    except BrokenPipeError:  # whoever read has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
