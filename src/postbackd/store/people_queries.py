"""The statements about people, their sessions, links and tokens, and the audit log; parameters are written ``?``."""

from __future__ import annotations

_USER = "u.id, u.name, u.role, u.password, u.totp, u.totp_on, u.totp_step, u.recovery, u.known, u.made_ms"

ANY_USER = "SELECT 1 FROM users LIMIT 1"
"""Whether there is anybody."""

USERS = f"SELECT {_USER} FROM users AS u ORDER BY u.name"
"""Everybody."""

USER_BY_NAME = f"SELECT {_USER} FROM users AS u WHERE u.name = ?"
"""One, by name."""

USER_BY_ID = f"SELECT {_USER} FROM users AS u WHERE u.id = ?"
"""One, by number."""

ADD_USER = """
INSERT INTO users (name, role, password, totp, totp_on, totp_step, recovery, known, made_ms)
VALUES (?, ?, ?, '', 0, 0, '[]', '[]', ?) RETURNING id
"""
"""Somebody new."""

REMOVE_USER = "DELETE FROM users WHERE id = ?"
"""With sessions, tokens and views, which refer to it."""

OTHER_OWNER = "SELECT 1 FROM users WHERE role = 'owner' AND id <> ? LIMIT 1"
"""Whether somebody else is an owner."""

SET_ROLE = "UPDATE users SET role = ? WHERE id = ?"
"""Let somebody do more or less."""

SET_PASSWORD = "UPDATE users SET password = ? WHERE id = ?"  # noqa: S105 - a statement
"""Another hash."""

SET_KNOWN = "UPDATE users SET known = ? WHERE id = ?"
"""Where they signed in from."""

SET_TOTP = "UPDATE users SET totp = ?, totp_on = ?, totp_step = 0, recovery = ? WHERE id = ?"
"""Another seed, or none."""

TAKE_STEP = "UPDATE users SET totp_step = ? WHERE id = ? AND totp_step < ? RETURNING id"
"""A code is taken, unless it or a later one was."""

TURN_TOTP_ON = """
UPDATE users SET totp_on = 1, totp_step = ? WHERE id = ? AND totp_on = 0 AND totp = ? RETURNING id
"""
"""The first code proves that the seed has arrived."""

RECOVERY = "SELECT recovery FROM users WHERE id = ?"
"""The codes that are left."""

SET_RECOVERY = "UPDATE users SET recovery = ? WHERE id = ?"
"""The codes that are left now."""

ADD_SESSION = "INSERT INTO sessions (hash, user_id, made_ms, seen_ms, prefix) VALUES (?, ?, ?, ?, ?)"
"""Somebody has signed in."""

SESSION = f"""
SELECT s.made_ms, s.seen_ms, {_USER} FROM sessions AS s JOIN users AS u ON u.id = s.user_id WHERE s.hash = ?
"""
"""One, with whose it is."""

SEE_SESSION = "UPDATE sessions SET seen_ms = ? WHERE hash = ?"
"""It is being used."""

END_SESSION = "DELETE FROM sessions WHERE hash = ?"
"""Somebody has signed out."""

END_SESSIONS = "DELETE FROM sessions WHERE user_id = ? AND hash <> ? RETURNING hash"
"""All of a user but one."""

ADD_CODE = """
INSERT INTO sign_in_codes (hash, purpose, name, role, made_by, made_ms, expires_ms) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
"""A new link."""

FORGET_CODES = "DELETE FROM sign_in_codes WHERE purpose = ? AND name = ?"
"""A newer link takes the place of those before it."""

FORGET_CODES_OF = "DELETE FROM sign_in_codes WHERE name = ?"
"""Whatever was meant for a user who is gone."""

FORGET_CODES_BY = "DELETE FROM sign_in_codes WHERE made_by = ?"
"""Whatever was made by a user who may let nobody in any more."""

CODE = """
SELECT hash, purpose, name, role, made_by, made_ms, expires_ms FROM sign_in_codes WHERE hash = ? AND expires_ms > ?
"""
"""One that can still be used."""

TAKE_CODE = """
DELETE FROM sign_in_codes WHERE hash = ? AND expires_ms > ?
RETURNING hash, purpose, name, role, made_by, made_ms, expires_ms
"""
"""It is used up."""

_WITH_MAKERS = """
SELECT t.id, t.name, t.hash, t.scopes, t.user_id, u.name, u.role, t.made_ms, t.expires_ms, t.used_ms
FROM tokens AS t LEFT JOIN users AS u ON u.id = t.user_id
"""

TOKENS = f"{_WITH_MAKERS} ORDER BY t.name"
"""All of them."""

TOKEN_BY_HASH = f"{_WITH_MAKERS} WHERE t.hash = ?"
"""One, by what is shown."""

ADD_TO_TOKENS = """
INSERT INTO tokens (name, hash, scopes, user_id, made_ms, expires_ms) VALUES (?, ?, ?, ?, ?, ?) RETURNING id
"""
"""A new one."""

USE_TOKEN = "UPDATE tokens SET used_ms = ? WHERE id = ?"  # noqa: S105 - a statement
"""It is being used."""

REMOVE_TOKEN = "DELETE FROM tokens WHERE id = ? RETURNING name"  # noqa: S105 - a statement
"""From now on it opens nothing."""

NOTE = """
INSERT INTO audit (at_ms, who, kind, action, object, fields, status, prefix) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
"""One more line of the audit log."""

AUDIT = """
SELECT id, at_ms, who, kind, action, object, fields, status, prefix FROM audit
WHERE id < ? AND (? = '' OR who = ?) ORDER BY id DESC LIMIT ?
"""
"""A page of it, newest first."""

TIDY = (
    "DELETE FROM sessions WHERE seen_ms < ? OR made_ms < ?",
    "DELETE FROM sign_in_codes WHERE expires_ms < ?",
    "DELETE FROM audit WHERE at_ms < ?",
)
"""What is over: sessions, links, old lines of the audit log."""
