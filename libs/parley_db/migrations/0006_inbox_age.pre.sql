-- What was taken in long ago is forgotten. Rows come in by age, so that an event touches this index at its end only. (An index of page
-- ranges, BRIN, costs less still, but its ranges never shrink: once places are used again, all of them are as old as the oldest.)
CREATE INDEX inbox_received_at ON inbox (received_at);
