"""Whether the secrets in a database can be opened: for ``secrets check`` and the doctor.  None of them is shown."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from postbackd.core.finding import Finding
from postbackd.sealing import KEY_NAME, Sealer, SealError, find_sealer
from postbackd.settings import Settings
from postbackd.store.base import SealedValue
from postbackd.store.sealed import ENDPOINT_KEY, PRIVACY_KEY, SIGNING_KEY, TARGET

OPENS, OLDER, CLEAR, CLOSED = "opens", "opens with an older key", "in clear", "does not open"
"""States of a secret."""


class Checked(Struct, frozen=True):
    """One secret, and whether it can be opened."""

    value: SealedValue
    state: str
    problem: str = ""

    @property
    def what(self) -> str:
        """What the secret is, in words."""
        owner = f" {self.value.owner!r}" if self.value.owner else ""
        return f"{self.value.purpose}{owner}" + (f", {self.value.name}" if self.value.name else "")


def check_values(values: Sequence[SealedValue], settings: Settings) -> list[Checked]:
    """Try to open each of them."""
    try:
        sealer = find_sealer(settings.secret_key, Path(settings.data), create=False)
    except SealError as error:
        return [_without_key(value, str(error)) for value in values]
    return [_check(value, sealer) for value in values]


def _without_key(value: SealedValue, problem: str) -> Checked:
    return Checked(value, CLEAR) if value.sealed is None else Checked(value, CLOSED, problem)


def _check(value: SealedValue, sealer: Sealer) -> Checked:
    if value.sealed is None:
        return Checked(value, CLEAR)
    try:
        newest = sealer.is_newest(value.sealed, value.purpose)
    except SealError as error:
        return Checked(value, CLOSED, str(error))
    return Checked(value, OPENS if newest else OLDER)


# --- for the doctor ----------------------------------------------------------------------------------------------

KEYS = "sealed keys"
"""The check of what nothing works without: endpoint keys, and the keys of click ids."""

_KEY_PURPOSES = (ENDPOINT_KEY, SIGNING_KEY, PRIVACY_KEY)


def look_at_secrets(values: Sequence[SealedValue], settings: Settings) -> list[Finding]:
    """A finding for each target whose secret does not open, and one for everything else that is sealed."""
    checked = check_values(values, settings)
    targets = [one for one in checked if one.value.purpose == TARGET]
    closed = {one.value.owner: one for one in targets if one.state == CLOSED}
    findings = [_look_at_target(one) for one in closed.values()]
    if targets and not closed:
        count = len(targets)
        findings.append(
            Finding(check="secrets of targets", ok=True, detail=f"{count}, and all can be opened")
        )
    return [_look_at_keys([one for one in checked if one.value.purpose in _KEY_PURPOSES]), *findings]


def _look_at_target(one: Checked) -> Finding:
    return Finding(
        check=f"secret of target {one.value.owner}",
        ok=False,
        detail=f"{one.value.name} does not open: {one.problem}",
        fix=f"Its deliveries wait. Bring the key back, or run: "
        f"{shlex.join(['postbackd', 'target', 'set', one.value.owner, '--account', f'{one.value.name}=-'])}",
    )


def _look_at_keys(keys: Sequence[Checked]) -> Finding:
    closed = [one for one in keys if one.state == CLOSED]
    if closed:
        return Finding(
            check=KEYS,
            ok=False,
            detail=f"{len(closed)} do not open; {closed[0].what}: {closed[0].problem}",
            fix=f"Bring the key back: {KEY_NAME} in the data directory, or POSTBACKD_SECRET_KEY.",
        )
    if any(one.state == CLEAR for one in keys):
        return Finding(
            check=KEYS,
            ok=True,
            detail="endpoint keys and the keys of click ids are in clear in the database",
            fix="Give every process the same POSTBACKD_SECRET_KEY, then run: postbackd secrets seal",
        )
    older = any(one.state == OLDER for one in keys)
    return Finding(
        check=KEYS,
        ok=True,
        detail=f"{len(keys)}, and all can be opened{', some with an older key' if older else ''}",
        fix="Finish the change of the key: postbackd secrets rotate" if older else None,
    )
