"""Writing events: an envelope for each, and for what audit logs a note that only audit can read."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from google.protobuf.message import DecodeError, Message

from parley.common.v1 import event_envelope_pb2 as envelopepb
from parley.common.v1 import receipt_pb2 as receiptpb
from parley_crypto.commitment import Opening, commit, seal_opening
from parley_db.outbox import OutboxEvent
from parley_kit.clock import Clock, iso
from parley_kit.ids import uuid7
from parley_kit.telemetry import traceparent


def envelope(payload: Message, at: datetime, *, traced: bool = True) -> OutboxEvent:
    """
    Put an event message into an envelope, ready for the outbox; it points to the span that is being worked in, if ``traced``.

    What must not be joined to what led to it isn't traced.
    """
    return _event(type(payload), payload.SerializeToString(), at, traced=traced)


def header(kind: type[Message], at: datetime, *, traced: bool = True) -> OutboxEvent:
    """An envelope without its payload, for a statement that puts it in (``with_payload``)."""
    return _event(kind, b"", at, traced=traced)


def _event(kind: type[Message], payload: bytes, at: datetime, *, traced: bool) -> OutboxEvent:
    event_id = uuid7()
    message = envelopepb.EventEnvelope(
        event_id=str(event_id),
        type=kind.DESCRIPTOR.full_name,
        payload=payload,
        traceparent=traceparent.get() if traced else "",
    )
    message.occurred_at.FromDatetime(at)
    return OutboxEvent(event_id, message.type, message.SerializeToString())


def cause(serialised: bytes) -> str:
    """What was being worked in when an event was written (W3C's traceparent); empty where nothing was traced, or it is broken."""
    try:
        return envelopepb.EventEnvelope.FromString(serialised).traceparent
    except DecodeError:
        return ""


@dataclass(frozen=True)
class Notary:
    """Writes down what happened so that audit can log it: a salted commitment in clear, the rest for audit's eyes."""

    audit_key: bytes
    clock: Clock

    def note(self, kind: str, detail: Mapping[str, Any], audit_ref: bytes = b"") -> tuple[receiptpb.AuditNote, Opening]:
        """
        Note something of a kind (``source:subject:action``), now; about the customer of ``audit_ref``, if any.

        The detail names marketers, pseudonyms, consents and attributes; never a value.
        """
        opening = commit({"kind": kind, "time": iso(self.clock.now()), **detail})
        sealed = seal_opening(self.audit_key, opening, audit_ref)
        return receiptpb.AuditNote(commitment=opening.commitment, sealed_opening=sealed), opening
