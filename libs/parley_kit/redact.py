"""Deny-by-default redaction: what a log line may hold is listed here, everything else is dropped by name."""

from collections.abc import Mapping
from typing import Any

ALLOWED_LOG_FIELDS = frozenset(
    {
        "attempt", "batch", "caller", "code", "count", "delay_s", "duration_ms", "error_id", "error_type", "event",
        "event_id", "event_type", "exchange", "group", "level", "logger", "method", "migration", "path", "pid", "port",
        "reason", "request_id", "rows", "seq", "service", "size", "state", "stream", "timestamp", "trace_id", "tx",
        "version", "where",
    },
)  # fmt: skip


def keep_allowed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the allowed fields; name (never show) the rest under ``dropped``."""
    kept = {key: value for key, value in fields.items() if key in ALLOWED_LOG_FIELDS}
    if dropped := sorted(set(fields) - set(kept)):
        kept["dropped"] = dropped
    return kept
