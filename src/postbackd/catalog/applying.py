"""Making the stored catalog match a file."""

from __future__ import annotations

from collections.abc import Mapping

from postbackd.catalog.accounts import Seal, check_values
from postbackd.catalog.entries import STAND_IN
from postbackd.catalog.errors import EntryError
from postbackd.catalog.file import CatalogFile
from postbackd.catalog.plan import Accounts, Plan, Secrets, make_plan
from postbackd.catalog.senders import seal_sender_secret
from postbackd.store.base import Store
from postbackd.store.sealed import TARGET


def seal_accounts(file: CatalogFile, given: Mapping[str, Mapping[str, str]], seal: Seal | None) -> Accounts:
    """Target -> its account values, sealed; without ``seal`` only their names are real.  Raises ``EntryError``."""
    kinds = {row.name: row.kind or "" for row in file.targets}
    for target, values in given.items():
        if target not in kinds:
            raise EntryError(
                "--account",
                f"the file has no target {target!r}; write TARGET:NAME=VALUE with the name of a target in it",
            )
        check_values(values, kinds[target])
    if seal is None:
        return {target: dict.fromkeys(values, STAND_IN) for target, values in given.items()}
    return {target: seal(values, TARGET) for target, values in given.items()}


def seal_secrets(file: CatalogFile, given: Mapping[str, str], seal: Seal | None) -> Secrets:
    """Network -> its signing secret, sealed; without ``seal`` only the names are real.  Raises ``EntryError``."""
    names = {row.name for row in file.networks}
    for name in given:
        if name not in names:
            raise EntryError(
                "--secret",
                f"the file has no network {name!r}; write NETWORK=SECRET with the name of a network in it",
            )
    if seal is None:
        return dict.fromkeys(given, STAND_IN)
    return {name: seal_sender_secret(secret, seal) for name, secret in given.items()}


async def apply_file(
    store: Store,
    file: CatalogFile,
    now_ms: int,
    accounts: Accounts,
    secrets: Secrets,
    *,
    dry_run: bool,
    if_generation: int | None = None,
) -> Plan:
    """Plan it, and do it unless it is a ``dry_run``: all changes or none.

    Raises ``FileError``, and ``CatalogConflict`` also when somebody else changes the catalog at the same time.
    """
    slugs_ever = {campaign.slug for campaign in (await store.load_catalog(removed=True)).campaigns}
    stored = await store.load_catalog()
    plan = make_plan(file, stored, slugs_ever, accounts, secrets)
    if plan.changes and not dry_run:
        await store.change_catalog(
            plan.saves, plan.removals, now_ms, if_generation=if_generation or stored.generation
        )
    return plan
