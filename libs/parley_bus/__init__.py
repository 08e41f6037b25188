"""Events between services over Redis or Valkey streams: a transport that Postgres can rebuild at any time."""
