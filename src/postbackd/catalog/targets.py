"""Targets: a new one, a changed one, and the secrets that it sends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from postbackd.catalog.accounts import Seal, check_values, make_webhook_secret
from postbackd.catalog.changes import Change, Name, Word, given
from postbackd.catalog.entries import STAND_IN, check_entry, check_reactions, need_preset
from postbackd.catalog.errors import EntryError
from postbackd.catalog.senders import Duration
from postbackd.catalog.target_rows import TargetRow, needed_accounts, read_target, write_target
from postbackd.core.model import Catalog, Target
from postbackd.core.outgoing import convert_preset_url, placeholders_left
from postbackd.core.shipping import WEBHOOK
from postbackd.core.templates import TemplateError
from postbackd.core.webhooks import OLD_SECRET, SECRET
from postbackd.store.sealed import TARGET

Text = Annotated[str, Meta(max_length=16_384)]
Pause = Annotated[
    str, Meta(pattern=r"^[0-9]{1,7} ?(ms|s)$", description="A number and s or ms.", examples=["1500ms"])
]
Pattern = Annotated[str, Meta(min_length=1, max_length=500)]


class TargetChange(Change, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change of a target; what is left out stays."""

    name: Name | UnsetType = UNSET
    url: Annotated[Text, Meta(description="Where it is told, with macros.")] | UnsetType = UNSET
    method: Literal["GET", "POST"] | UnsetType = UNSET
    body_type: Literal["", "form", "json"] | UnsetType = UNSET
    body: Text | UnsetType = UNSET
    headers: Annotated[dict[str, Text], Meta(max_length=100)] | UnsetType = UNSET
    on_empty: Literal["drop", "empty"] | UnsetType = UNSET
    adjust_url: Annotated[Text, Meta(description="Where it is told of a changed value.")] | UnsetType = UNSET
    retract_url: Annotated[Text, Meta(description="Where it is told of a reversal.")] | UnsetType = UNSET
    options: (
        Annotated[dict[str, str], Meta(description="What a platform wants to know; nothing secret.")]
        | UnsetType
    ) = UNSET
    types: Annotated[dict[str, Word], Meta(description="Our type -> its word.")] | UnsetType = UNSET
    statuses: Annotated[dict[str, Word], Meta(description="Our status -> its word.")] | UnsetType = UNSET
    success: Annotated[list[Pattern], Meta(max_length=100)] | UnsetType = UNSET
    failure: Annotated[list[Pattern], Meta(max_length=100)] | UnsetType = UNSET
    final: Annotated[list[Annotated[int, Meta(ge=200, le=599)]], Meta(max_length=100)] | UnsetType = UNSET
    fresh: Duration | UnsetType = UNSET
    fresh_from: Literal["conversion", "click"] | UnsetType = UNSET
    schedule: Annotated[list[Duration], Meta(max_length=50)] | UnsetType = UNSET
    connect_timeout: Pause | UnsetType = UNSET
    timeout: Pause | UnsetType = UNSET
    concurrency: Annotated[int, Meta(ge=1, le=1000)] | UnsetType = UNSET
    accounts: (
        Annotated[
            dict[str, str | None],
            Meta(description="Secrets for {account.NAME}: sealed at once, never shown; null takes one away."),
        ]
        | UnsetType
    ) = UNSET
    new_secret: Annotated[
        bool, Meta(description="Sign a webhook with a new secret too, which is shown this once.")
    ] = False


