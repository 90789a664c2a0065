"""An example of each endpoint as a line for a shell, for the documentation."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from urllib.parse import quote

from postbackd.admin.endpoints import PREFIX, Endpoint

BASE = "http://127.0.0.1:8081"
"""Where a dashboard listens by default."""

_WORDS: Mapping[str, str] = {
    "networks": "Adnet",
    "sources": "PropellerAds",
    "offers": "Shoes",
    "campaigns": "Summer",
    "targets": "PropellerAds",
    "rules": "Sales",
    "presets": "everflow",
    "backups": "postbackd-20261123T020000Z.backup",
    "deliveries": "0sbhv0dtm0000-17",
}
"""First segment of a path -> what stands for the parameter in it."""


def curl_of(one: Endpoint) -> str:
    """A request that the endpoint takes, if what it names is there."""
    first = one.path.split("/")[1]
    path = re.sub(r"{\w+}", lambda _: quote(_WORDS.get(first, "1")), one.path)
    words = ["curl", "-sS"]
    words += [] if one.method == "GET" else ["-X", one.method]
    line = shlex.join([*words, BASE + PREFIX + path])
    if one.scope is not None:
        line += ' -H "Authorization: Bearer $TOKEN"'
    if one.body is not None:
        line += f" -H 'Content-Type: {one.takes}'"
        line += f" -d {shlex.quote(json.dumps(one.example))}" if one.example else " --data-binary @FILE"
    return line
