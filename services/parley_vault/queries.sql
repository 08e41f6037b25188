-- name: subjects_meet
-- Makes rows for subjects that have none; in one order always, so that two calls can't deadlock.
INSERT INTO subjects (subject, dek, owned, created_at)
SELECT met.subject, met.dek, false, $3 FROM unnest($1::text[], $2::bytea[]) AS met (subject, dek) ORDER BY met.subject
ON CONFLICT (subject) DO NOTHING;

-- name: subjects_lock
-- Locks those subjects whose items are nobody's own yet, and answers their wrapped data keys.
SELECT subject, dek FROM subjects WHERE subject = ANY($1) AND NOT owned ORDER BY subject FOR UPDATE;

-- name: subject_own
-- Locks a subject for an act of its own, from which on nobody else puts items there; answers its wrapped data key. $4: it puts items.
INSERT INTO subjects (subject, dek, owned, created_at, changed) VALUES ($1, $2, true, $3, CASE WHEN $4 THEN pg_current_xact_id() END)
ON CONFLICT (subject) DO UPDATE SET owned = true, changed = coalesce(excluded.changed, subjects.changed) RETURNING dek;

-- name: subject_any
-- Any subject, with its wrapped data key.
SELECT subject, dek FROM subjects WHERE subject > '' ORDER BY subject LIMIT 1;

-- name: subject_look
-- Note that a subject's owner has looked at what is there, be it nothing, from which on nobody else puts items there either.
INSERT INTO subjects (subject, dek, owned, created_at) SELECT $1, $2, true, $3
WHERE (SELECT true FROM subjects WHERE subject = $1 AND owned) IS NULL
ON CONFLICT (subject) DO UPDATE SET owned = true;

-- name: transactions_now
-- The oldest transaction that is still under way: a place in the order of transactions.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text;

-- name: subjects_changed
-- Who has changed since such a place, and the next one: nobody is missed, whatever the order of commits, and who was named may be named
-- again. One row at least; its subject is null where it is nobody. What a restored database says of transactions that are yet to come
-- doesn't count.
SELECT pg_snapshot_xmin(now)::text AS next, s.subject, s.changed::text AS changed FROM pg_current_snapshot() AS now
LEFT JOIN subjects AS s ON s.changed >= $1::text::xid8 AND s.changed < pg_snapshot_xmax(now);

-- name: items_sealed
-- What opens the newest version of each item that is there, and was then, of those asked for (subject, attribute, moment or null): their
-- places, from 1. A release, which comes for thousands, needs to know no more of them.
SELECT w.nth, (SELECT dek FROM subjects AS s WHERE s.subject = w.subject) AS dek, i.version, i.ciphertext
FROM unnest($1::text[], $2::text[], $3::timestamptz[]) WITH ORDINALITY AS w (subject, attribute, unchanged_since, nth)
JOIN LATERAL (
    SELECT version, ciphertext, created_at FROM items
    WHERE items.subject = w.subject AND items.attribute = w.attribute ORDER BY version DESC LIMIT 1
) AS i ON w.unchanged_since IS NULL OR i.created_at <= w.unchanged_since;

-- The other statements about items answer these columns in this order: subject, attribute, dek, version, ciphertext, provenance,
-- created_at, level.

-- name: items_latest
-- The newest version of each item that is there, of pairs (subject, attribute).
SELECT w.subject, w.attribute, (SELECT dek FROM subjects AS s WHERE s.subject = w.subject) AS dek, i.version, i.ciphertext,
    i.provenance, i.created_at, coalesce(
        (SELECT level FROM discoverable AS d WHERE d.subject = w.subject AND d.attribute = w.attribute), 0) AS level
FROM unnest($1::text[], $2::text[]) AS w (subject, attribute)
JOIN LATERAL (
    SELECT version, ciphertext, provenance, created_at FROM items
    WHERE items.subject = w.subject AND items.attribute = w.attribute ORDER BY version DESC LIMIT 1
) AS i ON true;

-- name: items_page
-- A page of one subject's items, each in its newest version, by attribute.
SELECT DISTINCT ON (i.attribute)
    i.subject, i.attribute, s.dek, i.version, i.ciphertext, i.provenance, i.created_at, coalesce(d.level, 0) AS level
FROM items AS i
JOIN subjects AS s ON s.subject = i.subject
LEFT JOIN discoverable AS d ON d.subject = i.subject AND d.attribute = i.attribute
WHERE i.subject = $1 AND i.attribute > $2
ORDER BY i.attribute, i.version DESC LIMIT $3;

-- name: item_versions
-- The newest 1,000 versions of one item, newest first; only the newest can be discoverable.
SELECT i.subject, i.attribute, s.dek, i.version, i.ciphertext, i.provenance, i.created_at,
    CASE WHEN row_number() OVER (ORDER BY i.version DESC) = 1 THEN coalesce(d.level, 0) ELSE 0 END AS level
FROM items AS i
JOIN subjects AS s ON s.subject = i.subject
LEFT JOIN discoverable AS d ON d.subject = i.subject AND d.attribute = i.attribute
WHERE i.subject = $1 AND i.attribute = $2
ORDER BY i.version DESC LIMIT 1000;

-- name: items_delete
-- Deletes an item with its history; answers the version that was newest, if any.
WITH gone AS (DELETE FROM items WHERE subject = $1 AND attribute = $2 RETURNING version)
SELECT max(version) FROM gone;

-- name: discoverable_set
-- Lets an item be matched on from a level up.
WITH noted AS (UPDATE subjects SET changed = pg_current_xact_id() WHERE subject = $1)
INSERT INTO discoverable (subject, attribute, level) VALUES ($1, $2, $3)
ON CONFLICT (subject, attribute) DO UPDATE SET level = excluded.level;

-- name: discoverable_clear
-- Lets nobody match on items any more: pairs (subject, attribute).
WITH hidden AS (
    DELETE FROM discoverable AS d USING unnest($1::text[], $2::text[]) AS w (subject, attribute)
    WHERE d.subject = w.subject AND d.attribute = w.attribute AND d.subject = ANY ($1) RETURNING d.subject)
UPDATE subjects SET changed = pg_current_xact_id() WHERE subject = ANY (ARRAY(SELECT subject FROM hidden));

-- name: discoverable_page
-- A page of all discoverable items, each in its newest version, by subject and attribute.
SELECT d.subject, d.attribute, s.dek, i.version, i.ciphertext, i.provenance, i.created_at, d.level
FROM discoverable AS d
JOIN subjects AS s ON s.subject = d.subject
JOIN LATERAL (
    SELECT version, ciphertext, provenance, created_at FROM items
    WHERE items.subject = d.subject AND items.attribute = d.attribute ORDER BY version DESC LIMIT 1
) AS i ON true
WHERE (d.subject, d.attribute) > ($1, $2)
ORDER BY d.subject, d.attribute LIMIT $3;

-- name: discoverable_of
-- The discoverable items of some subjects, each in its newest version.
SELECT d.subject, d.attribute, s.dek, i.version, i.ciphertext, i.provenance, i.created_at, d.level
FROM discoverable AS d
JOIN subjects AS s ON s.subject = d.subject
JOIN LATERAL (
    SELECT version, ciphertext, provenance, created_at FROM items
    WHERE items.subject = d.subject AND items.attribute = d.attribute ORDER BY version DESC LIMIT 1
) AS i ON true
WHERE d.subject = ANY($1);
