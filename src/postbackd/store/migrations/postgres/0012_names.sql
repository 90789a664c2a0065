-- Names of parameters that no field of their network claims, as they came: at most some dozens an hour and network.

CREATE TABLE unmapped_names (
    minute bigint NOT NULL,
    network bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    CONSTRAINT unmapped_name_once PRIMARY KEY (minute, network, name)
);

-- What came before was not noted: what comes in the first days is no news.
INSERT INTO settings (name, value) VALUES ('unmapped_since_ms', (extract(epoch FROM now()) * 1000)::bigint);
