-- Roll-ups: what reports read instead of the raw rows.  See core/rollups.py for levels and slots.

CREATE TABLE click_rollups (
    level INTEGER NOT NULL,                   -- rollups.Level
    slot INTEGER NOT NULL,                    -- quarters of an hour since 1970 at which the span begins
    campaign INTEGER NOT NULL,                -- 0 where the level does not tell campaigns apart
    offer INTEGER NOT NULL,
    country TEXT NOT NULL,                    -- '' where it is unknown, or not told apart
    clicks INTEGER NOT NULL,
    costed INTEGER NOT NULL,                  -- clicks with a cost
    cost_units INTEGER NOT NULL,              -- whole units and millionths apart: their sums stay inside 64 bits
    cost_micros INTEGER NOT NULL,
    CONSTRAINT click_rollup_once PRIMARY KEY (level, slot, campaign, offer, country)
) STRICT, WITHOUT ROWID;

CREATE TABLE postback_rollups (
    level INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    network INTEGER NOT NULL,
    campaign INTEGER NOT NULL,                -- 0: of no known campaign
    postbacks INTEGER NOT NULL,
    carried INTEGER NOT NULL,                 -- had a click id, usable or not
    matched INTEGER NOT NULL,
    duplicates INTEGER NOT NULL,
    CONSTRAINT postback_rollup_once PRIMARY KEY (level, slot, network, campaign)
) STRICT, WITHOUT ROWID;

-- Clicks by campaign and value of one sub id: by the hour while a day of the report zone is not over, then by that day,
-- the rarest values of a campaign put together.
CREATE TABLE sub_rollups (
    level INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    campaign INTEGER NOT NULL,
    sub INTEGER NOT NULL,                     -- 1 to 10
    value TEXT NOT NULL,                      -- '' for none
    other INTEGER NOT NULL,                   -- 1: the rest, put together
    clicks INTEGER NOT NULL,
    costed INTEGER NOT NULL,
    cost_units INTEGER NOT NULL,
    cost_micros INTEGER NOT NULL,
    CONSTRAINT sub_rollup_once PRIMARY KEY (level, sub, slot, campaign, value, other)
) STRICT, WITHOUT ROWID;

-- One narrow row a conversion, with what its click said: clicks are purged long before conversions are.
CREATE TABLE conversion_facts (
    conversion_id INTEGER PRIMARY KEY,        -- stamp of the request that counted it
    click_id INTEGER NOT NULL,                -- stamp of the click
    network INTEGER NOT NULL,
    campaign INTEGER NOT NULL,
    offer INTEGER NOT NULL,
    type TEXT NOT NULL,
    status INTEGER NOT NULL,
    value_micros INTEGER NOT NULL,
    currency TEXT NOT NULL,
    channels INTEGER NOT NULL,
    rung TEXT NOT NULL,                       -- of the time from click to conversion
    country TEXT,
    sub1 TEXT, sub2 TEXT, sub3 TEXT, sub4 TEXT, sub5 TEXT,
    sub6 TEXT, sub7 TEXT, sub8 TEXT, sub9 TEXT, sub10 TEXT
) STRICT;
CREATE INDEX facts_of_clicks ON conversion_facts (click_id);

-- The last days by the minute, for live charts.
CREATE TABLE minute_rollups (
    minute INTEGER NOT NULL,                  -- minutes since 1970
    kind TEXT NOT NULL,                       -- clicks, postbacks, conversions
    network INTEGER NOT NULL,
    word TEXT NOT NULL,                       -- of postbacks the verdict, of conversions the currency
    count INTEGER NOT NULL,
    units INTEGER NOT NULL,
    micros INTEGER NOT NULL,
    CONSTRAINT minute_rollup_once PRIMARY KEY (minute, kind, network, word)
) STRICT, WITHOUT ROWID;

-- Slots whose raw rows were written, or changed, late.
CREATE TABLE rollup_marks (
    id INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,                    -- rollups.Kind
    slot INTEGER NOT NULL
) STRICT;

-- How far the roll-ups have come, and who keeps them.
CREATE TABLE rollup_state (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
