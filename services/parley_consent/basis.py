"""
What a permit rests on, kept from whoever carries it.

One rule stands behind permits to many marketers, and a customer's revision is one number for all of them: in clear, either
would join the customer's pseudonyms in the broker's hands. So consent seals both, to itself and bound to the customer.
"""

from dataclasses import dataclass

from parley.common.v1 import permit_pb2 as permitpb
from parley_crypto.keyring import KeyRing

_PLACE, _AUDIT = "parley/permit-basis/v1", "parley/permit-audit-ref/v1"


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


def seal_audit_ref(ring: KeyRing, customer: str, audit_ref: bytes) -> bytes:
    """Seal the reference under which audit knows a customer, which their own token brought, for a permit."""
    return ring.wrap(audit_ref, _AUDIT, customer)


def open_audit_ref(ring: KeyRing, customer: str, permit: permitpb.PermitBody) -> bytes:
    """Whose history a permit's release belongs to: as the customer says, else as broker does. Raises CiphertextInvalid."""
    if not permit.own_audit_ref:
        return permit.audit_ref
    return ring.unwrap(permit.own_audit_ref, _AUDIT, customer)
