"""The clock: against the newest row that is stored, and against the database server's."""

from __future__ import annotations

from postbackd.core.click_id import stamp_ms
from postbackd.core.finding import Finding
from postbackd.core.moments import write_moment

AHEAD_MS = 60_000
"""Nodes may disagree by less than this without harm."""

DRIFT_MS = 2_000


def check_newest(now_ms: int, last_stamp: int) -> Finding:
    """No row may be from the future: the clock was set back, or ran ahead when that was written."""
    newest = stamp_ms(last_stamp) if last_stamp else 0
    if newest <= now_ms + AHEAD_MS:
        return Finding(check="clock", ok=True, detail=f"it is {write_moment(now_ms)}, and no row is newer")
    return Finding(
        check="clock",
        ok=False,
        detail=f"it is {write_moment(now_ms)}, and the newest row is of {write_moment(newest)}",
        fix="Set the clock right and keep it so (chrony or systemd-timesyncd). Ids go on from the newest row; "
        "attribution windows are wrong by the difference until the clock has caught up.",
    )


def check_drift(now_ms: int, server_ms: int) -> Finding:
    """``server_ms``: what the database server said in between."""
    apart = abs(server_ms - now_ms)
    ok = apart <= DRIFT_MS
    return Finding(
        check="clock of the database server",
        ok=ok,
        detail=f"{apart / 1000:.1f} s apart from ours",
        fix=None if ok else "Keep the clocks of all machines right: chrony or systemd-timesyncd.",
    )
