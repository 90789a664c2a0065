"""``postbackd-client drain``: send what ended processes have left in a spool; for shops that are gone, and for cron."""

from __future__ import annotations

import argparse
import sys

from postbackd_client.commands.options import add_spool, add_tracker, make_client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_tracker(parser)
    add_spool(parser)
    parser.add_argument(
        "--any-url", action="store_true", help="also what was reported to another URL: it has changed"
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="give up after (default: 60)"
    )


def run(arguments: argparse.Namespace) -> int:
    """0 when nothing is left but what living processes have."""
    if not arguments.spool.is_dir():
        print(f"there is no directory {arguments.spool}", file=sys.stderr)
        return 2
    client = make_client(arguments, arguments.spool)
    done = client.drain(arguments.timeout, any_url=arguments.any_url)
    found = client.statistics()
    client.close(0)
    told = ", ".join(f"{count} {word}" for word, count in found.sent.items()) or "nothing to send"
    print(f"{told}; {found.waiting} still wait" if found.waiting else told)
    if found.foreign:
        print("what was reported to another URL stays (--any-url sends it to this one)", file=sys.stderr)
    if not done and (why := client.health().last_error):
        print(why, file=sys.stderr)
    return 0 if done else 1
