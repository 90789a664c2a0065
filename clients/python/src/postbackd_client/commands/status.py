"""``postbackd-client status``: what waits in a spool, whoever has its files."""

from __future__ import annotations

import argparse
import json
import sys
from time import time

from postbackd_client import dead
from postbackd_client.commands.options import add_spool
from postbackd_client.survey import survey


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_spool(parser)
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    if not arguments.spool.is_dir():
        print(f"there is no directory {arguments.spool}", file=sys.stderr)
        return 2
    files = survey(arguments.spool)
    made = [one.oldest_s for one in files if one.oldest_s is not None]
    found = {
        "waiting": sum(one.waiting for one in files),
        "oldest_age_s": int(time()) - min(made) if made else 0,
        "files": len(files),
        "left_by_ended_processes": sum(one.waiting for one in files if not one.held),
        "unreadable_files": sum(one.unreadable for one in files)
        + len(list(arguments.spool.glob("*.damaged"))),
        "dead": dead.count(arguments.spool),
    }
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name.replace('_', ' '):<26} {value}")
        if found["left_by_ended_processes"]:
            print(
                "\nA process that uses this spool takes over what was left; without one: postbackd-client drain"
            )
    return 0
