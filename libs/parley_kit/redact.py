"""Deny-by-default redaction: what a log line may hold is listed here, everything else is dropped by name."""

from collections.abc import Mapping
from typing import Any

ALLOWED_LOG_FIELDS = frozenset(
    {
        "attempt", "caller", "code", "count", "error_id", "error_type", "event", "event_id", "group", "level", "logger", "method",
        "reason", "request_id", "seq", "service", "state", "stream", "timestamp", "trace_id", "where",
    },
)  # fmt: skip


def keep_allowed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the allowed fields; name (never show) the rest under ``dropped``."""
    kept = {key: value for key, value in fields.items() if key in ALLOWED_LOG_FIELDS}
    if dropped := sorted(set(fields) - set(kept)):
        kept["dropped"] = dropped
    return kept
