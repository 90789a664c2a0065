"""What every test relies on, whoever starts the run."""

from __future__ import annotations

import os
import signal
import sys


def pytest_configure() -> None:
    """A shell hands its background jobs an interrupt that is ignored, and they hand it down to the servers they start;
    what the tests say of Ctrl-C would be a matter of how the run was started.

    Some containers tell Python to keep no compiled modules.  The tests start the program some hundred times, and each
    start would compile all of it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
