"""Postgres for every service: pool, transactions, named queries, migrations, outbox, inbox, idempotency."""
