-- Alarms: what is usual, what has been seen before, what is wrong now, and whom to tell.

-- Who keeps the alarms, and until when.  At most one row.
CREATE TABLE alarm_keeper (
    name text PRIMARY KEY,
    holder text NOT NULL,
    until_ms bigint NOT NULL
);

-- Counts by hour: a network's rhythm.
CREATE TABLE alarm_hours (
    scope text COLLATE "C" NOT NULL,                      -- alarms.Scope
    subject bigint NOT NULL,
    hour bigint NOT NULL,                    -- hours since 1970
    clicks bigint NOT NULL,
    postbacks bigint NOT NULL,
    carried bigint NOT NULL,
    matched bigint NOT NULL,
    duplicates bigint NOT NULL,
    first_ms bigint NOT NULL,
    last_ms bigint NOT NULL,
    gap_from_ms bigint NOT NULL,
    gap_until_ms bigint NOT NULL,
    CONSTRAINT alarm_hour_once PRIMARY KEY (scope, subject, hour)
);

-- What a network has sent before: status words, unfilled macros, numbers of parameters, truncated addresses.
CREATE TABLE alarm_words (
    kind text COLLATE "C" NOT NULL,                       -- alarms.Kind
    network bigint NOT NULL,
    word text COLLATE "C" NOT NULL,
    first_ms bigint NOT NULL,                -- 0: while we were learning what is usual
    last_ms bigint NOT NULL,
    count bigint NOT NULL,
    CONSTRAINT alarm_word_once PRIMARY KEY (kind, network, word)
);

CREATE TABLE alarms (
    id bigint PRIMARY KEY,
    kind text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    subject bigint NOT NULL,
    urgent bigint NOT NULL,
    seen text NOT NULL,
    normal text NOT NULL,
    todo text NOT NULL,
    raised_ms bigint NOT NULL,
    bad_ms bigint NOT NULL,
    good_ms bigint NOT NULL,
    told_ms bigint NOT NULL,
    ended_ms bigint                          -- NULL: it lasts
);
CREATE UNIQUE INDEX alarm_lasts_once ON alarms (kind, scope, subject) WHERE ended_ms IS NULL;

CREATE TABLE alarm_quiets (
    kind text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    subject bigint NOT NULL,
    until_ms bigint NOT NULL,                -- 0: until the alarm that lasts is over
    who text NOT NULL,
    why text NOT NULL,
    at_ms bigint NOT NULL,
    CONSTRAINT alarm_quiet_once PRIMARY KEY (kind, scope, subject)
);

-- Notices to send, and what became of them.
CREATE TABLE alarm_notices (
    id bigint PRIMARY KEY,
    alarm bigint NOT NULL,
    place text NOT NULL,                      -- alarm_notices.PLACES
    said text NOT NULL,                       -- alarms.Said
    body text NOT NULL,
    made_ms bigint NOT NULL,
    due_ms bigint NOT NULL,
    attempts bigint NOT NULL,
    state text NOT NULL,
    settled_ms bigint,
    error text NOT NULL
);
CREATE INDEX alarm_notices_due ON alarm_notices (due_ms) WHERE state = 'waiting';
CREATE INDEX alarm_notices_of_alarm ON alarm_notices (alarm);
