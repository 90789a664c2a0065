"""Settings on their way to a process of our own: it works with what this one was started with, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterable

from postbackd.settings import CONFIG_VARIABLE, Settings, find_setting


def as_environment(settings: Settings, names: Iterable[str]) -> dict[str, str]:
    """The variables that give a process these settings, to be added to its environment.

    It reads no file: there it would find another content than we did, and what is empty here would be filled in from
    it.  A secret has one source.
    """
    environment = {CONFIG_VARIABLE: os.devnull}
    for name in names:
        setting, value = find_setting(name), getattr(settings, name)
        environment[setting.variable] = "" if value is None else str(value)
        if setting.secret:
            environment[setting.file_variable] = ""
    return environment
