-- Alarms: what is usual, what has been seen before, what is wrong now, and whom to tell.

-- Who keeps the alarms, and until when.  At most one row.
CREATE TABLE alarm_keeper (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Counts by hour: a network's rhythm.
CREATE TABLE alarm_hours (
    scope TEXT NOT NULL,                      -- alarms.Scope
    subject INTEGER NOT NULL,
    hour INTEGER NOT NULL,                    -- hours since 1970
    clicks INTEGER NOT NULL,
    postbacks INTEGER NOT NULL,
    carried INTEGER NOT NULL,
    matched INTEGER NOT NULL,
    duplicates INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    gap_from_ms INTEGER NOT NULL,
    gap_until_ms INTEGER NOT NULL,
    CONSTRAINT alarm_hour_once PRIMARY KEY (scope, subject, hour)
) STRICT, WITHOUT ROWID;

-- What a network has sent before: status words, unfilled macros, numbers of parameters, truncated addresses.
CREATE TABLE alarm_words (
    kind TEXT NOT NULL,                       -- alarms.Kind
    network INTEGER NOT NULL,
    word TEXT NOT NULL,
    first_ms INTEGER NOT NULL,                -- 0: while we were learning what is usual
    last_ms INTEGER NOT NULL,
    count INTEGER NOT NULL,
    CONSTRAINT alarm_word_once PRIMARY KEY (kind, network, word)
) STRICT, WITHOUT ROWID;

CREATE TABLE alarms (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    scope TEXT NOT NULL,
    subject INTEGER NOT NULL,
    urgent INTEGER NOT NULL,
    seen TEXT NOT NULL,
    normal TEXT NOT NULL,
    todo TEXT NOT NULL,
    raised_ms INTEGER NOT NULL,
    bad_ms INTEGER NOT NULL,
    good_ms INTEGER NOT NULL,
    told_ms INTEGER NOT NULL,
    ended_ms INTEGER                          -- NULL: it lasts
) STRICT;
CREATE UNIQUE INDEX alarm_lasts_once ON alarms (kind, scope, subject) WHERE ended_ms IS NULL;

CREATE TABLE alarm_quiets (
    kind TEXT NOT NULL,
    scope TEXT NOT NULL,
    subject INTEGER NOT NULL,
    until_ms INTEGER NOT NULL,                -- 0: until the alarm that lasts is over
    who TEXT NOT NULL,
    why TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    CONSTRAINT alarm_quiet_once PRIMARY KEY (kind, scope, subject)
) STRICT, WITHOUT ROWID;

-- Notices to send, and what became of them.
CREATE TABLE alarm_notices (
    id INTEGER PRIMARY KEY,
    alarm INTEGER NOT NULL,
    place TEXT NOT NULL,                      -- alarm_notices.PLACES
    said TEXT NOT NULL,                       -- alarms.Said
    body TEXT NOT NULL,
    made_ms INTEGER NOT NULL,
    due_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    state TEXT NOT NULL,
    settled_ms INTEGER,
    error TEXT NOT NULL
) STRICT;
CREATE INDEX alarm_notices_due ON alarm_notices (due_ms) WHERE state = 'waiting';
CREATE INDEX alarm_notices_of_alarm ON alarm_notices (alarm);
