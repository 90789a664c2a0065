"""What alarms find and what they invent in simulated months; the documentation has finer figures."""

from __future__ import annotations

from postbackd.core.alarms import Kind
from tests.core.alarm_months import NETWORKS, simulate, sum_up


def test_planted_faults_are_found_and_few_alarms_are_false() -> None:
    """Ten months, looked at every other hour; none of the constants was tuned on them."""
    figures = sum_up([simulate(seed, 2.0) for seed in range(100, 110)])
    assert sum(figures.planted.values()) > 90
    for kind, least in ((Kind.SILENCE, 0.97), (Kind.MATCH_RATE, 0.88), (Kind.DUPLICATES, 0.6)):
        assert figures.found[kind] >= least * figures.planted[kind], figures.missed
        assert figures.hours[kind] < 24
    assert figures.false_a_month <= 0.5, figures.false
    # At most one notice a day and alarm: what lasts for days is not told every hour.
    assert figures.notices / figures.seeds < 5 * len(NETWORKS)
