"""Options that several commands have.

A URL is a password, and what stands on a command line can be seen by every user of the machine: so it can come from the
environment, and so does the secret, always.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Optional

from postbackd_client.client import Client
from postbackd_client.endpoint import EndpointError

URL_VARIABLE = "POSTBACKD_CLIENT_URL"
SECRET_VARIABLE = "POSTBACKD_CLIENT_SECRET"  # noqa: S105 - the name of a variable


def add_tracker(parser: argparse.ArgumentParser) -> None:
    where = f"URL or template of the tracker (or set {URL_VARIABLE}, which others do not see)"
    parser.add_argument("--url", help=where)
    parser.add_argument("--ca-file", help="certificates to trust instead of the system's")
    parser.add_argument("--allow-http", action="store_true", help="plain http within a network of your own")


def add_spool(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--spool", type=Path, required=True, metavar="DIRECTORY", help="the spool's directory"
    )


def make_client(arguments: argparse.Namespace, spool: Optional[Path] = None) -> Client:
    """Raises ``EndpointError`` when no URL is given, or none that can be."""
    url = arguments.url or os.environ.get(URL_VARIABLE)
    if not url:
        raise EndpointError(f"say where to: --url URL, or {URL_VARIABLE} in the environment")
    return Client(
        url,
        spool=spool,
        secret=os.environ.get(SECRET_VARIABLE, ""),
        ca_file=arguments.ca_file,
        allow_http=arguments.allow_http,
    )
