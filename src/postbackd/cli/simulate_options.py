"""The options of ``postbackd simulate run`` that say what is simulated, and how fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

import click

from postbackd.cli.options import as_duration
from postbackd.market.losses import Losses
from postbackd.simulating.plan import FEWEST_CLICKS, LONGEST_S, MOST_CLICKS, SHORTEST_S, Plan
from postbackd.simulating.planting import NotPlantable, read_faults
from postbackd.simulating.sending import MOST_RATE, MOST_SPEED, Pace

F = TypeVar("F", bound=Callable[..., Any])

_USUAL, _LOSSES, _PACE = Plan(), Losses(), Pace()


def _percent(name: str, usual: float | None, help_: str) -> Callable[[Any], Any]:
    shown = "each kind of device its own" if usual is None else f"{usual * 100:g}"
    return click.option(
        name, type=click.FloatRange(0, 100), metavar="PERCENT", help=f"{help_}  [default: {shown}]",
        default=None if usual is None else usual * 100,
    )  # fmt: skip


_PLAN_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--seed", type=click.IntRange(min=0), default=_USUAL.seed, show_default=True, metavar="N",
        help="Another number, another market.",
    ),
    click.option(
        "--clicks", type=click.IntRange(FEWEST_CLICKS, MOST_CLICKS), default=_USUAL.clicks, show_default=True,
        metavar="N", help="About how many visits.",
    ),
    click.option(
        "--duration", "duration_s", callback=as_duration, default="3d", show_default=True, metavar="TIME",
        help="Of the market's time, in which visitors come: 90m, 6h, 3d. What follows is told to its end.",
    ),
    click.option(
        "--fault", "faults", multiple=True, metavar="NAME@PLACE",
        help="Plant a misconfiguration; see 'simulate --list-faults'. May be repeated.",
    ),
    _percent("--blockers", _LOSSES.blockers, "Browsers that block pixels."),
    _percent("--abandonment", _LOSSES.abandonment, "Buyers who leave before the pixel has loaded."),
    _percent("--cookies-lost", _LOSSES.cookies, "Buyers whose browser has lost the click id."),
)  # fmt: skip


def takes_plan(command: F) -> F:
    """These options, handed to the command as one argument ``plan``."""

    @wraps(command)
    def reading(
        *arguments: Any,
        seed: int,
        clicks: int,
        duration_s: int,
        faults: Sequence[str],
        blockers: float | None,
        abandonment: float,
        cookies_lost: float,
        **options: Any,
    ) -> Any:
        if not SHORTEST_S <= duration_s <= LONGEST_S:
            raise click.UsageError("--duration must be between 1m and 30d")
        losses = Losses(
            blockers=None if blockers is None else blockers / 100,
            abandonment=abandonment / 100,
            cookies=cookies_lost / 100,
        )
        try:
            planted = read_faults(faults)
        except NotPlantable as error:
            raise click.UsageError(str(error)) from error
        plan = Plan(seed=seed, clicks=clicks, duration_s=duration_s, faults=planted, losses=losses)
        return command(*arguments, plan=plan, **options)

    decorated: Any = reading
    for option in reversed(_PLAN_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]  # click's decorators return what they are given


def takes_pace(command: F) -> F:
    """``--speed`` and ``--rate``, handed to the command as one argument ``pace``."""

    @wraps(command)
    def reading(*arguments: Any, speed: float | None, rate: int, **options: Any) -> Any:
        return command(*arguments, pace=Pace(speed=speed, rate=rate), **options)

    with_rate: Any = click.option(
        "--rate", type=click.IntRange(1, MOST_RATE), default=_PACE.rate, show_default=True, metavar="N",
        help="Requests a second at most.",
    )(reading)  # fmt: skip
    with_speed: Any = click.option(
        "--speed", type=click.FloatRange(1, MOST_SPEED), metavar="N",
        help="Market seconds a second, while visitors come; 3600: an hour a second.  [default: as fast as the server "
        "answers]",
    )(with_rate)  # fmt: skip
    return with_speed  # type: ignore[no-any-return]  # as above
