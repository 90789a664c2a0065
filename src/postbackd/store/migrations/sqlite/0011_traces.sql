-- The trace (W3C Trace Context) of the postback that did it, where it named one: deliveries carry it on.

ALTER TABLE outbox ADD COLUMN trace TEXT;
