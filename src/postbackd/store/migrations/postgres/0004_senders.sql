-- Who may send (see core/senders.py), and what was found of those who did.

ALTER TABLE networks ADD COLUMN senders text NOT NULL DEFAULT '{}';  -- senders.Senders
ALTER TABLE postbacks ADD COLUMN observed smallint;                  -- bits of what observed steps would have refused it for
ALTER TABLE postbacks ADD COLUMN sender text;                        -- truncated address, where something is wrong with it
