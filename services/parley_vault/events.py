"""What vault publishes: a customer changed items. It consumes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from parley.vault.v1 import vault_events_pb2 as eventspb
from parley_bus.envelopes import Notary, envelope
from parley_db.outbox import OutboxEvent


@dataclass(frozen=True, slots=True)
class Customer:
    """Who acts: this service's id for them, and the reference under which audit knows them."""

    subject: str
    audit_ref: bytes


def items_changed(notary: Notary, who: Customer, action: str, items: Sequence[dict[str, Any]]) -> OutboxEvent:
    """Tell audit what was ``put``, ``deleted`` or made ``discoverable``: attributes and versions, never a value."""
    note, _ = notary.note(f"vault:items:{action}", {"items": list(items)}, who.audit_ref)
    return envelope(eventspb.ItemsChanged(note=note), notary.clock.now())
