"""Lets people in: checks name, password and code, opens sessions, and follows one-time links."""

from __future__ import annotations

import os
from collections.abc import Callable
from secrets import token_urlsafe
from typing import NamedTuple

from postbackd.admin.passwords import NOBODYS, Passwords, is_old
from postbackd.admin.problems import Problem
from postbackd.core.guessing import Guesses
from postbackd.core.people import (
    SECRET_BYTES,
    Code,
    Purpose,
    Role,
    User,
    check_password,
    code_of,
    hash_secret,
    read_name,
    welcome_link,
)
from postbackd.core.totp import SEED_BYTES, clean_code, find_step, write_recovery, write_seed
from postbackd.store.people import CodeSpent, People

RECOVERY_CODES = 8

WRONG = "the name, the password or the code is wrong"
"""Whichever it is."""


class Opened(NamedTuple):
    """A session that has just begun."""

    secret: str
    """For the cookie."""
    user: User


class Reception:
    """What is known while the process runs: who has been guessing, and how many passwords are being hashed."""

    def __init__(
        self,
        people: People,
        now_ms: Callable[[], int],
        *,
        url: str = "http://127.0.0.1:8081",
        client_of: Callable[[str, dict[bytes, bytes]], str] = lambda peer, _: peer,
    ) -> None:
        """``url``: under which people reach the dashboard; ``client_of``: see ``ingest.client.Proxies``."""
        self.people = people
        self.url = url
        self.client_of = client_of
        self.guesses = Guesses()
        self.passwords = Passwords()
        self._now_ms = now_ms

    # --- signing in ------------------------------------------------------------------------------------------

    async def sign_in(self, name: str, password: str, code: str, prefix: str, *, instead_of: str) -> Opened:
        """``instead_of``: the secret of the session that the browser shows, if any.  Raises ``Problem``."""
        account = name.strip().lower()
        user = await self.people.find_user(account)
        self.slow(account, prefix, is_known=user is not None and prefix in user.known)
        is_right = await self.passwords.match(password, NOBODYS if user is None else user.password)
        if user is None or not is_right:
            raise Problem(401, WRONG)
        if user.totp_on:
            await self._check_code(user, code)
        if is_old(user.password):
            await self.people.set_password(user, await self.passwords.hash(password), but=None)
        return await self.open(user, prefix, instead_of=instead_of)

    def slow(self, account: str, prefix: str, *, is_known: bool) -> None:
        """Raises ``Problem`` when there were too many attempts."""
        wait_s = self.guesses.take(account, prefix, self._now_ms() / 1000, is_known=is_known)
        if wait_s:
            detail = f"too many attempts to sign in; try again in {wait_s:.0f} s"
            raise Problem(429, detail, headers={"Retry-After": str(int(wait_s) + 1)})

    async def _check_code(self, user: User, text: str) -> None:
        code = clean_code(text)
        if not code:
            raise Problem(
                401, "give the code that your authenticator shows, or a recovery code", field="code"
            )
        step = find_step(await self.people.seed_of(user), code, self._now_ms(), user.totp_step)
        if step is not None and await self.people.take_step(user, step):
            return
        if len(code) > 6 and await self.people.take_recovery(user, hash_secret(code)):
            return
        raise Problem(401, "this code is wrong, or was used before; wait for the next one", field="code")

    async def open(self, user: User, prefix: str, *, instead_of: str) -> Opened:
        """A new session: never one that somebody else may know already."""
        secret = token_urlsafe(SECRET_BYTES)
        old = hash_secret(instead_of)
        await self.people.open_session(user, hash_secret(secret), prefix, self._now_ms(), instead_of=old)
        return Opened(secret, user)

    # --- one-time links --------------------------------------------------------------------------------------

    async def invite(self, purpose: Purpose, role: Role, name: str, made_by: str) -> tuple[str, Code]:
        """A new link, and what is kept of it."""
        secret = token_urlsafe(SECRET_BYTES)
        code = code_of(secret, purpose, role, name, made_by, self._now_ms())
        await self.people.add_code(code)
        return secret, code

    def link(self, secret: str) -> str:
        """What somebody opens in a browser.  Behind the ``#``: browsers send that to no server and no log has it."""
        return welcome_link(self.url, secret)

    async def look_at(self, secret: str) -> Code:
        """What a link is for.  Raises ``Problem``."""
        code = await self.people.find_code(hash_secret(secret), self._now_ms())
        if code is None:
            raise _spent()
        return code

    async def follow(self, secret: str, name: str, password: str, prefix: str, *, instead_of: str) -> Opened:
        """Choose a password, and a name where the link names nobody.  Raises ``Problem``, ``CatalogConflict``."""
        code = await self.look_at(secret)
        chosen = code.name or self.read_name(name)
        self.check_password(password, chosen)
        stored = await self.passwords.hash(password)
        try:
            user = await self.people.follow_code(code.hash, chosen, stored, self._now_ms())
        except CodeSpent as error:
            raise _spent() from error
        return await self.open(user, prefix, instead_of=instead_of)

    def read_name(self, name: str) -> str:
        """Raises ``Problem``."""
        try:
            return read_name(name)
        except ValueError as error:
            raise Problem(400, str(error), field="name") from error

    def check_password(self, password: str, name: str) -> None:
        """Raises ``Problem``."""
        try:
            check_password(password, name)
        except ValueError as error:
            raise Problem(400, str(error), field="password") from error

    # --- one's own account -----------------------------------------------------------------------------------

    async def prove(self, user: User, password: str, prefix: str) -> None:
        """That whoever uses a session knows the password too.  Raises ``Problem``."""
        self.slow(user.name, prefix, is_known=True)
        if not await self.passwords.match(password, user.password):
            raise Problem(403, "this is not your password", field="password")

    async def begin_totp(self, user: User) -> tuple[str, list[str]]:
        """A new seed and its recovery codes; not asked for before it is confirmed."""
        seed = write_seed(os.urandom(SEED_BYTES))
        recovery = write_recovery(os.urandom(10) for _ in range(RECOVERY_CODES))
        hashes = [hash_secret(clean_code(code)) for code in recovery]
        await self.people.set_totp(user, seed, hashes, on=False)
        return seed, recovery

    async def confirm_totp(self, user: User, text: str) -> None:
        """Raises ``Problem``."""
        seed = await self.people.seed_of(user)
        if not seed or user.totp_on:
            raise Problem(409, "there is no code to confirm; begin anew")
        step = find_step(seed, clean_code(text), self._now_ms(), 0)
        if step is None or not await self.people.confirm_totp(user, step):
            raise Problem(
                400, "this code is wrong; see whether the clock of your telephone is right", field="code"
            )


def _spent() -> Problem:
    return Problem(
        410,
        "this link was used already, or its time is over; ask for another ('postbackd user invite')",
        field="code",
    )
