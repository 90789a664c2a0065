"""What ``/metrics`` shows: every metric once, with its help and its labels.

Base units, and labels from short lists only (networks and targets of the catalog, verdicts, reasons, kinds): never a
campaign, a click or an address.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from postbackd.core.histogram import upper_us
from postbackd.store.metric_queries import ATTEMPT_LADDER_MS

_GROWS = "Counted from when this process started, and only ever growing: a purge or an erasure takes nothing from it."


class Described(Struct, frozen=True):
    """One metric."""

    help: str
    labels: tuple[str, ...] = ()


CLICKS = "postbackd_clicks"
POSTBACKS = "postbackd_postbacks"
REASONS = "postbackd_postback_reasons"
WITH_CLICK_ID = "postbackd_postbacks_with_click_id"
MATCHED = "postbackd_postbacks_matched"
BYTES = "postbackd_postback_bytes"
REFUSALS = "postbackd_refusals"
ATTEMPTS = "postbackd_delivery_attempts"
GIVEN_UP = "postbackd_deliveries_given_up"

COUNTERS: Mapping[str, Described] = {
    CLICKS: Described(f"Clicks by kind; only those that are counted stand in reports. {_GROWS}", ("kind",)),
    POSTBACKS: Described(
        f"Postbacks by network and by what each was answered when it arrived. {_GROWS}",
        ("network", "verdict"),
    ),
    REASONS: Described(f"Postbacks by the reason that their answer gave. {_GROWS}", ("reason",)),
    WITH_CLICK_ID: Described(
        f"Postbacks that carried a click id, usable or not: what the match rate divides by. {_GROWS}",
        ("network",),
    ),
    MATCHED: Described(
        f"Postbacks whose click was found: what the match rate divides. {_GROWS}", ("network",)
    ),
    BYTES: Described(f"Bytes of query and body of postbacks. {_GROWS}", ("network",)),
    REFUSALS: Described(f"Requests that were refused before they reached an endpoint. {_GROWS}", ("kind",)),
    ATTEMPTS: Described(f"Attempts to tell a target something. {_GROWS}", ("outcome",)),
    GIVEN_UP: Described(f"Deliveries that ended without success. {_GROWS}", ("target", "state")),
}
"""Name without ``_total`` -> the metric."""

RESPONSE_TIME = "postbackd_response_time_seconds"
ATTEMPT_TIME = "postbackd_delivery_attempt_seconds"

HISTOGRAMS: Mapping[str, Described] = {
    RESPONSE_TIME: Described(f"From the first byte of a postback to its answer, after the commit. {_GROWS}"),
    ATTEMPT_TIME: Described(f"How long attempts to tell a target something took. {_GROWS}"),
}

RESPONSE_EDGES = tuple(8 * doubling for doubling in range(2, 21))
"""The buckets of ``core.histogram`` that end one of ours: every doubling from 64 microseconds to 17 seconds."""

EDGES_S: Mapping[str, tuple[float, ...]] = {
    RESPONSE_TIME: tuple(upper_us(bucket) / 1e6 for bucket in RESPONSE_EDGES),
    ATTEMPT_TIME: tuple(bound / 1000 for bound in ATTEMPT_LADDER_MS),
}
"""Upper edges of the buckets, without the last one, which has none."""

STORE_UP = "postbackd_store_up"
COUNTING_SINCE = "postbackd_counting_since_timestamp_seconds"
BUILD = "postbackd_build_info"
LAST_POSTBACK = "postbackd_last_postback_timestamp_seconds"
OUTBOX_EVENTS = "postbackd_outbox_events"
OUTBOX_AGE = "postbackd_outbox_age_seconds"
WAITING = "postbackd_deliveries_waiting"
LAG = "postbackd_delivery_lag_seconds"
UNSERVED = "postbackd_target_unserved"
SPOOL = "postbackd_spool_bytes"
DISK_FREE = "postbackd_disk_free_bytes"
BACKUP = "postbackd_backup_timestamp_seconds"
BACKUP_FAILED = "postbackd_backup_failed"
CERTIFICATE = "postbackd_certificate_expiry_timestamp_seconds"

GAUGES: Mapping[str, Described] = {
    STORE_UP: Described("1: the database answers. 0: it does not, and counters stand still until it does."),
    COUNTING_SINCE: Described("From when on the counters count."),
    BUILD: Described("1, with what is running.", ("version",)),
    LAST_POSTBACK: Described("When the newest postback came that this process has seen.", ("network",)),
    OUTBOX_EVENTS: Described(
        "Conversions, counted or changed, that the rules have not been asked about yet."
    ),
    OUTBOX_AGE: Described("How long the oldest of them has waited; 0 when there is none."),
    WAITING: Described("Deliveries that wait to be sent, also for their next attempt.", ("target",)),
    LAG: Described("How long the oldest delivery is overdue; 0 when none is.", ("target",)),
    UNSERVED: Described(
        "1: the target is not served as usual (paused, broken, slowed).", ("target", "state")
    ),
    SPOOL: Described("Requests of this machine that wait for the database to come back."),
    DISK_FREE: Described("Free space where the data directory is."),
    BACKUP: Described("When the newest backup was made; absent without a backup_dir or a backup in it."),
    BACKUP_FAILED: Described("1: the last try to make a backup failed."),
    CERTIFICATE: Described("When the certificate that is served runs out; absent where none is."),
}
