-- needs: 6
-- A checksum over what a money row says (core/checksum.py).  NULL: from before this, and not sealed yet.
-- A program of the version before would change a row and leave its checksum: it must not run beside this.

ALTER TABLE conversions ADD COLUMN checksum integer;
ALTER TABLE conversion_history ADD COLUMN checksum integer;

-- Rows that came with a later request must have one; 0 when all must.
INSERT INTO settings (name, value)
SELECT 'unsealed_to', greatest((SELECT coalesce(max(request_id), 0) FROM postbacks),
                               (SELECT coalesce(max(value), 0) FROM settings WHERE name = 'last_stamp'));
