"""Loads the library of a queue when it is needed, and says what to install when it is not there."""

from __future__ import annotations

import importlib
from typing import Any


class QueueError(Exception):
    """A queue cannot be used as it was asked for; says what to change.  Trying again changes nothing."""


def load(module: str) -> Any:
    """A module of a queue's library.  Raises ``QueueError`` that names what to install."""
    library, _, _ = module.partition(".")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise QueueError(f"{module} cannot be loaded ({error}): pip install {library}") from error
