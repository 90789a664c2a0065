"""Places where the trust campaign kills the process, named in ``POSTBACKD_FAILPOINT=name[:n]``.

The process kills itself with SIGKILL the n-th time it passes the place (the first by default).  Without the
variable a failpoint costs one comparison.
"""

from __future__ import annotations

import os
import signal

_NAME, _, _COUNT = os.environ.get("POSTBACKD_FAILPOINT", "").partition(":")
_countdown = iter(range(int(_COUNT) - 1 if _COUNT.isdigit() else 0, -1, -1))


def pass_failpoint(name: str) -> None:
    """Die here when this is the place and the time."""
    if name == _NAME and next(_countdown, 0) == 0:
        os.kill(os.getpid(), signal.SIGKILL)
