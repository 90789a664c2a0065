-- What traffic sources are told of conversions: see core/deliveries.py for the words.

CREATE TABLE targets (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    preset TEXT,
    how TEXT NOT NULL,                        -- model.How
    secrets TEXT NOT NULL,                    -- name -> sealed value
    removed_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX target_name_once ON targets (name) WHERE removed_ms IS NULL;

CREATE TABLE rules (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    source INTEGER CONSTRAINT rule_source_exists REFERENCES sources (id),
    campaign INTEGER CONSTRAINT rule_campaign_exists REFERENCES campaigns (id),
    target INTEGER NOT NULL CONSTRAINT rule_target_exists REFERENCES targets (id),
    condition TEXT NOT NULL,
    delay_s INTEGER NOT NULL,
    payout TEXT NOT NULL,
    on_change TEXT NOT NULL,
    on_reversal TEXT NOT NULL,
    removed_ms INTEGER,
    CONSTRAINT rule_of_one CHECK ((source IS NULL) <> (campaign IS NULL))
) STRICT;
CREATE UNIQUE INDEX rule_name_once ON rules (name) WHERE removed_ms IS NULL;

-- Conversions that were counted or changed, and that the rules have not been asked about yet.
CREATE TABLE outbox (
    event INTEGER PRIMARY KEY,                -- of one conversion, the later event has the larger number
    request_id INTEGER NOT NULL,              -- stamp of the postback that did it
    click_id INTEGER NOT NULL,
    conversion_id INTEGER NOT NULL,
    status_from INTEGER NOT NULL,             -- 0: counted anew
    status INTEGER NOT NULL,
    value_micros_from INTEGER NOT NULL,
    value_micros INTEGER NOT NULL,
    currency TEXT NOT NULL
) STRICT;

-- One message that we owe a target.
CREATE TABLE deliveries (
    number INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice: it is part of the id that the target sees
    request_id INTEGER NOT NULL,              -- stamp of the postback that it follows from
    click_id INTEGER NOT NULL,
    type TEXT NOT NULL,
    transaction_id TEXT NOT NULL,
    conversion_id INTEGER NOT NULL,
    campaign INTEGER NOT NULL,
    offer INTEGER NOT NULL,
    rule INTEGER NOT NULL,
    target INTEGER NOT NULL,
    message INTEGER NOT NULL,                 -- deliveries.Message
    status INTEGER NOT NULL,                  -- of the conversion, when this was made
    value_micros INTEGER NOT NULL,            -- what the target is told
    currency TEXT NOT NULL,
    facts TEXT NOT NULL,                      -- deliveries.Facts, of the click
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,              -- not to be sent after; 0: never too old
    state INTEGER NOT NULL,                   -- deliveries.DeliveryState
    due_ms INTEGER NOT NULL,                  -- when to try, while it waits; the end of the lease, while somebody has it
    holder TEXT,                              -- who has it
    unsure INTEGER NOT NULL DEFAULT 0,        -- 1: somebody had it and ended without saying whether it was sent
    attempts INTEGER NOT NULL,
    settled_ms INTEGER,                       -- when it was delivered or given up
    reason TEXT NOT NULL                      -- why it is dead or cancelled
) STRICT;
CREATE INDEX deliveries_due ON deliveries (target, due_ms) WHERE state = 1;
CREATE INDEX deliveries_of_conversion ON deliveries (conversion_id);
CREATE INDEX deliveries_given_up ON deliveries (settled_ms) WHERE state >= 3; -- dead, cancelled

CREATE TABLE attempts (
    delivery INTEGER NOT NULL,                -- its number
    attempt INTEGER NOT NULL,                 -- 1 is the first
    at_ms INTEGER NOT NULL,
    took_ms INTEGER NOT NULL,
    http_status INTEGER NOT NULL,             -- 0: there was no answer
    excerpt TEXT NOT NULL,
    error TEXT NOT NULL,                      -- empty: it was a success
    CONSTRAINT attempt_once PRIMARY KEY (delivery, attempt)
) STRICT, WITHOUT ROWID;
CREATE INDEX attempts_by_time ON attempts (at_ms);

-- Targets that are not served as usual, and why; no row: all is well.
CREATE TABLE target_states (
    target INTEGER PRIMARY KEY,
    state TEXT NOT NULL,                      -- deliveries.TargetState
    since_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL,                -- 0: until an operator resumes it
    reason TEXT NOT NULL
) STRICT;
