"""
What a permit rests on, kept from whoever carries it.

One rule stands behind permits to many marketers, and a customer's revision is one number for all of them: in clear, either
would join the customer's pseudonyms in the broker's hands. So consent seals both, to itself and bound to the customer.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from parley.common.v1 import permit_pb2 as permitpb
from parley_crypto.keyring import KeyRing

_PLACE, _OWN = "parley/permit-basis/v1", "parley/permit-own/v1"
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Basis:
    """The customer's revision when it was decided, and the rule it rests on where a consent is yet to be born."""

    revision: int
    rule_id: str = ""

    def seal(self, ring: KeyRing, customer: str) -> bytes:
        """Seal it; its length tells nothing."""
        plain = self.revision.to_bytes(8, "big") + self.rule_id.ljust(26).encode()
        return ring.wrap(plain, _PLACE, customer)

    @classmethod
    def open(cls, ring: KeyRing, customer: str, sealed: bytes) -> "Basis":
        """Open it for the same customer. Raises CiphertextInvalid."""
        plain = ring.unwrap(sealed, _PLACE, customer)
        return cls(int.from_bytes(plain[:8], "big"), plain[8:].decode().strip())


@dataclass(frozen=True, slots=True)
class Own:
    """What is a customer's own in a permit: under which reference audit knows them, and until when no rule of theirs changes."""

    audit_ref: bytes
    until: datetime | None = None

    def seal(self, ring: KeyRing, customer: str) -> bytes:
        """Seal it."""
        until = (self.until - _EPOCH) // _MICROSECOND if self.until else 0
        return ring.wrap(until.to_bytes(8, "big") + self.audit_ref, _OWN, customer)

    @classmethod
    def of(cls, ring: KeyRing, customer: str, permit: permitpb.PermitBody) -> "Own":
        """Open a permit's, for the same customer; else what broker says. Raises CiphertextInvalid."""
        if not permit.own:
            return cls(permit.audit_ref)
        plain = ring.unwrap(permit.own, _OWN, customer)
        until = int.from_bytes(plain[:8], "big")
        return cls(plain[8:], _EPOCH + until * _MICROSECOND if until else None)
