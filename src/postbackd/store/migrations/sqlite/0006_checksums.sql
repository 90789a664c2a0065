-- A checksum over what a money row says (core/checksum.py).  NULL: from before this, and not sealed yet.

ALTER TABLE conversions ADD COLUMN checksum INTEGER;
ALTER TABLE conversion_history ADD COLUMN checksum INTEGER;

-- Rows that came with a later request must have one; 0 when all must.
INSERT INTO settings (name, value)
SELECT 'unsealed_to', max(coalesce((SELECT max(request_id) FROM postbacks), 0),
                          coalesce((SELECT value FROM settings WHERE name = 'last_stamp'), 0));
