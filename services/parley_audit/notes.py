"""Reading events: what their writer noted for the log, checked against its commitment."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from parley.common.v1 import event_envelope_pb2 as envelopepb
from parley.common.v1 import receipt_pb2 as receiptpb
from parley.consent.v1 import consent_events_pb2 as consentpb
from parley_audit.domain import SYSTEM, Noted
from parley_audit.faults import NoteRefused
from parley_bus.log import Log
from parley_crypto.commitment import Opening, unseal_opening
from parley_crypto.keyring import KeyRing
from parley_crypto.signing import Sealer
from parley_crypto.subject_ref import RefInvalid, open_ref
from parley_crypto.tlog.receipt import SALT_SIZE

_RELEASE = consentpb.ReleaseSettled.DESCRIPTOR.full_name
"""The events that share a leaf: many at a time, and each party is shown its own commitment's way to it."""


def _noted_class() -> type[Message]:
    """A message with nothing but the note that every event has as field 1: newer events must reach an older log too."""
    file = descriptor_pb2.FileDescriptorProto(
        name="parley_audit/noted.proto",
        package="parley_audit",
        syntax="proto3",
        dependency=[receiptpb.DESCRIPTOR.name],
    )
    field = file.message_type.add(name="Noted").field.add(name="note", number=1)
    field.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
    field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
    field.type_name = f".{receiptpb.AuditNote.DESCRIPTOR.full_name}"
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("parley_audit.Noted"))


_NOTED = _noted_class()


@dataclass(frozen=True)
class NoteReader:
    """Opens what is sealed to audit: the note's opening, and the reference to the customer."""

    sealer: Sealer
    refs: KeyRing
    log: Log

    def read(self, envelope: envelopepb.EventEnvelope) -> Noted:
        """
        Read an event as it will be logged. Raises NoteRefused.

        One whose reference doesn't open is the system's: what happened is still logged and provable.
        """
        note = _note(envelope.payload)
        (opening, ref), occurred_at = self._opening(note.sealed_opening), envelope.occurred_at.ToDatetime(UTC)
        noted = Noted(self._subject(ref), occurred_at, opening, release=envelope.type == _RELEASE)
        if noted.commitment != note.commitment:
            raise NoteRefused
        return noted

    def read_all(self, envelopes: Iterable[envelopepb.EventEnvelope]) -> list[Noted]:
        """Read several, in order. Raises NoteRefused."""
        return [self.read(envelope) for envelope in envelopes]

    def _opening(self, sealed: bytes) -> tuple[Opening, bytes]:
        try:
            opening, ref = unseal_opening(self.sealer, sealed)
        except ValueError as error:
            raise NoteRefused from error
        if len(opening.salt) != SALT_SIZE or not _is_object(opening.detail):
            raise NoteRefused
        return opening, ref

    def _subject(self, ref: bytes) -> str:
        if not ref:
            return SYSTEM
        try:
            return open_ref(self.refs, "audit", ref).subject
        except RefInvalid:
            # The caller brought it, the writer couldn't look inside: refusing it would stop the log for everybody else.
            self.log.warning("audit_ref_refused")
            return SYSTEM


def _is_object(detail: bytes) -> bool:
    try:
        return isinstance(json.loads(detail), dict)
    except ValueError:
        return False


def _note(payload: bytes) -> receiptpb.AuditNote:
    try:
        noted = _NOTED.FromString(payload)
    except DecodeError as error:
        raise NoteRefused from error
    note: receiptpb.AuditNote = noted.note  # type: ignore[attr-defined] # the class is made above
    return note
