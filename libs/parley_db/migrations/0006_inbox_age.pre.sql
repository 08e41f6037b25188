-- What was taken in long ago is forgotten. Rows lie in the order they came, so that the oldest and newest of each stretch of pages
-- are enough to find them, at next to no cost for an event.
CREATE INDEX inbox_received_at ON inbox USING brin (received_at) WITH (autosummarize = on);
