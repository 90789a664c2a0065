"""What Citus refuses, or does slowly, of a statement on distributed tables: a linter over the text of SQL.

The rules are from its documentation ("SQL Support and Workarounds") and its planner; ``deploy/citus/README.md`` names
each.  A statement is looked at level by level: each pair of parentheses that holds a ``SELECT`` is a level of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from postbackd.store.citus import DISTRIBUTED, REFERENCE
from postbackd.store.postgres_schema import migrations


def local_tables() -> set[str]:
    """Tables of ours that lie on the coordinator alone."""
    made = {name for step in migrations() for name in re.findall(r"CREATE TABLE (\w+)", step.sql)}
    return made - {*DISTRIBUTED, *REFERENCE}


LOCAL = local_tables()

_WORDS: Mapping[str, str] = {
    r"\b(xmin|xmax|cmin|cmax|ctid|tableoid)\b": "reads a system column of a row",
    r"SKIP LOCKED|NOWAIT": "looks for rows that nobody has locked",
    r"^WITH\b|\bWITH RECURSIVE\b": "has a common table expression",
    r"\bunnest\(": "joins an array",
    r"\bLATERAL\b": "joins laterally",
    r"GROUPING SETS|\bROLLUP ?\(|\bCUBE ?\(": "has grouping sets",
    r"\bTABLESAMPLE\b": "takes a sample",
    r"^MERGE\b": "merges",
    r"^(LOCK|TRUNCATE)\b": "locks whole tables",
}

_VOLATILE = re.compile(r"\b(now|random|nextval|clock_timestamp|gen_random_uuid|set_config|current_setting)\(")

_RELATION = re.compile(r"\b(FROM|JOIN|USING|INTO|UPDATE)(?: ONLY)? (\w+)(?: AS (\w+))?", re.IGNORECASE)


class Level(NamedTuple):
    """One query of a statement, without those inside of it."""

    text: str
    relations: Mapping[str, str]
    """Alias, or name -> table."""
    outer: Sequence[Level]
    """Those that it stands in, the nearest last."""

    @property
    def distributed(self) -> list[str]:
        return [alias for alias, table in self.relations.items() if table in DISTRIBUTED]


def broken_rules(sql: str) -> list[str]:
    """What is wrong with a statement where the tables are distributed, in words; of others nothing is said."""
    statement = _normal(sql)
    levels = _levels(statement)
    if not any(level.distributed for level in levels) or _is_of_the_schema(statement):
        return []
    found = [words for pattern, words in _WORDS.items() if re.search(pattern, statement)]
    found += _in_writing(statement)
    for level in levels:
        found += _in_level(level)
    return found


def _normal(sql: str) -> str:
    text = " ".join(re.sub(r"--[^\n]*", "", sql).split()).rstrip("; ")
    return re.sub(r"'[^']*'", "''", text)


def _is_of_the_schema(statement: str) -> bool:
    return (
        re.match(r"(CREATE|ALTER|DROP|COMMENT|VACUUM|ANALYZE|COPY|SET|RESET|CHECKPOINT|BEGIN)\b", statement)
        is not None
    )


def _in_writing(statement: str) -> Iterator[str]:
    written = re.match(r"(?:INSERT INTO|UPDATE|DELETE FROM)(?: ONLY)? (\w+)", statement)
    if written is None:
        if "FOR UPDATE" in statement and not re.search(r"\bbucket = (?!ANY)", statement):
            yield "locks rows of several shards"
        return
    if written[1] not in DISTRIBUTED:
        yield f"writes into {written[1]} what it reads elsewhere"
    if statement.startswith("INSERT"):
        if "SELECT" in statement or " VALUES (" not in statement:
            yield "inserts what it selects"
        if "bucket" not in statement.partition(" VALUES ")[0]:
            yield "does not say on which shard the rows belong"
        conflict = re.search(r"ON CONFLICT(?: \(([^)]*)\))?", statement)
        if conflict and "bucket" not in (conflict[1] or ""):
            yield "decides by a key without the bucket"
    elif _VOLATILE.search(statement):
        yield "changes rows by a function that says something else each time"
    if re.search(r"\bSET (?:[^()]*, )?bucket = ", statement):
        yield "moves a row to another shard"
    if statement.startswith("UPDATE") and re.search(
        r"^UPDATE [^()]*\bFROM\b", statement.partition(" WHERE ")[0]
    ):
        yield "changes rows by a join"


def _in_level(level: Level) -> Iterator[str]:
    first, *others = level.distributed or [""]
    for alias in others:
        if not _by_bucket(level.text, alias):
            yield f"joins {level.relations[alias]} by something else than the bucket"
    tables = level.relations.values()
    if level.distributed and any(table in LOCAL for table in tables):
        yield "joins a table of the coordinator"
    if (
        level.distributed
        and next(iter(level.relations)) != first
        and re.search(r"\b(LEFT|FULL) JOIN\b", level.text)
    ):
        yield "keeps rows of a small table that have none in a distributed one"
    if level.distributed:
        yield from _in_correlated(level)


def _in_correlated(level: Level) -> Iterator[str]:
    """What is wrong with a query about rows of the one it stands in."""
    for outer in level.outer:
        about = [alias for alias in outer.relations if re.search(rf"\b{alias}\.", level.text)]
        if not about or set(about) & set(level.relations):
            continue
        if not outer.distributed:
            yield "asks about each row of a table that is not distributed"
        elif not any(_by_bucket(level.text, alias) for alias in outer.distributed):
            yield "asks about each row elsewhere than in its bucket"
        if re.search(r"\b(LIMIT|OFFSET|UNION)\b", level.text):
            yield "asks about each row with a limit"


def _by_bucket(text: str, alias: str) -> bool:
    return (
        re.search(rf"\b{alias}\.bucket = \w+\.bucket\b|\b\w+\.bucket = {alias}\.bucket\b", text) is not None
    )


def _levels(statement: str) -> list[Level]:
    found: list[Level] = []
    _take_level(statement, (), found)
    return found


def _take_level(text: str, outer: Sequence[Level], found: list[Level]) -> None:
    inner, own = [], ""
    position = 0
    while position < len(text):
        if text.startswith(("(SELECT ", "( SELECT "), position):
            end = _closing(text, position)
            inner.append(text[position + 1 : end])
            own += "()"
            position = end + 1
        else:
            own += text[position]
            position += 1
    for part in re.split(r"\bUNION(?: ALL)?\b", own):  # each is a query by itself
        relations = {alias or table: table for _, table, alias in _RELATION.findall(part)}
        found.append(Level(part, relations, outer))
    whole = Level(own, {alias or table: table for _, table, alias in _RELATION.findall(own)}, outer)
    for query in inner:
        _take_level(query, (*outer, whole), found)


def _closing(text: str, start: int) -> int:
    depth = 0
    for position in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position
    return len(text)
