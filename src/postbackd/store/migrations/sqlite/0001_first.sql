-- The first schema.  Names of constraints are part of it: a violation is recognised by its name.
-- "stamp" columns hold the first 64 bits of a click id (see core/click_id.py).

CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE networks (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    key TEXT NOT NULL CONSTRAINT network_key_once UNIQUE,
    preset TEXT,
    currency TEXT NOT NULL,
    dedup TEXT NOT NULL CONSTRAINT network_dedup_known CHECK (dedup IN ('ignore', 'update', 'add', 'hold')),
    strict INTEGER NOT NULL,
    answer TEXT NOT NULL CONSTRAINT network_answer_known CHECK (answer IN ('json', 'ok', '204')),
    fields TEXT NOT NULL,
    types TEXT NOT NULL,
    statuses TEXT NOT NULL,
    removed_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX network_name_once ON networks (name) WHERE removed_ms IS NULL;

CREATE TABLE sources (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    preset TEXT,
    fields TEXT NOT NULL,
    removed_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX source_name_once ON sources (name) WHERE removed_ms IS NULL;

CREATE TABLE offers (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    network INTEGER NOT NULL CONSTRAINT offer_network_exists REFERENCES networks (id),
    url TEXT NOT NULL,
    window_min_s INTEGER NOT NULL,
    window_max_s INTEGER NOT NULL,
    removed_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX offer_name_once ON offers (name) WHERE removed_ms IS NULL;

CREATE TABLE campaigns (
    id INTEGER PRIMARY KEY CONSTRAINT campaign_fits_click_id CHECK (id BETWEEN 1 AND 16777215),
    name TEXT NOT NULL,
    slug TEXT NOT NULL CONSTRAINT campaign_slug_once UNIQUE,
    source INTEGER NOT NULL CONSTRAINT campaign_source_exists REFERENCES sources (id),
    offers TEXT NOT NULL,
    removed_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX campaign_name_once ON campaigns (name) WHERE removed_ms IS NULL;

CREATE TABLE signing_keys (
    id INTEGER PRIMARY KEY,
    secret BLOB NOT NULL,
    active_from_ms INTEGER NOT NULL,
    retired INTEGER NOT NULL
) STRICT;

CREATE TABLE clicks (
    click_id INTEGER PRIMARY KEY,             -- stamp
    campaign INTEGER NOT NULL,
    offer INTEGER NOT NULL,
    kind INTEGER NOT NULL,                    -- model.ClickKind
    source_click_id TEXT,
    cost_micros INTEGER,
    country TEXT,
    ip_prefix TEXT,
    own_id TEXT,
    sub1 TEXT, sub2 TEXT, sub3 TEXT, sub4 TEXT, sub5 TEXT,
    sub6 TEXT, sub7 TEXT, sub8 TEXT, sub9 TEXT, sub10 TEXT
) STRICT;

-- A caller's own click id, and the click that was registered with it.
CREATE TABLE own_ids (
    own_id TEXT NOT NULL,
    click_id INTEGER NOT NULL,
    CONSTRAINT own_id_once PRIMARY KEY (own_id)
) STRICT, WITHOUT ROWID;

-- The unique key that decides what is counted.  Narrow on purpose: a batch then dirties few pages.
CREATE TABLE conversions (
    click_id INTEGER NOT NULL,                -- stamp of the click
    type TEXT NOT NULL,
    transaction_id TEXT NOT NULL,             -- '' when the sender gave none
    conversion_id INTEGER NOT NULL,           -- stamp of the request that counted it
    network INTEGER NOT NULL,
    campaign INTEGER NOT NULL,
    offer INTEGER NOT NULL,
    status INTEGER NOT NULL,                  -- statuses.Status
    value_micros INTEGER NOT NULL,
    currency TEXT NOT NULL,
    channels INTEGER NOT NULL,                -- union of model.Channel bits
    status_time_ms INTEGER NOT NULL,          -- sender's time of the status, 0 when it gave none
    CONSTRAINT counted_once PRIMARY KEY (click_id, type, transaction_id)
) STRICT, WITHOUT ROWID;

-- Every change of a conversion after it was counted, in order of request.
CREATE TABLE conversion_history (
    request_id INTEGER PRIMARY KEY,           -- stamp of the request that asked for it
    conversion_id INTEGER NOT NULL,
    status_from INTEGER NOT NULL,
    status_to INTEGER NOT NULL,
    status_word TEXT,                         -- as the sender wrote it
    value_micros_from INTEGER NOT NULL,
    value_micros_to INTEGER NOT NULL
) STRICT;
CREATE INDEX history_of_conversion ON conversion_history (conversion_id);

-- The postback log: one row a request, whatever became of it.
CREATE TABLE postbacks (
    request_id INTEGER PRIMARY KEY,           -- stamp
    network INTEGER NOT NULL,
    channel INTEGER NOT NULL,                 -- model.Channel
    verdict INTEGER NOT NULL,                 -- verdicts.Verdict
    reason INTEGER NOT NULL,                  -- diagnosis.Reason, 0 for none
    click_id INTEGER,                         -- stamp, when the click id verified or was registered
    campaign INTEGER,                         -- as the click id or the click says
    conversion_id INTEGER,                    -- the conversion it made, repeated or changed
    click_text TEXT,                          -- the fields as received; click_text only when click_id does not say it
    type TEXT,
    value TEXT,
    currency TEXT,
    transaction_id TEXT,
    status TEXT,
    time TEXT,
    found_in TEXT,                            -- the parameter that held the click id, when it was another than mapped
    bytes INTEGER NOT NULL,                   -- query and body
    parameters INTEGER NOT NULL,
    first_verdict INTEGER,                    -- before a late match or a replay changed it
    first_reason INTEGER
) STRICT;
CREATE INDEX postbacks_not_counted ON postbacks (click_id, request_id) WHERE verdict <> 1;
CREATE INDEX postbacks_to_repair ON postbacks (network, request_id) WHERE verdict >= 4; -- held, unmatched, rejected

-- Unmatched postbacks by the click id they wait for; taken when that click arrives.
CREATE TABLE waiting (
    click_ref TEXT NOT NULL,                  -- '#' and the stamp, or '=' and a caller's own id
    request_id INTEGER NOT NULL,
    CONSTRAINT waits_once PRIMARY KEY (click_ref, request_id)
) STRICT, WITHOUT ROWID;

-- Conversions that the pixel brought without a transaction id: the S2S postback of the same sale may name one.
CREATE TABLE pixel_conversions (
    click_id INTEGER NOT NULL,
    type TEXT NOT NULL,
    CONSTRAINT pixel_conversion_once PRIMARY KEY (click_id, type)
) STRICT, WITHOUT ROWID;

-- Requests that were refused before they reached an endpoint, counted by minute.
CREATE TABLE refusals (
    minute INTEGER NOT NULL,                  -- minutes since 1970
    kind TEXT NOT NULL,
    count INTEGER NOT NULL,
    CONSTRAINT refusal_minute_once PRIMARY KEY (minute, kind)
) STRICT, WITHOUT ROWID;

-- Response times of postbacks: a histogram a minute (reports/histogram.py has the buckets).
CREATE TABLE response_times (
    minute INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    count INTEGER NOT NULL,
    total_us INTEGER NOT NULL,
    CONSTRAINT response_time_once PRIMARY KEY (minute, bucket)
) STRICT, WITHOUT ROWID;
