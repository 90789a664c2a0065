"""Places where the trust campaign kills the process, named in ``POSTBACKD_FAILPOINT=name[:n]``.

The process kills itself with SIGKILL the n-th time it passes the place (the first by default).  Without the
variable a failpoint costs one comparison.
"""

from __future__ import annotations

import os
import signal

_NAME, _, _COUNT = os.environ.get("POSTBACKD_FAILPOINT", "").partition(":")
_left = int(_COUNT) if _COUNT.isdigit() else 1


def pass_failpoint(name: str) -> None:
    """Die here when this is the place and the time."""
    if name != _NAME:
        return
    global _left
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
