"""What every test relies on, whoever starts the run."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """A shell hands its background jobs an interrupt that is ignored, and they hand it down to the servers they start;
    what the tests say of Ctrl-C would be a matter of how the run was started."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
