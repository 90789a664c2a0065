"""``postbackd-client dead``: what was refused or given up, and why; ``--again`` sends it once more."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter

from postbackd_client import dead
from postbackd_client.commands.options import add_spool, add_tracker, make_client
from postbackd_client.payload import decode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_tracker(parser)
    add_spool(parser)
    parser.add_argument(
        "--again", action="store_true", help="send all of them once more, when the cause is mended"
    )
    parser.add_argument("--json", action="store_true", help="each as a line of JSON, for programs")
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="of --again (default: 60)"
    )


def run(arguments: argparse.Namespace) -> int:
    if not arguments.spool.is_dir():
        print(f"there is no directory {arguments.spool}", file=sys.stderr)
        return 2
    if arguments.again:
        return _send_again(arguments)
    if arguments.json:
        for entry in dead.entries(arguments.spool):
            print(json.dumps(entry, ensure_ascii=False))
        return 0
    reasons = Counter(str(entry.get("reason")) for entry in dead.entries(arguments.spool))
    for reason, count in reasons.most_common():
        print(f"{count:>8}  {reason}")
    print(f"{sum(reasons.values())} in all")
    return 0


def _send_again(arguments: argparse.Namespace) -> int:
    """They go through the spool: what fails once more waits there or is dead again, and nothing is lost between."""
    client = make_client(arguments, arguments.spool)
    with dead.exhumed(arguments.spool) as payloads:
        taken = [payload for payload in payloads if not client.report(decode(payload))]
        if taken:
            print(f"{len(taken)} found no place in the spool; make room and try again", file=sys.stderr)
            return 1
    done = client.drain(arguments.timeout)
    found = client.statistics()
    client.close(0)
    print(", ".join(f"{count} {word}" for word, count in found.sent.items()) or "nothing to send")
    return 0 if done and not found.dead else 1
