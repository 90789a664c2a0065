-- Certificates that an authority gave us: documents that all nodes share, sealed, and who may change them.

CREATE TABLE certificate_documents (
    name text PRIMARY KEY,                    -- store.shelf
    sealed text NOT NULL
);

-- One row: whoever holds the documents, until when by the clock of this server.
CREATE TABLE certificate_holder (
    only_row boolean PRIMARY KEY DEFAULT true,
    holder text NOT NULL,
    until timestamptz NOT NULL,
    CONSTRAINT one_holder CHECK (only_row)
);
