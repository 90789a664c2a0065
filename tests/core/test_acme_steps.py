"""The next step of an order, and how long a failure is waited out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbackd.core.acme_steps import (
    Kind,
    Problem,
    Step,
    advice,
    challenge_to_answer,
    kind_of,
    next_step,
    pause_s,
    poll_pause_s,
)

DRAWS = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("order", "authorizations", "step"),
    [
        ("pending", ["pending", "valid"], Step.PROVE),
        ("pending", ["valid"], Step.WAIT),
        ("pending", ["pending", "invalid"], Step.GIVE_UP),
        ("pending", ["expired"], Step.GIVE_UP),
        ("ready", [], Step.FINALIZE),
        ("processing", [], Step.WAIT),
        ("valid", [], Step.FETCH),
        ("invalid", [], Step.GIVE_UP),
        ("a word of tomorrow", [], Step.GIVE_UP),
    ],
)
def test_the_next_step_follows_from_what_the_authority_says(
    order: str, authorizations: list[str], step: Step
) -> None:
    assert next_step(order, authorizations) is step


def test_the_challenge_that_is_wanted_is_chosen_and_no_other() -> None:
    http, dns, handshake = {"type": "http-01"}, {"type": "dns-01"}, {"type": "tls-alpn-01"}
    for wanted in (http, handshake):
        assert challenge_to_answer([dns, http, handshake], wanted["type"]) is wanted
        assert challenge_to_answer([dns], wanted["type"]) is None


@given(DRAWS)
def test_no_more_than_five_validations_fail_in_an_hour(draw: float) -> None:
    at_s, failures = 0.0, []
    for count in range(1, 20):
        failures.append(at_s)
        at_s += pause_s(Kind.UNPROVEN, count, 0, draw)
    assert max(sum(begin <= at < begin + 3600 for at in failures) for begin in failures) <= 4


@given(st.sampled_from(Kind), st.integers(1, 1000), st.floats(0, 1e6), DRAWS)
def test_a_pause_is_never_shorter_than_the_authority_asked_for_nor_endless(
    kind: Kind, failures: int, retry_after_s: float, draw: float
) -> None:
    pause = pause_s(kind, failures, retry_after_s, draw)
    assert pause >= retry_after_s
    assert pause <= max(6 * 3600, retry_after_s) * 1.2
    assert pause_s(kind, failures + 1, 0, 0) >= pause_s(kind, failures, 0, 0)


@given(st.floats(0, 1e6), st.integers(0, 10_000))
def test_an_order_is_looked_at_neither_all_the_time_nor_rarely(retry_after_s: float, polls: int) -> None:
    assert 0.5 <= poll_pause_s(retry_after_s, polls) <= 60


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (Problem("rateLimited", "", 429), Kind.LIMITED),
        (Problem("", "", 429), Kind.LIMITED),
        (Problem("connection", "", 400), Kind.UNPROVEN),
        (Problem("unauthorized", "", 403), Kind.UNPROVEN),
        (Problem("serverInternal", "", 500), Kind.AWAY),
        (Problem("", "", 503), Kind.AWAY),
        (Problem("rejectedIdentifier", "", 400), Kind.REFUSED),
        (Problem("never heard of", "", 400), Kind.REFUSED),
    ],
)
def test_a_problem_is_of_a_kind_and_says_what_to_do(problem: Problem, kind: Kind) -> None:
    assert kind_of(problem) is kind
    assert len(advice(problem)) > 10


@pytest.mark.parametrize("kind", ["connection", "tls", "unauthorized", "incorrectResponse"])
def test_advice_names_the_port_that_the_challenge_needs(kind: str) -> None:
    assert ("80" in advice(Problem(kind, "")), "443" in advice(Problem(kind, ""))) == (True, False)
    assert "443" in advice(Problem(kind, ""), "tls-alpn-01")
    assert "port 80" not in advice(Problem(kind, ""), "tls-alpn-01")
