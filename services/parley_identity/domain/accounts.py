"""Accounts, and the one-time codes by which imported ones are claimed."""

import hashlib
import re
import secrets
from dataclasses import dataclass, field

from parley_crypto.pae import pae
from parley_kit.ids import Entropy

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LOOKALIKES = str.maketrans("OIL", "011", "- ")
_CODE = re.compile(f"[{_ALPHABET}]{{20}}")


@dataclass(frozen=True, slots=True)
class Account:
    """
    A customer: the ids under which each service knows them, and what makes their pseudonyms.

    ``public_key`` is 32 bytes, None until an imported account is claimed. ``import_row`` is the keyed hash of the row
    it came from, None for who registered. Nobody is introduced to an account that isn't ``complete``.
    """

    customer: str
    vault_subject: str
    consent_subject: str
    audit_subject: str
    wrapped_seed: bytes = field(repr=False)
    public_key: bytes | None
    import_row: bytes | None
    complete: bool

    @property
    def name(self) -> str:
        """The resource name."""
        return f"customers/{self.customer}"

    @property
    def claimed(self) -> bool:
        """Whether the account has an owner who can sign in."""
        return self.public_key is not None


@dataclass(frozen=True)
class Blinder:
    """Makes keyed hashes of what must be recognised but not kept: a guess can't be tried on a copy of the database."""

    key: bytes = field(repr=False)

    def row(self, importer: str, import_name: str, row_key: str) -> bytes:
        """Hash a row of an import; imports of two importers never meet. 32 bytes."""
        return self._hash(pae(importer, import_name, row_key), b"import/row/v1")

    def code(self, canonical: str) -> bytes:
        """Hash a claim code. 32 bytes."""
        return self._hash(canonical.encode(), b"claim/code/v1")

    def _hash(self, message: bytes, purpose: bytes) -> bytes:
        return hashlib.blake2b(message, digest_size=32, key=self.key, person=purpose).digest()


def make_code(entropy: Entropy = secrets.token_bytes) -> str:
    """Make a claim code: 100 random bits as 20 characters of Crockford's base32, in canonical form."""
    bits = int.from_bytes(entropy(13), "big")
    return "".join(_ALPHABET[bits >> 5 * place & 31] for place in range(20))


def print_code(canonical: str) -> str:
    """Write a code as people get it: ``7MZ4K-Q0P2X-AB8RT-NN31D``."""
    return "-".join(canonical[start : start + 5] for start in range(0, 20, 5))


def read_code(typed: str) -> str | None:
    """Read a code as people type it (case, hyphens, spaces, O for 0, I and L for 1) into canonical form; None if it is none."""
    canonical = typed.upper().translate(_LOOKALIKES)
    return canonical if _CODE.fullmatch(canonical) else None
