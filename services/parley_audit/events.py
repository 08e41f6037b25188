"""What audit takes in, and the one event that it publishes."""

from datetime import datetime

from parley.audit.v1 import audit_events_pb2 as eventspb
from parley_bus.envelopes import envelope
from parley_db.outbox import OutboxEvent

STREAMS = ("identity", "vault", "consent", "broker")
"""The services whose every event is logged."""

READERS = ("consent",)
"""Who reads audit's own stream."""


def stream_logged(service: str, seq: int, at: datetime) -> OutboxEvent:
    """Tell a service that its stream's events up to ``seq``, without a gap, are in the log."""
    return envelope(eventspb.StreamLogged(service=service, seq=seq), at)
