"""Reading events: what their writer noted for the log, checked against its commitment."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from parley.common.v1 import event_envelope_pb2 as envelopepb
from parley.common.v1 import receipt_pb2 as receiptpb
from parley_audit.domain import SYSTEM, Noted
from parley_audit.faults import NoteRefused
from parley_bus.log import Log
from parley_crypto.commitment import Opening, unseal_opening
from parley_crypto.keyring import KeyRing
from parley_crypto.signing import Sealer
from parley_crypto.subject_ref import RefInvalid, SubjectRef, open_ref

_NOTE, _NOTES = 1, 15
"""The fields of every event that hold what is logged: one thing, or what happened to many customers together."""


def _noted_class() -> type[Message]:
    """A message with nothing but the notes that every event has: newer events must reach an older log too."""
    file = descriptor_pb2.FileDescriptorProto(
        name="parley_audit/noted.proto",
        package="parley_audit",
        syntax="proto3",
        dependency=[receiptpb.DESCRIPTOR.name],
    )
    noted = file.message_type.add(name="Noted")
    for name, number in (("note", _NOTE), ("notes", _NOTES)):
        field = noted.field.add(name=name, number=number)
        field.label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
        field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{receiptpb.AuditNote.DESCRIPTOR.full_name}"
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("parley_audit.Noted"))


_NOTED = _noted_class()


@dataclass(frozen=True, slots=True)
class Written:
    """A note as an event holds it, and when that happened."""

    note: receiptpb.AuditNote
    occurred_at: datetime


def notes_of(envelope: envelopepb.EventEnvelope) -> list[Written]:
    """The notes of an event. Raises NoteRefused for one that has none."""
    try:
        noted: Any = _NOTED.FromString(envelope.payload)
    except DecodeError as error:
        raise NoteRefused from error
    at = envelope.occurred_at.ToDatetime(UTC)
    written = [Written(note, at) for note in (*noted.note, *noted.notes)]
    if not written:
        raise NoteRefused
    return written


@dataclass(frozen=True)
class NoteReader:
    """Opens what is sealed to audit: the note's opening, and the reference to the customer."""

    sealer: Sealer
    refs: KeyRing
    log: Log

    def read(self, written: Written) -> Noted:
        """
        Read a note as it will be logged. Raises NoteRefused.

        One whose reference doesn't open, or is of another customer than it tells of, is the system's: what happened is still
        logged and provable.
        """
        opening, ref = self._opening(written.note.sealed_opening)
        detail = _object(opening.detail)
        noted = Noted(self._subject(ref, detail), _time(detail, written.occurred_at), opening)
        if noted.commitment != written.note.commitment:
            raise NoteRefused
        return noted

    def _opening(self, sealed: bytes) -> tuple[Opening, bytes]:
        try:
            return unseal_opening(self.sealer, sealed)
        except ValueError as error:
            raise NoteRefused from error

    def _subject(self, sealed: bytes, detail: Mapping[str, Any]) -> str:
        if not sealed:
            return SYSTEM
        try:
            ref = open_ref(self.refs, "audit", sealed)
            if _is_of(ref, detail):
                return ref.subject
        except RefInvalid:
            pass
        # The caller brought it, the writer couldn't look inside: refusing it would stop the log for everybody else.
        self.log.warning("audit_ref_refused")
        return SYSTEM


def _is_of(ref: SubjectRef, detail: Mapping[str, Any]) -> bool:
    """Whether what is told is told of the customer whom an introduction names: broker, which passes it on, could mix them up."""
    introduced = (ref.marketer, ref.pseudonym)
    return not any(introduced) or introduced == (detail.get("marketer"), detail.get("pseudonym"))


def _time(detail: Mapping[str, Any], event: datetime) -> datetime:
    """When it happened, as its parties read it: who passes a note on can't say otherwise. Else when its event did."""
    try:
        at = datetime.fromisoformat(str(detail.get("time")))
        return at.astimezone(UTC) if at.tzinfo else event
    except (ValueError, OverflowError):
        return event


def _object(detail: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(detail)
    except ValueError as error:
        raise NoteRefused from error
    if not isinstance(found, dict):
        raise NoteRefused
    return found