class NewTarget(TargetChange, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A target that is to be added."""

    name: Name
    preset: (
        Annotated[str, Meta(min_length=1, description="Id or name of a preset, see /presets.")] | UnsetType
    ) = UNSET
    kind: Annotated[str, Meta(min_length=1, description="postback, webhook, or a platform.")] | UnsetType = (
        UNSET
    )
    fill: Annotated[dict[str, str], Meta(description="What stands for each <NAME> in a preset's URL.")] = (
        msgspec.field(default_factory=dict)
    )


_NOT_OF_THE_ROW = ("accounts", "new_secret", "fill")


def write_row(change: NewTarget) -> TargetRow:
    """The row of a new target."""
    return fill_url(TargetRow(**given(change, *_NOT_OF_THE_ROW)), change.fill)


def change_row(stored: Target, change: TargetChange) -> TargetRow:
    """The row of a stored target with the change in it."""
    values = given(change, *_NOT_OF_THE_ROW)
    if values.get("body") == "":
        values["body_type"] = ""
    return replace(read_stored(stored), **values)


def read_stored(stored: Target) -> TargetRow:
    """The row that a stored target would be written as."""
    return msgspec.convert(write_target(stored), TargetRow)


def given_accounts(change: TargetChange) -> dict[str, str]:
    """Name -> value; an empty one takes the stored one away."""
    return {} if change.accounts is UNSET else {name: text or "" for name, text in change.accounts.items()}


# --- the URL of a preset -----------------------------------------------------------------------------------------


def placeholders(row: TargetRow) -> tuple[str, ...]:
    """What has to be filled in before the URL of the row's preset can be used.  Raises ``EntryError``."""
    pattern = _pattern(row)
    if not placeholders_left(pattern):
        return ()
    return tuple(_converting(lambda: placeholders_left(convert_preset_url(pattern))))


def fill_url(row: TargetRow, fill: Mapping[str, str]) -> TargetRow:
    """The row with the URL of its preset, filled.  Raises ``EntryError``."""
    pattern = _pattern(row)
    if not placeholders_left(pattern) and not fill:
        return row
    names = _converting(lambda: placeholders_left(convert_preset_url(pattern)))
    for name in fill:
        if name not in names:
            raise EntryError("fill", f"the URL asks for no <{name}>, but for {_list(names)}")
    left = [name for name in names if not fill.get(name)]
    if left:
        raise EntryError("fill", f"{', '.join(left)} must be given")
    return replace(row, url=_converting(lambda: convert_preset_url(pattern, fill)))


def _pattern(row: TargetRow) -> str:
    return row.url or (need_preset("target", row.preset).target_url if row.preset else None) or ""


def _converting(work: Any) -> Any:
    try:
        return work()
    except TemplateError as error:
        raise EntryError("url", str(error)) from error


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"<{name}>" for name in names) or "nothing"


# --- saving it ---------------------------------------------------------------------------------------------------


def missing_accounts(row: TargetRow, values: Mapping[str, str]) -> list[str]:
    """The account values that its requests name and that are not given.  Raises ``EntryError``."""
    return [name for name in needed_accounts(read_target(row, 0, {})) if name not in values]


def new_target(row: TargetRow, values: Mapping[str, str], seal: Seal) -> tuple[Target, str]:
    """The target, checked, and the secret that was made for it.  ``values``: its account values in clear."""
    entry, made = read_target(row, 0, {}), ""
    missing = missing_accounts(row, values)
    if missing:
        raise EntryError("accounts", f"{', '.join(missing)} must be given")
    values = {name: value for name, value in values.items() if value}
    if entry.how.kind == WEBHOOK and not values.get(SECRET):
        made = make_webhook_secret()
        values[SECRET] = made
    check_values(values, entry.how.kind)
    check_entry(replace(entry, secrets=dict.fromkeys(values, STAND_IN)))
    return replace(entry, secrets=seal(values, TARGET)), made


def change_target(
    catalog: Catalog,
    stored: Target,
    row: TargetRow,
    values: Mapping[str, str],
    seal: Seal,
    *,
    new_secret: bool,
) -> tuple[Target, str]:
    """The target as its row says now, checked, and the secret that was made for it.

    ``values``: account values to change; an empty one takes it away.  What rules want of it must stay possible.
    """
    clear = {name: value for name, value in values.items() if value}
    secrets = {name: sealed for name, sealed in stored.secrets.items() if values.get(name) != ""}
    made = ""
    if new_secret:
        if stored.how.kind != WEBHOOK:
            raise EntryError("new_secret", "it is for webhooks; give the target an account value instead")
        made = clear[SECRET] = make_webhook_secret()
        if SECRET in secrets:
            secrets[OLD_SECRET] = secrets[SECRET]
    check_values(clear, stored.how.kind)
    entry = read_target(row, stored.id, {**secrets, **dict.fromkeys(clear, STAND_IN)})
    check_entry(entry)
    for rule in catalog.rules:
        if rule.target == entry.id:
            try:
                check_reactions(rule, entry)
            except EntryError as error:
                raise EntryError(f"rule {rule.name!r} needs it", str(error)) from error
    return replace(entry, secrets={**secrets, **seal(clear, TARGET)}), made
