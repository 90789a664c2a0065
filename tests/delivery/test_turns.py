"""How much a deliverer takes at a time: what it learns from the turns before."""

from __future__ import annotations

from postbackd.delivery.turns import FEWEST_EVENTS, SHORTEST_TURN_S, TurnPace


def test_with_nobody_else_about_it_takes_more_at_a_time_while_there_is_more() -> None:
    pace = TurnPace()
    for _ in range(10):
        pace.worked(pace.events, took_s=0.002, waited_s=0, since_s=0.007)
    assert pace.events > FEWEST_EVENTS
    assert pace.pause_s == SHORTEST_TURN_S
    assert pace.share({1: 1000}) == {1: 128}


def test_a_busy_front_door_comes_first_and_is_given_time_again_and_again() -> None:
    pace = TurnPace()
    for _ in range(10):
        pace.worked(pace.events, took_s=0.004, waited_s=0.002, since_s=0.01)
    assert pace.events == FEWEST_EVENTS
    assert pace.pause_s > 4 * SHORTEST_TURN_S
    assert pace.share({1: 1000}) == {1: 32}
    for _ in range(20):
        pace.worked(3, took_s=0.002, waited_s=0, since_s=0.02)
    assert pace.pause_s == SHORTEST_TURN_S
    assert pace.share({1: 1000}) == {1: 128}


def test_every_target_gets_the_same_and_none_is_forgotten() -> None:
    rooms = TurnPace().share(dict.fromkeys(range(100), 50))
    assert set(rooms.values()) == {4}
    assert TurnPace().share({1: 2, 2: 50}) == {1: 2, 2: 50}
    assert TurnPace().share({}) == {}


def test_a_turn_that_takes_long_is_followed_by_a_smaller_one() -> None:
    pace = TurnPace()
    for _ in range(5):
        pace.worked(pace.events, took_s=0.002, waited_s=0, since_s=0.007)
    large = pace.events
    pace.worked(large, took_s=0.05, waited_s=0, since_s=0.06)
    assert pace.events == large // 2


def test_when_there_is_nothing_to_do_it_looks_more_seldom() -> None:
    pace = TurnPace()
    pauses = []
    for _ in range(6):
        pace.rested()
        pauses.append(pace.pause_s)
    assert pauses == sorted(pauses)
    assert pauses[-1] == 0.04
