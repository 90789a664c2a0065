-- Erasure, retention, and what the personal data firewall found.

-- Clicks that were erased: what postbacks still bring for them is kept without their data.  Lives as long as conversions.
CREATE TABLE erased_clicks (
    click_id INTEGER PRIMARY KEY              -- stamp
) STRICT;

-- The certificates: what was erased, when, and under which keyed reference it was asked for.  No personal data.
CREATE TABLE erasures (
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    asked TEXT NOT NULL,                      -- erasing.ASKED
    reference TEXT NOT NULL,                  -- keyed hash of the id that was asked for
    counts TEXT NOT NULL,                     -- table -> rows, as JSON
    done_ms INTEGER                           -- when nothing of it was left in the files; NULL: run it again
) STRICT;

-- What each purge deleted, for its brake.
CREATE TABLE purges (
    at_ms INTEGER NOT NULL,
    class TEXT NOT NULL,                      -- retention.Class
    rows INTEGER NOT NULL,
    CONSTRAINT purge_once PRIMARY KEY (at_ms, class)
) STRICT, WITHOUT ROWID;

-- Personal data that somebody sent, counted by minute; never the value.
CREATE TABLE finds (
    minute INTEGER NOT NULL,                  -- minutes since 1970
    network INTEGER NOT NULL,                 -- 0: a click
    field TEXT NOT NULL,
    kind TEXT NOT NULL,                       -- privacy.Kind
    count INTEGER NOT NULL,
    CONSTRAINT find_minute_once PRIMARY KEY (minute, network, field, kind)
) STRICT, WITHOUT ROWID;

ALTER TABLE networks ADD COLUMN personal_data TEXT NOT NULL DEFAULT 'replace'
    CONSTRAINT network_personal_data_known CHECK (personal_data IN ('replace', 'drop', 'refuse'));
