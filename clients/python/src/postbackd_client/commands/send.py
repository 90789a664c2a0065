"""``postbackd-client send``: one conversion, now, past any spool."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from dataclasses import asdict

from postbackd_client.commands.options import add_tracker, make_client
from postbackd_client.payload import Conversion, PayloadError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_tracker(parser)
    parser.add_argument("click_id", help="the id that came with the visitor")
    parser.add_argument("--type", default="conversion")
    parser.add_argument("--value", help='decimal text, such as "12.50"')
    parser.add_argument("--currency", default="")
    parser.add_argument("--transaction-id", default="", help="the order's number")
    parser.add_argument("--status", default="")
    parser.add_argument("--time", help="seconds since 1970 or ISO 8601 (default: now)")
    parser.add_argument(
        "--extra", action="append", default=[], metavar="NAME=TEXT", help="a further parameter"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """0 when it is counted, 1 when it is not (yet)."""
    conversion = Conversion(
        arguments.click_id,
        arguments.type,
        arguments.value,
        arguments.currency,
        arguments.transaction_id,
        arguments.status,
        arguments.time,
        dict(_split(text) for text in arguments.extra),
    )
    with closing(make_client(arguments)) as client:
        outcome = client.deliver(conversion)
    if arguments.json:
        print(json.dumps({**asdict(outcome), "transaction_id": conversion.transaction_id}))
    else:
        parts = [outcome.kind, outcome.reason, f"request {outcome.request_id}" if outcome.request_id else ""]
        print(": ".join(part for part in parts if part))
    return 0 if outcome.counted else 1


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise PayloadError(f"write --extra NAME=TEXT, not {text}")
    return name, value
