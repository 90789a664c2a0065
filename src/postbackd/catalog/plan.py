"""From a catalog file to the changes that make the stored catalog match it.  Nothing here touches the store."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from postbackd.catalog.entries import (
    check_entry,
    check_reactions,
    doubts,
    make_key,
    make_slug,
    need_preset,
    usual_reactions,
)
from postbackd.catalog.errors import EntryError
from postbackd.catalog.file import (
    SECTIONS,
    CampaignRow,
    CatalogFile,
    FileError,
    NetworkRow,
    OfferRow,
    RuleRow,
    SourceRow,
    write_document,
)
from postbackd.catalog.sender_rows import read_senders
from postbackd.catalog.target_rows import TargetRow, needed_accounts, read_target
from postbackd.core.model import (
    Campaign,
    Catalog,
    CatalogEntry,
    Network,
    Offer,
    Rule,
    Source,
    Target,
    WeightedOffer,
)
from postbackd.core.senders import ANYBODY, Senders
from postbackd.core.shipping import WEBHOOK
from postbackd.core.webhooks import SECRET
from postbackd.reports.period import read_duration

E = TypeVar("E", Network, Source, Offer, Campaign, Target, Rule)


class Change(Struct, frozen=True, kw_only=True):
    """One line of the plan."""

    action: Literal["create", "change", "remove"]
    kind: str
    name: str
    fields: dict[str, list[Any]] = {}
    """For a change: field -> [what it is, what it becomes].  Keys and account values are not shown."""


class Plan(Struct, frozen=True, kw_only=True):
    """What to save and what to remove; new entries have negative ids (see ``store.catalog.change_catalog``)."""

    changes: tuple[Change, ...]
    saves: tuple[CatalogEntry, ...]
    removals: tuple[CatalogEntry, ...]
    wanted: Catalog
    """What the catalog will be."""


Secrets = Mapping[str, str]
"""Name of a network -> its new signing secret, sealed."""

Accounts = Mapping[str, Mapping[str, str]]
"""Name of a target -> its new account values, sealed."""


def make_plan(
    file: CatalogFile,
    stored: Catalog,
    slugs_ever: Collection[str],
    accounts: Accounts | None = None,
    secrets: Secrets | None = None,
) -> Plan:
    """Compare a file with the stored catalog.  ``slugs_ever``: of all campaigns, removed ones too.

    Raises ``FileError`` naming file, entry and field.
    """
    accounts, secrets = accounts or {}, secrets or {}
    wanted = _Reader(file, stored, slugs_ever, accounts, secrets).read()
    saves: list[CatalogEntry] = []
    removals: list[CatalogEntry] = []
    changes: list[Change] = []
    before, after = write_document(stored, with_keys=True), write_document(wanted, with_keys=True)
    for kind in SECTIONS:
        old: Mapping[str, CatalogEntry] = {entry.name: entry for entry in getattr(stored, f"{kind}s")}
        new: Mapping[str, CatalogEntry] = {entry.name: entry for entry in getattr(wanted, f"{kind}s")}
        rows = {row["name"]: row for row in before[kind]}
        for row in after[kind]:
            name = row["name"]
            if name not in old:
                changes.append(Change(action="create", kind=kind, name=name))
                saves.append(new[name])
            elif fields := (
                _compare(rows[name], row)
                | _compare_values(kind, accounts.get(name))
                | _compare_secrets(kind, secrets.get(name))
            ):
                changes.append(Change(action="change", kind=kind, name=name, fields=fields))
                saves.append(new[name])
        gone = [entry for name, entry in old.items() if name not in new]
        changes += [Change(action="remove", kind=kind, name=entry.name) for entry in gone]
        removals += gone
    return Plan(changes=tuple(changes), saves=tuple(saves), removals=tuple(removals), wanted=wanted)


def _compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[Any]]:
    differing = [field for field in {**old, **new} if old.get(field) != new.get(field)]
    return {
        field: ["(old key)", "(new key)"]
        if field == "key"
        else [_without_keys(old.get(field)), _without_keys(new.get(field))]
        for field in differing
    }


def _without_keys(value: Any) -> Any:
    """Former keys of a network are as secret as its key."""
    if isinstance(value, dict) and "former_keys" in value:
        return {**value, "former_keys": len(value["former_keys"])}
    return value


def _compare_secrets(kind: str, given: str | None) -> dict[str, list[Any]]:
    return {"signing secret": ["(old secret)", "(new secret)"]} if kind == "network" and given else {}


def _compare_values(kind: str, given: Mapping[str, str] | None) -> dict[str, list[Any]]:
    return {"account values": ["(old values)", "(new values)"]} if kind == "target" and given else {}


class _Reader:
    """The rows of a file as catalog entries, with the ids that stored entries of the same name have."""

    def __init__(
        self,
        file: CatalogFile,
        stored: Catalog,
        slugs_ever: Collection[str],
        accounts: Accounts,
        secrets: Secrets,
    ) -> None:
        self._file = file
        self._secrets = secrets
        self._accounts = accounts
        self._stored = stored
        self._slugs = set(slugs_ever) | {row.slug for row in file.campaigns if row.slug}

    def read(self) -> Catalog:
        networks = self._entries("network", self._file.networks, self._stored.networks, self._network)
        sources = self._entries("source", self._file.sources, self._stored.sources, self._source)
        self._network_ids = {entry.name: entry.id for entry in networks}
        self._source_ids = {entry.name: entry.id for entry in sources}
        offers = self._entries("offer", self._file.offers, self._stored.offers, self._offer)
        self._offer_ids = {entry.name: entry.id for entry in offers}
        campaigns = self._entries("campaign", self._file.campaigns, self._stored.campaigns, self._campaign)
        self._campaign_ids = {entry.name: entry.id for entry in campaigns}
        targets = self._entries("target", self._file.targets, self._stored.targets, self._target)
        self._targets = {entry.name: entry for entry in targets}
        return Catalog(
            generation=0,
            networks=networks,
            sources=sources,
            offers=offers,
            campaigns=campaigns,
            targets=targets,
            rules=self._entries("rule", self._file.rules, self._stored.rules, self._rule),
        )

    def _entries(self, kind: str, rows: Sequence[Any], stored: Iterable[E], make: Any) -> tuple[E, ...]:
        known = {entry.name: entry for entry in stored}
        entries: list[E] = []
        for number, row in enumerate(rows, 1):
            try:
                entry: E = make(row, known.get(row.name), -number)
                check_entry(entry)
            except EntryError as error:
                raise FileError(f"{self._file.path}: {kind} {row.name!r}: {error}") from error
            entries.append(entry)
        return tuple(entries)

    def _network(self, row: NetworkRow, stored: Network | None, new_id: int) -> Network:
        preset = need_preset("network", row.preset) if row.preset else None
        statuses = row.statuses if row.statuses is not None else dict(preset.statuses) if preset else {}
        return Network(
            id=stored.id if stored else new_id,
            name=row.name,
            key=row.key or (stored.key if stored else make_key()),
            preset=preset.id if preset else None,
            currency=row.currency,
            dedup=row.dedup,
            strict=row.strict,
            answer=row.answer or (preset.answer if preset else None) or "json",
            personal_data=row.personal_data,
            fields=_tuples(row.fields),
            types=tuple(type_.casefold() for type_ in row.types),
            statuses=statuses,
            senders=self._senders(row, stored),
        )

    def _senders(self, row: NetworkRow, stored: Network | None) -> Senders:
        senders = read_senders(
            row.senders, stored.senders if stored else ANYBODY, self._secrets.get(row.name)
        )
        if senders.scheme is not None and not senders.secrets:
            value = shlex.quote(f"{row.name}=-")
            step = f"postbackd apply {shlex.quote(self._file.path)} --yes --secret {value}"
            raise EntryError("senders", f"its signing secret is not stored; give it with: {step}")
        return senders

    def _source(self, row: SourceRow, stored: Source | None, new_id: int) -> Source:
        preset = need_preset("source", row.preset) if row.preset else None
        fields = _tuples(row.fields) if row.fields is not None else preset.click_names() if preset else {}
        id_ = stored.id if stored else new_id
        return Source(id=id_, name=row.name, preset=preset.id if preset else None, fields=fields)

    def _offer(self, row: OfferRow, stored: Offer | None, new_id: int) -> Offer:
        return Offer(
            id=stored.id if stored else new_id,
            name=row.name,
            network=_refer("network", row.network, self._network_ids),
            url=row.url,
            window_min_s=_read_window("window_min", row.window_min),
            window_max_s=_read_window("window_max", row.window_max),
        )

    def _campaign(self, row: CampaignRow, stored: Campaign | None, new_id: int) -> Campaign:
        slug = row.slug or (stored.slug if stored else make_slug(row.name, self._slugs))
        self._slugs.add(slug)
        offers = []
        for share in row.offers:
            name, weight = (share, 1) if isinstance(share, str) else (share.offer, share.weight)
            offers.append(WeightedOffer(_refer("offers", name, self._offer_ids), weight))
        return Campaign(
            id=stored.id if stored else new_id,
            name=row.name,
            slug=slug,
            source=_refer("source", row.source, self._source_ids),
            offers=tuple(offers),
        )

    def _target(self, row: TargetRow, stored: Target | None, new_id: int) -> Target:
        given = self._accounts.get(row.name, {})
        secrets = {**(stored.secrets if stored else {}), **given}
        if row.account is not None:
            secrets = {name: sealed for name, sealed in secrets.items() if name in {*row.account, *given}}
        target = read_target(row, stored.id if stored else new_id, secrets)
        needed = {*(row.account or ()), *needed_accounts(target)}
        needed |= {SECRET} if target.how.kind == WEBHOOK else set()
        missing = sorted(needed - secrets.keys())
        if missing:
            raise EntryError("account", self._say_missing(row.name, missing[0], stored is not None))
        return target

    def _say_missing(self, target: str, name: str, is_stored: bool) -> str:
        step = f"postbackd target set {shlex.quote(target)} --account {name}=-"
        if not is_stored:
            value = shlex.quote(f"{target}:{name}=-")
            step = f"postbackd apply {shlex.quote(self._file.path)} --yes --account {value}"
        return f"the value {name} is not stored; give it with: {step}"

    def _rule(self, row: RuleRow, stored: Rule | None, new_id: int) -> Rule:
        if row.target not in self._targets:
            raise EntryError("target", f"the file has no target {row.target!r}; add it or correct the name")
        target = self._targets[row.target]
        on_change, on_reversal = usual_reactions(target.how)
        rule = Rule(
            id=stored.id if stored else new_id,
            name=row.name,
            source=None if row.source is None else _refer("source", row.source, self._source_ids),
            campaign=None if row.campaign is None else _refer("campaign", row.campaign, self._campaign_ids),
            target=target.id,
            condition=row.when.strip(),
            delay_s=_read_window("delay", row.delay),
            payout=row.payout.strip(),
            on_change=row.on_change or on_change,
            on_reversal=row.on_reversal or on_reversal,
        )
        check_reactions(rule, target)
        return rule


def _tuples(fields: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {field: tuple(names) for field, names in fields.items()}


def _refer(field: str, name: str, ids: Mapping[str, int]) -> int:
    if name not in ids:
        raise EntryError(
            field, f"the file has no {field.removesuffix('s')} {name!r}; add it or correct the name"
        )
    return ids[name]


def _read_window(field: str, text: str) -> int:
    try:
        return read_duration(text)
    except ValueError as error:
        raise EntryError(field, str(error)) from error


def find_warnings(plan: Plan) -> list[str]:
    """What is doubtful about the rules that are saved, in sentences without a stop."""
    return [
        f"rule {entry.name!r}: {warning}"
        for entry in plan.saves
        if isinstance(entry, Rule)
        for warning in doubts(plan.wanted, entry)
    ]


def describe_plan(plan: Plan) -> list[dict[str, Any]]:
    """The plan as a document."""
    return [
        {name: value for name, value in msgspec.to_builtins(change).items() if value}
        for change in plan.changes
    ]


def format_plan(plan: Plan) -> str:
    """The plan as text: ``+`` is new, ``~`` changes, ``-`` goes."""
    signs = {"create": "+", "change": "~", "remove": "-"}
    lines = []
    for change in plan.changes:
        lines.append(f"{signs[change.action]} {change.kind} {change.name!r}")
        lines += [f"    {field}: {old!r} -> {new!r}" for field, (old, new) in change.fields.items()]
    return "\n".join(lines)
