import io
import json
import os
from datetime import UTC

import pytest

from parley.common.v1.event_envelope_pb2 import EventEnvelope
from parley_audit.domain import SYSTEM, Noted
from parley_audit.faults import NoteRefused
from parley_audit.notes import NoteReader, notes_of
from parley_bus.log import NullLog
from parley_crypto.commitment import Opening, seal_opening
from parley_crypto.keyring import KeyRing
from parley_crypto.signing import Sealer
from parley_crypto.subject_ref import SubjectRef, seal_ref
from parley_kit.clock import iso
from parley_rpc.logs import logger
from tests.support.audit import ORDINARY, Told, Writer, customer

SEALER = Sealer(os.urandom(32))
REFS = KeyRing({1: os.urandom(32)}, 1)
WRITER = Writer(SEALER.public_key, REFS)
READER = NoteReader(SEALER, REFS, NullLog())


def read(event: EventEnvelope, reader: NoteReader = READER) -> list[Noted]:
    return [reader.read(note) for note in notes_of(event)]


def envelope(told: Told) -> EventEnvelope:
    return EventEnvelope.FromString(told.envelope)


@pytest.mark.parametrize("service", ORDINARY)
def test_every_services_note_is_read(service: str) -> None:
    subject = customer()
    told = WRITER.tell(service, subject)
    (noted,) = read(envelope(told))
    assert (subject, told.opening) == (noted.subject, noted.opening)
    assert json.loads(told.opening.detail)["time"] == iso(noted.occurred_at)


@pytest.mark.parametrize("time", [None, "", "yesterday", "2026-11-22T12:00:00", "9999-12-31T23:59:59-12:00"])
def test_what_says_no_time_happened_when_its_event_did(time: str | None) -> None:
    opening = Opening(bytes(32), json.dumps({"kind": "a:b:c"} | ({} if time is None else {"time": time})).encode())
    event = envelope(WRITER.tell("consent", customer()))
    payload = ORDINARY["consent"].FromString(event.payload)
    payload.note.commitment = opening.commitment
    payload.note.sealed_opening = seal_opening(SEALER.public_key, opening)
    event.payload = payload.SerializeToString()
    (noted,) = read(event)
    assert event.occurred_at.ToDatetime(UTC) == noted.occurred_at


def test_every_note_of_an_event_is_read() -> None:
    told = [envelope(WRITER.release(customer())) for _ in range(3)]
    together = EventEnvelope.FromString(told[0].SerializeToString())
    together.payload = b"".join(each.payload for each in told)
    assert [read(each)[0].commitment for each in told] == [each.commitment for each in read(together)]


def test_an_event_that_concerns_no_customer_is_the_systems() -> None:
    (noted,) = read(envelope(WRITER.tell("identity")))
    assert SYSTEM == noted.subject


def test_an_event_of_a_later_release_is_read_too() -> None:
    event = envelope(WRITER.tell("consent"))
    event.type = "parley.consent.v9.SomethingNew"
    event.payload += b"\x9a\x06\x03abc"  # field 99, which nobody here knows
    assert 1 == len(read(event))


@pytest.mark.parametrize("foreign", [b"x" * 300, seal_ref(KeyRing({1: os.urandom(32)}, 1), "audit", SubjectRef("ada"))])
def test_an_event_whose_reference_nobody_here_sealed_is_the_systems_and_warned_of(foreign: bytes) -> None:
    event, logged = envelope(WRITER.tell("consent", customer())), io.StringIO()
    payload, opening = ORDINARY["consent"].FromString(event.payload), Opening(bytes(32), b"{}")
    payload.note.commitment = opening.commitment
    payload.note.sealed_opening = seal_opening(SEALER.public_key, opening, foreign)
    event.payload = payload.SerializeToString()
    (noted,) = read(event, NoteReader(SEALER, REFS, logger("audit", logged)))
    assert (SYSTEM, opening) == (noted.subject, noted.opening)
    line = json.loads(logged.getvalue())
    assert ("warning", "audit_ref_refused") == (line["level"], line["event"])


@pytest.mark.parametrize("mixed_up", ["", "marketer", "pseudonym"])
def test_an_event_is_in_nobodys_history_but_that_of_whom_it_tells(mixed_up: str) -> None:
    told_of = {"marketer": "marketers/m", "pseudonym": "ada-to-m"}
    ref = SubjectRef("ada", "local", "ada-to-m", "marketers/m")
    detail = {"kind": "consent:release:settled", **told_of, **({mixed_up: "another"} if mixed_up else {})}
    event, opening = envelope(WRITER.tell("consent", "ada")), Opening(bytes(32), json.dumps(detail).encode())
    payload = ORDINARY["consent"].FromString(event.payload)
    payload.note.commitment = opening.commitment
    payload.note.sealed_opening = seal_opening(SEALER.public_key, opening, seal_ref(REFS, "audit", ref))
    event.payload = payload.SerializeToString()

    (noted,) = read(event)

    assert (SYSTEM if mixed_up else "ada") == noted.subject


@pytest.mark.parametrize("spoil", ["no note", "no opening", "garbage", "lie", "short salt", "no object", "no json"])
def test_an_event_whose_note_does_not_hold_is_refused(spoil: str) -> None:
    event = envelope(WRITER.liar("consent") if spoil == "lie" else WRITER.tell("consent", customer()))
    payload = ORDINARY["consent"].FromString(event.payload)
    match spoil:
        case "no note":
            payload.ClearField("note")
        case "no opening":
            payload.note.sealed_opening = b"x" * 100
        case "short salt" | "no object" | "no json":  # the commitment holds, but nobody could write this opening's file
            opening = {
                "short salt": Opening(b"salt", b"{}"),
                "no object": Opening(bytes(32), b"[]"),
                "no json": Opening(bytes(32), b"\xff"),
            }[spoil]
            payload.note.commitment = opening.commitment
            payload.note.sealed_opening = seal_opening(SEALER.public_key, opening)
    event.payload = b"\xff" if spoil == "garbage" else payload.SerializeToString()
    with pytest.raises(NoteRefused):
        read(event)
