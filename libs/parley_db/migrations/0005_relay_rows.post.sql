-- A step that ends by rows alone: replaced.
DROP FUNCTION relay_step(bigint);
