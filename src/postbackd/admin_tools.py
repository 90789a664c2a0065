"""What the endpoints of the API need of the layers above them: sealing secrets, and starting commands."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from postbackd.admin.jobs import Run
from postbackd.catalog.accounts import Seal
from postbackd.catalog.errors import NotNow
from postbackd.core.retention import Class
from postbackd.sealing import SealError, find_sealer
from postbackd.settings import Settings
from postbackd.settings_passing import as_environment


def make_tools(settings: Settings) -> Mapping[str, Callable[..., Any]]:
    """For the desk of the database that the settings name."""
    return {"seal": _sealing(settings), "run": _running(settings)}


def _sealing(settings: Settings) -> Seal:
    def seal(values: Mapping[str, str], purpose: str) -> dict[str, str]:
        if not values:
            return {}
        try:
            sealer = find_sealer(settings.secret_key, Path(settings.data), create=True)
            return {name: sealer.seal(value, purpose) for name, value in values.items()}
        except SealError as error:
            raise NotNow(str(error)) from error

    return seal


def _running(settings: Settings) -> Run:
    """Starts commands of this program with the settings of this process; secrets go through the environment."""
    environment = as_environment(settings, _OF_COMMANDS)

    async def run(arguments: Sequence[str]) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "postbackd", *arguments,
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
        )  # fmt: skip

    return run


_OF_COMMANDS = (
    *("data", "store", "public_url", "domain", "secret_key"),
    *("backup_dir", "backup_keep", "backup_every_h", "backup_key_file"),
    *(f"keep_{class_}_days" for class_ in Class),
)
"""Settings that commands read which are started here."""

_LONGEST_LINE = 1 << 24
"""Of what a command prints: the result of a job is one document."""
