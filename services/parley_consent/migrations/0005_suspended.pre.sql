-- Two processes that read identity's stream side by side may apply a suspension and what lifts an earlier one in the wrong order.
ALTER TABLE suspended_marketers ADD COLUMN seq bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN suspended_marketers.seq IS 'Where identity''s stream said so last. Only grows.';
