-- Names of parameters that no field of their network claims, as they came: at most some dozens an hour and network.

CREATE TABLE unmapped_names (
    minute INTEGER NOT NULL,
    network INTEGER NOT NULL,
    name TEXT NOT NULL,
    CONSTRAINT unmapped_name_once PRIMARY KEY (minute, network, name)
) STRICT, WITHOUT ROWID;

-- What came before was not noted: what comes in the first days is no news.
INSERT INTO settings (name, value) VALUES ('unmapped_since_ms', CAST(unixepoch('subsec') * 1000 AS INTEGER));
