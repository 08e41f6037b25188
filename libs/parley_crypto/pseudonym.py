"""
Pseudonyms: the only name under which one marketer knows one customer.

Two keyed BLAKE2b steps (RFC 7693), meeting OpenID Connect Core section 8.1 with a keyed PRF in place of a salted hash: without
the customer's own seed nobody, not even who holds the sector key, can compute or link one; deleting the seed ends every link.
"""

import base64
import hashlib


def sector_key(identity_key: bytes, legal_entity: str, epoch: int) -> bytes:
    """Derive the 32-byte key of a marketer's sector: its legal entity, which it can't vary, in an epoch."""
    message = epoch.to_bytes(4, "big") + legal_entity.encode()
    return hashlib.blake2b(message, digest_size=32, key=identity_key, person=b"psn/sector/v1").digest()


def pseudonym(seed: bytes, sector: bytes) -> str:
    """Derive a customer's pseudonym in a sector: 32 characters of lowercase base32."""
    digest = hashlib.blake2b(seed, digest_size=20, key=sector, person=b"psn/subject/v1").digest()
    return base64.b32encode(digest).decode().lower()
